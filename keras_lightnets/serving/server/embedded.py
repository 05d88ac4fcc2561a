"""The embedded stand-in for TensorFlow Serving, put together."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import socket
import threading
import time
from collections.abc import Callable

import grpc
import tensorflow as tf
import tornado.netutil

from keras_lightnets.serving.server import errors, servable, warmup
from keras_lightnets.serving.server.batcher import Batcher
from keras_lightnets.serving.server.batching_parameters import BatchingParameters
from keras_lightnets.serving.server.grpc_api import grpc_server
from keras_lightnets.serving.server.layout import ServedModel
from keras_lightnets.serving.server.manager import ModelManager
from keras_lightnets.serving.server.metrics import Metrics
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.server.predictor import Predictor
from keras_lightnets.serving.server.rest import RestApi, http_server
from keras_lightnets.serving.server.scheduler import DirectScheduler, Scheduler

log = logging.getLogger("keras_lightnets.serving")


class EmbeddedServer:
    """Serves models over REST and gRPC from this process until `stop`.

    XLA is switched off for the whole process, for good, as in `tensorflow_model_server`.

    Args:
        models: What to serve.
        options: Addresses and limits.
        batching: How to merge requests; None runs each by itself.
    """

    def __init__(
        self,
        models: list[ServedModel],
        options: ServerOptions,
        batching: BatchingParameters | None = None,
    ) -> None:
        self.options = options
        self.metrics = Metrics()
        self.rest_port = 0
        self.grpc_port: int | None = None
        self._batching = batching
        self.manager = ModelManager(models, self._load, options.poll_interval_s)
        self._grpc: grpc.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="serving-rest", daemon=True)
        self._stop_rest: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Takes the ports, loads the models, warms them up, then begins to answer.

        Raises:
            ServingError: A port in use, or a model that cannot be loaded.
        """
        servable.disable_xla()
        sockets = self._bind()
        try:
            scheduler: Scheduler = (
                Batcher(self._batching, self.metrics)
                if self._batching
                else DirectScheduler(_default_threads(), self.metrics)
            )
            self._scheduler = scheduler
            self._predictor = Predictor(
                self.manager, scheduler, self.metrics, self.options.max_requests
            )
            if self.options.grpc_port is not None:
                self._grpc, self.grpc_port = grpc_server(self._predictor, self.options)
            self.manager.start()
        except BaseException:
            for bound in sockets:
                bound.close()
            raise
        self._api = RestApi(self._predictor, self.options)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(sockets), self._loop).result()
        if self._grpc is not None:
            self._grpc.start()

    def stop(self) -> bool:
        """Refuses new requests, finishes those in flight, and frees everything.

        Returns:
            Whether all requests in flight ended within the drain time. If not, the graph still
            runs them and not everything is freed: end the process.
        """
        limit = self.options.drain_timeout_s
        stopped = self._grpc.stop(limit) if self._grpc else None
        drained = asyncio.run_coroutine_threadsafe(self._drain(limit), self._loop).result()
        if stopped is not None:
            drained &= stopped.wait(limit)
        if not drained:
            return False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._api.close()
        freed = threading.Event()

        def free() -> None:
            self._scheduler.close()
            self.manager.close()
            freed.set()

        # A request that was answered with 504 may have left a graph that never returns.
        threading.Thread(target=free, name="serving-free", daemon=True).start()
        return freed.wait(limit)

    def _bind(self) -> list[socket.socket]:
        options = self.options
        try:
            sockets = tornado.netutil.bind_sockets(options.rest_port, options.host)
        except OSError as error:
            raise errors.ServingError(
                "UNAVAILABLE",
                f"Cannot listen on {options.host}:{options.rest_port} (REST): {error.strerror}",
            ) from error
        self.rest_port = sockets[0].getsockname()[1]
        return sockets

    def _load(self, name: str, version: int, path: pathlib.Path) -> servable.Servable:
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=self.options.intra_op_threads,
            inter_op_parallelism_threads=self.options.inter_op_threads,
        )
        status = "fail"
        try:
            loaded = servable.Servable(name, version, path, config)
            try:
                batching = self._batching
                limited = batching is not None and not batching.split_large
                count = warmup.run(loaded, batching.max_batch_size if limited else None)
            except BaseException:
                loaded.close()
                raise
            log.info("model %s version %d loaded, %d warm-up requests", name, version, count)
            status = "success"
            return loaded
        finally:
            self.metrics.loads.add(str(path), status)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _serve(self, sockets: list[socket.socket]) -> None:
        self._http = http_server(self._api)
        self._http.add_sockets(sockets)

    async def _drain(self, limit_s: float) -> bool:
        self._http.stop()
        self._api.draining = True
        end = time.monotonic() + limit_s
        while self._api.active and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await self._http.close_all_connections()
        return not self._api.active


def _default_threads() -> int:
    """Without batching, more threads than cores only queue inside TensorFlow."""
    return max(2, os.cpu_count() or 1)
