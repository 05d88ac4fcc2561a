"""The embedded server, put together from its two APIs, its models and their graphs."""

from __future__ import annotations

import asyncio
import functools
import pathlib
import socket
import threading
import time
from collections.abc import Sequence

import tensorflow as tf
import tornado.netutil

from keras_lightnets.export import readback, warmup
from keras_lightnets.serving.server.grpc_api import GrpcServer
from keras_lightnets.serving.server.layout import ServedModel
from keras_lightnets.serving.server.log import log
from keras_lightnets.serving.server.manager import ModelManager
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.server.predictor import Predictor
from keras_lightnets.serving.server.rest import RestApi, http_server
from keras_lightnets.serving.server.servable import Servable


class EmbeddedServer:
    """Serves models over REST and gRPC from this process until `stop`.

    XLA is switched off for the whole process, for good, as in `tensorflow_model_server`.

    Args:
        models: What to serve.
        options: Addresses and limits.
    """

    def __init__(self, models: Sequence[ServedModel], options: ServerOptions) -> None:
        self.options = options
        self.rest_port = self.grpc_port = 0
        self._manager = ModelManager(
            {model.name: model.base_path for model in models},
            functools.partial(load, threads=options.threads),
            options.poll_interval_s,
        )
        self._predictor = Predictor(options.max_requests)
        self._api = RestApi(self._manager, self._predictor, options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="serving-rest", daemon=True)

    def start(self) -> None:
        """Takes the ports, loads the models, warms them up, then begins to answer.

        Raises:
            OSError: The REST port is in use.
            ServingError: The gRPC port is in use, or a model cannot be loaded.
        """
        readback.disable_xla(tf)
        sockets = tornado.netutil.bind_sockets(self.options.rest_port, self.options.host)
        self.rest_port = sockets[0].getsockname()[1]
        try:
            self._grpc = GrpcServer(self._manager, self._predictor, self.options)
            self.grpc_port = self._grpc.port
            self._manager.start()
        except BaseException:
            for bound in sockets:
                bound.close()
            raise
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(sockets), self._loop).result()
        self._grpc.start()

    def stop(self) -> bool:
        """Refuses new requests, finishes those in flight, and frees everything.

        Returns:
            Whether all requests in flight ended within the drain time. If not, the graph still
            runs them and not everything is freed: end the process.
        """
        limit = self.options.drain_timeout_s
        stopped = self._grpc.stop(limit)
        drained = asyncio.run_coroutine_threadsafe(self._drain(limit), self._loop).result()
        if not (stopped.wait(limit) and drained):
            return False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        freed = threading.Event()

        def free() -> None:
            self._predictor.close()
            self._manager.close()
            freed.set()

        # A request that was answered with 504 may have left a graph that never returns.
        threading.Thread(target=free, name="serving-free", daemon=True).start()
        return freed.wait(limit)

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


def load(name: str, version: int, path: pathlib.Path, threads: int = 0) -> Servable:
    """Loads a version and runs its recorded requests, so that no client waits for the first ones.

    Raises:
        Exception: Whatever TensorFlow finds wrong with it, or a warm-up request that fails.
    """
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads
    )
    loaded = Servable(name, version, path, config)
    count = 0
    try:
        for request in warmup.read_warmup(path):
            signature = loaded.signature(
                request.model_spec.signature_name,
                "INVALID_ARGUMENT",
                "A warm-up request asks for the signature {!r}",
            )
            loaded.run(signature, signature.arrays(request.inputs))
            count += 1
    except BaseException:
        loaded.close()
        raise
    log.info("model %s version %d loaded, %d warm-up requests", name, version, count)
    return loaded
