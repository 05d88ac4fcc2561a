"""One loaded version of a model: a SavedModel in a Session, which is what TF Serving runs."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from keras_lightnets.paths import literal_path
from keras_lightnets.serving.server import errors

PREDICT_METHOD = "tensorflow/serving/predict"
DEFAULT_SIGNATURE = "serving_default"

_STRING_BYTES = 8  # of one string in an array: a pointer


@dataclasses.dataclass(frozen=True)
class Signature:
    """A Predict signature: named inputs to named outputs, each with its name in the graph."""

    name: str
    inputs: dict[str, tf.TensorSpec]
    outputs: dict[str, tf.TensorSpec]

    def check(self, name: str, dtype: tf.DType, shape: Sequence[int]) -> None:
        """Refuses a tensor that the graph cannot take, before it is made.

        Raises:
            ServingError: The input `name` has another type or shape.
        """
        spec = self.inputs[name]
        for what, fits in (
            ("type", dtype == spec.dtype),
            ("shape", spec.shape.is_compatible_with(shape)),
        ):
            if not fits:
                raise errors.invalid(
                    f"Wrong {what}: input {name!r} must be {spec.dtype.name} {spec.shape}. "
                    f"Received: {dtype.name} {tuple(shape)}"
                )

    def arrays(
        self, protos: Mapping[str, Any], max_bytes: float = math.inf
    ) -> dict[str, np.ndarray]:
        """Returns tensor protos as arrays.

        One value may stand for an array full of it, so a few bytes could ask for all memory.

        Args:
            protos: By input name.
            max_bytes: Of one array.

        Raises:
            ServingError: Something the signature does not take, or too much of it.
        """
        if set(protos) != self.inputs.keys():
            raise errors.invalid(
                f"Signature {self.name!r} takes the inputs {sorted(self.inputs)}. "
                f"Received: {sorted(protos)}"
            )
        arrays = {}
        for name in self.inputs:
            proto = protos[name]
            shape = [dim.size for dim in proto.tensor_shape.dim]
            try:
                dtype = tf.dtypes.as_dtype(proto.dtype)
            except TypeError:
                raise errors.invalid(f"Input {name!r} has no valid dtype") from None
            if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
                raise errors.invalid(f"Input {name!r} has no valid shape")
            self.check(name, dtype, shape)
            size = math.prod(shape) * (_STRING_BYTES if dtype == tf.string else dtype.size)
            if size > max_bytes:
                raise errors.invalid(f"Input {name!r} of shape {shape} is above {max_bytes} bytes")
            try:
                arrays[name] = tf.make_ndarray(proto)
            except (TypeError, ValueError) as error:
                raise errors.invalid(f"Input {name!r} is no valid tensor: {error}") from None
        return arrays


class Servable:
    """A SavedModel loaded into its own graph and Session.

    Args:
        name: The model's name.
        version: The version's number.
        path: Its directory, holding `saved_model.pb`.
        config: Threads; one per core by default.
    """

    def __init__(
        self,
        name: str,
        version: int,
        path: pathlib.Path,
        config: tf.compat.v1.ConfigProto | None = None,
    ) -> None:
        self.name, self.version, self.path = name, version, path
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            with graph.as_default(), literal_path(path) as folder:
                meta_graph = tf.compat.v1.saved_model.loader.load(
                    self._session, [tf.saved_model.SERVING], str(folder)
                )
        except BaseException:
            self._session.close()
            raise
        self.signature_map = get_model_metadata_pb2.SignatureDefMap(
            signature_def=meta_graph.signature_def
        )
        self._signatures = {
            key: Signature(key, _specs(definition.inputs), _specs(definition.outputs))
            for key, definition in meta_graph.signature_def.items()
            if definition.method_name == PREDICT_METHOD
        }
        # Skips the parsing of feeds and fetches that `Session.run` repeats.
        self._callables = {
            key: self._session.make_callable(
                [spec.name for spec in signature.outputs.values()],
                [spec.name for spec in signature.inputs.values()],
            )
            for key, signature in self._signatures.items()
        }

    def spec(self, signature: str = "") -> model_pb2.ModelSpec:
        """Names the version that answers."""
        spec = model_pb2.ModelSpec(name=self.name, signature_name=signature)
        spec.version.value = self.version
        return spec

    def signature(self, name: str | None, code: str, message: str) -> Signature:
        """The signature called `name`, or the default one.

        Args:
            name: What a request says; may be empty.
            code: Of the error; REST and gRPC have different ones.
            message: How the error begins, with the name as `{}`.

        Raises:
            ServingError: There is none.
        """
        key = name or DEFAULT_SIGNATURE
        if key not in self._signatures:
            found = sorted(self._signatures)
            raise errors.ServingError(code, f"{message.format(key)}; this model has {found}")
        return self._signatures[key]

    def run(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one batch. Safe to call from many threads; TensorFlow's errors pass through."""
        values = self._callables[signature.name](*(inputs[name] for name in signature.inputs))
        return {
            # A scalar comes as a Python or NumPy scalar.
            name: v if isinstance(v, np.ndarray) else np.array(v, spec.dtype.as_numpy_dtype)
            for (name, spec), v in zip(signature.outputs.items(), values, strict=True)
        }

    def close(self) -> None:
        """Frees the session and its variables."""
        self._callables.clear()
        self._session.close()


def _specs(infos: Mapping[str, Any]) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec(tf.TensorShape(info.tensor_shape), info.dtype, info.name)
        for name, info in sorted(infos.items())
    }
