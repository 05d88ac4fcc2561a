"""TF Serving's gRPC API: `PredictionService`, `ModelService`, and gRPC's own health service."""

from __future__ import annotations

import concurrent.futures
import functools
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import tensorflow as tf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.log import log
from keras_lightnets.serving.server.manager import ModelManager
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.server.predictor import Predictor


def _spec(request: Any) -> tuple[str, int | str | None]:
    """Model and version or label that a request names.

    Raises:
        ServingError: It names no model.
    """
    if not request.HasField("model_spec"):
        raise errors.invalid("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise errors.invalid("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        return spec.name, spec.version_label
    return spec.name, spec.version.value if choice else None


def _answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """Logs one line for each call of a method, and turns errors into gRPC's."""

    @functools.wraps(method)
    def call(api: Api, request: Any, context: grpc.ServicerContext) -> Any:
        start = time.perf_counter()
        answer, failure = None, None
        try:
            answer = method(api, request, context)
        except Exception as error:
            failure = errors.describe(error)
            if failure.code == "INTERNAL":
                log.exception("%s failed", method.__name__)
        elapsed_ms = 1000 * (time.perf_counter() - start)
        code = failure.code if failure else "OK"
        name, model = method.__name__, request.model_spec.name
        log.info("%s gRPC %s %s %s %.1f ms", context.peer(), name, model, code, elapsed_ms)
        if failure is not None:
            context.abort(grpc.StatusCode[failure.code], failure.message)
        return answer

    return call


class Api(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Predict, GetModelMetadata and GetModelStatus; the other methods answer UNIMPLEMENTED."""

    def __init__(self, manager: ModelManager, predictor: Predictor, options: ServerOptions) -> None:
        self._manager, self._predictor, self._options = manager, predictor, options

    @_answering
    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        limit_s = min(self._options.request_timeout_s, context.time_remaining() or math.inf)
        return self._predictor.run(limit_s, self._predict, request)

    def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        with self._manager.acquire(*_spec(request)) as servable:
            signature = servable.signature(
                request.model_spec.signature_name,
                "FAILED_PRECONDITION",
                'Serving signature key "{}" not found',
            )
            wanted = list(request.output_filter) or list(signature.outputs)
            if unknown := set(wanted) - signature.outputs.keys():
                raise errors.invalid(
                    f"output tensor alias not found in signature: {sorted(unknown)}"
                )
            if len(set(wanted)) < len(wanted):
                raise errors.invalid(f"duplicate output tensor alias in {wanted}")
            inputs = signature.arrays(request.inputs, self._options.max_body_bytes)
            outputs = servable.run(signature, inputs)
            response = predict_pb2.PredictResponse(model_spec=servable.spec(signature.name))
        for key in wanted:
            response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
        return response

    @_answering
    def GetModelMetadata(
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        name, version = _spec(request)
        if not request.metadata_field:
            raise errors.invalid("GetModelMetadataRequest must specify at least one metadata_field")
        if unknown := set(request.metadata_field) - {"signature_def"}:
            raise errors.invalid(f"Metadata field {sorted(unknown)[0]} is not supported")
        with self._manager.acquire(name, version) as servable:
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=servable.spec())
            response.metadata["signature_def"].Pack(servable.signature_map)
        return response

    @_answering
    def GetModelStatus(
        self,
        request: get_model_status_pb2.GetModelStatusRequest,
        context: grpc.ServicerContext,
    ) -> get_model_status_pb2.GetModelStatusResponse:
        return self._manager.status(*_spec(request))


class GrpcServer:
    """Bound to `options.grpc_port` at once; `port` is the one it got.

    Raises:
        ServingError: The port is in use.
    """

    def __init__(self, manager: ModelManager, predictor: Predictor, options: ServerOptions) -> None:
        # One thread more than requests may be in flight, so that the next is refused, not kept.
        threads = options.max_requests + 1
        patience_ms = max(1000, int(1000 * options.client_timeout_s))
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(threads, "serving-grpc"),
            maximum_concurrent_rpcs=4 * threads,
            options=[
                # gRPC's default of 4 MiB is less than 8 float images of 224 x 224.
                ("grpc.max_receive_message_length", options.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # Without it a second server shares the port instead of failing.
                ("grpc.so_reuseport", 0),
                # A client that reads nothing answers no ping either, and is dropped.
                ("grpc.keepalive_time_ms", patience_ms),
                ("grpc.keepalive_timeout_ms", patience_ms),
            ],
        )
        api = Api(manager, predictor, options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(api, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(api, self._server)
        # A client may watch for ever, which must not take a thread from the requests.
        self._health = health.HealthServicer(
            experimental_non_blocking=True,
            experimental_thread_pool=concurrent.futures.ThreadPoolExecutor(1, "serving-health"),
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"{host}:{options.grpc_port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise errors.ServingError(
                "UNAVAILABLE", f"Cannot listen on {address} (gRPC): is the port in use?"
            )

    def start(self) -> None:
        """Begins to answer."""
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        self._server.start()

    def stop(self, limit_s: float) -> threading.Event:
        """Refuses new requests; the event comes when those in flight have ended."""
        self._health.enter_graceful_shutdown()
        return self._server.stop(limit_s)
