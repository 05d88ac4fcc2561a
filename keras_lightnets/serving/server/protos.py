"""TF Serving's own messages, filled from what is loaded."""

from __future__ import annotations

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from keras_lightnets.serving.server.manager import ModelManager
from keras_lightnets.serving.server.servable import Servable


def model_spec(servable: Servable, signature: str = "") -> model_pb2.ModelSpec:
    """Names the version that answers."""
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature)
    spec.version.value = servable.version
    return spec


def signature_map(servable: Servable) -> get_model_metadata_pb2.SignatureDefMap:
    """All signatures of a version."""
    message = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in servable.signature_defs.items():
        message.signature_def[name].CopyFrom(definition)
    return message


def model_status(
    manager: ModelManager, name: str, version: int | None
) -> get_model_status_pb2.GetModelStatusResponse:
    """The states of a model's versions.

    Raises:
        ServingError: No such model or version.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, state, error in manager.status(name, version):
        row = response.model_version_status.add(version=number, state=int(state))
        row.status.error_code = error.number if error else 0
        row.status.error_message = error.message if error else ""
    return response
