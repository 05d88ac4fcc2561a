"""TF Serving's gRPC API: `PredictionService`, `ModelService`, and gRPC's own health service."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import tensorflow as tf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_lightnets.serving.server import errors, protos
from keras_lightnets.serving.server.log import log
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.server.predictor import Predictor, signature_of


def _spec(request: Any) -> tuple[str, int | None]:
    """Model and version that a request names.

    Raises:
        ServingError: It names no model, or a label.
    """
    if not request.HasField("model_spec"):
        raise errors.invalid("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise errors.invalid("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        raise errors.invalid(f"Unrecognized servable version label: {spec.version_label}")
    return spec.name, spec.version.value if choice else None


class _Api:
    """Runs a method, logs one line, and turns errors into gRPC's."""

    def __init__(self, predictor: Predictor, options: ServerOptions) -> None:
        self.predictor, self.options = predictor, options

    def _call(
        self, method: str, request: Any, context: grpc.ServicerContext, work: Callable[[], Any]
    ) -> Any:
        start = time.perf_counter()
        answer, failure = None, None
        try:
            answer = work()
        except Exception as error:
            failure = errors.describe(error)
            if failure.code == "INTERNAL":
                log.exception("%s failed", method)
        elapsed_ms = 1000 * (time.perf_counter() - start)
        code = failure.code if failure else "OK"
        model = request.model_spec.name
        log.info("%s gRPC %s %s %s %.1f ms", context.peer(), method, model, code, elapsed_ms)
        if failure is not None:
            context.abort(grpc.StatusCode[failure.code], failure.message)
        return answer


class PredictionService(_Api, prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the other methods answer UNIMPLEMENTED."""

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        return self._call("Predict", request, context, lambda: self._predict(request, context))

    def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        with self.predictor.admitted():
            lease = self.predictor.manager.acquire(*_spec(request))
            try:
                signature = signature_of(
                    lease.servable,
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
                inputs = signature.arrays(request.inputs, self.options.max_body_bytes)
            except BaseException:
                lease.release()
                raise
            spec = protos.model_spec(lease.servable, signature.name)
            future = self.predictor.submit(lease, signature, inputs)
            limit = min(self.options.request_timeout_s, context.time_remaining() or float("inf"))
            try:
                outputs = future.result(limit)
            except concurrent.futures.TimeoutError:
                future.cancel()
                message = f"No answer within {limit:g} s"
                raise errors.ServingError("DEADLINE_EXCEEDED", message) from None
        response = predict_pb2.PredictResponse(model_spec=spec)
        for key in wanted:
            response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
        return response

    def GetModelMetadata(
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        return self._call("GetModelMetadata", request, context, lambda: self._metadata(request))

    def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        spec = _spec(request)
        if not request.metadata_field:
            raise errors.invalid("GetModelMetadataRequest must specify at least one metadata_field")
        if unknown := set(request.metadata_field) - {"signature_def"}:
            raise errors.invalid(f"Metadata field {sorted(unknown)[0]} is not supported")
        lease = self.predictor.manager.acquire(*spec)
        try:
            response = get_model_metadata_pb2.GetModelMetadataResponse(
                model_spec=protos.model_spec(lease.servable)
            )
            response.metadata["signature_def"].Pack(protos.signature_map(lease.servable))
            return response
        finally:
            lease.release()


def _unserved(method: str) -> Callable[..., Any]:
    def refuse() -> None:
        message = f"Only Predict is served, as Keras models have no signature for {method}"
        raise errors.ServingError("UNIMPLEMENTED", message)

    return lambda self, request, context: self._call(method, request, context, refuse)


for _method in ("Classify", "Regress"):
    setattr(PredictionService, _method, _unserved(_method))


class ModelService(_Api, model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; the other method answers UNIMPLEMENTED."""

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        def work() -> Any:
            return protos.model_status(self.predictor.manager, *_spec(request))

        return self._call("GetModelStatus", request, context, work)


class GrpcServer:
    """Bound to `options.grpc_port` at once; `port` is the one it got.

    Raises:
        ServingError: The port is in use.
    """

    def __init__(self, predictor: Predictor, options: ServerOptions) -> None:
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
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(predictor, options), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(predictor, options), self._server
        )
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
