"""TF Serving's gRPC API: `PredictionService` and `ModelService`."""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_lightnets.serving.server import errors, protos, warmup
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.server.predictor import Predictor
from keras_lightnets.serving.server.servable import DEFAULT_SIGNATURE, Servable, Signature

log = logging.getLogger("keras_lightnets.serving")


def _spec(request: Any) -> tuple[str, int | None, str | None]:
    """Model, version and label that a request names.

    Raises:
        ServingError: It names no model.
    """
    if not request.HasField("model_spec"):
        raise errors.invalid("Missing ModelSpec")
    message = request.model_spec
    if not message.name:
        raise errors.invalid("ModelSpec has no name specified.")
    choice = message.WhichOneof("version_choice")
    return (
        message.name,
        message.version.value if choice == "version" else None,
        message.version_label if choice == "version_label" else None,
    )


def _signature(servable: Servable, name: str) -> Signature:
    """The signature of a request; REST has another code and other words for its absence."""
    if (name or DEFAULT_SIGNATURE) not in servable.signatures:
        message = f'Serving signature key "{name}" not found; this model has '
        raise errors.ServingError("FAILED_PRECONDITION", message + str(sorted(servable.signatures)))
    return servable.signature(name)


def _refuse(method: str) -> None:
    message = f"Only Predict is served, as Keras models have no signature for {method}"
    raise errors.ServingError("UNIMPLEMENTED", message)


class _Api:
    """Runs a method, logs one line, and turns errors into gRPC's."""

    def __init__(self, predictor: Predictor, options: ServerOptions) -> None:
        self.predictor, self.options = predictor, options

    def _call(
        self, method: str, request: Any, context: grpc.ServicerContext, work: Callable[[], Any]
    ) -> Any:
        start = time.perf_counter()
        code, message = "OK", ""
        try:
            return work()
        except Exception as exception:
            error = errors.from_exception(exception)
            code, message = error.code, error.message
            if code == "INTERNAL":
                log.exception("%s failed", method)
        finally:
            elapsed_ms = 1000 * (time.perf_counter() - start)
            model = request.model_spec.name
            log.info("%s gRPC %s %s %s %.1f ms", context.peer(), method, model, code, elapsed_ms)
        context.abort(grpc.StatusCode[code], message)


class PredictionService(_Api, prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the other methods answer UNIMPLEMENTED."""

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        return self._call("Predict", request, context, lambda: self._predict(request, context))

    def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        name, version, label = _spec(request)
        predictor = self.predictor
        with predictor.counted(name, "GRPC"), predictor.admitted():
            lease = predictor.manager.acquire(name, version, label)
            try:
                signature = _signature(lease.servable, request.model_spec.signature_name)
                inputs = warmup.tensors(request.inputs)
                unknown = set(request.output_filter) - signature.outputs.keys()
                if unknown:
                    raise errors.invalid(f"output_filter names no output: {sorted(unknown)}")
            except BaseException:
                lease.release()
                raise
            spec = protos.model_spec(lease.servable, signature.name)
            future = predictor.submit(lease, signature, inputs)
            limit = self.options.request_timeout_s
            remaining = context.time_remaining()
            try:
                outputs = future.result(limit if remaining is None else min(limit, remaining))
            except concurrent.futures.TimeoutError as error:
                future.cancel()
                message = f"No answer within {limit:g} s or the caller's deadline"
                raise errors.ServingError("DEADLINE_EXCEEDED", message) from error
        response = predict_pb2.PredictResponse(model_spec=spec)
        for key in request.output_filter or signature.outputs:
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
        if list(request.metadata_field) != ["signature_def"]:
            raise errors.invalid("`metadata_field` must be ['signature_def']")
        lease = self.predictor.manager.acquire(*_spec(request))
        try:
            response = get_model_metadata_pb2.GetModelMetadataResponse(
                model_spec=protos.model_spec(lease.servable)
            )
            response.metadata["signature_def"].Pack(protos.signature_map(lease.servable))
        finally:
            lease.release()
        return response

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("Classify", request, context, lambda: _refuse("Classify"))

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("Regress", request, context, lambda: _refuse("Regress"))


class ModelService(_Api, model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; the other method answers UNIMPLEMENTED."""

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        return self._call(
            "GetModelStatus",
            request,
            context,
            lambda: protos.model_status(self.predictor.manager, *_spec(request)),
        )


def grpc_server(predictor: Predictor, options: ServerOptions) -> tuple[grpc.Server, int]:
    """A server bound to `options.grpc_port`, not yet started, and the port it got.

    Raises:
        ServingError: The port is in use.
    """
    # One thread more than requests may be in flight, so that the next is refused, not kept.
    threads = options.max_requests + 1
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(threads, "serving-grpc"),
        maximum_concurrent_rpcs=4 * threads,
        options=[
            # gRPC's default of 4 MiB is less than 8 float images of 224 x 224.
            ("grpc.max_receive_message_length", options.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            # Without it a second server shares the port instead of failing.
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(predictor, options), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(predictor, options), server
    )
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.grpc_port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise errors.ServingError(
            "UNAVAILABLE", f"Cannot listen on {address} (gRPC): is the port in use?"
        )
    return server, port
