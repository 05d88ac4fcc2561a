"""One loaded version of a model: a SavedModel in a Session, which is what TF Serving runs."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lightnets.paths import literal_path
from keras_lightnets.serving.server import errors

PREDICT_METHOD = "tensorflow/serving/predict"
DEFAULT_SIGNATURE = "serving_default"

_STRING_BYTES = 8  # of one string in an array: a pointer


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One named input or output of a signature.

    Attributes:
        tensor: Its name in the graph.
        dtype: Its TensorFlow type.
        shape: Sizes, None where any will do; None when the rank is unknown.
    """

    tensor: str
    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    @classmethod
    def from_info(cls, info: Any) -> TensorSpec:
        """From a `TensorInfo` proto."""
        shape = tf.TensorShape(info.tensor_shape)
        return cls(
            info.name,
            tf.dtypes.as_dtype(info.dtype),
            None if shape.rank is None else tuple(shape.as_list()),
        )

    def check(self, name: str, dtype: tf.DType, shape: Sequence[int]) -> None:
        """Refuses a tensor that the graph cannot take, before it is made.

        Raises:
            ServingError: Another type or shape.
        """
        received = f"Received: {dtype.name} {tuple(shape)}"
        if dtype != self.dtype:
            raise errors.invalid(f"Wrong type: input {name!r} must be {self._text()}. {received}")
        if self.shape is not None and (
            len(self.shape) != len(shape)
            or any(a is not None and a != b for a, b in zip(self.shape, shape, strict=True))
        ):
            raise errors.invalid(f"Wrong shape: input {name!r} must be {self._text()}. {received}")

    def _text(self) -> str:
        """For error messages: `uint8 (?, 64, 64, 3)`."""
        if self.shape is None:
            return self.dtype.name
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype.name} ({sizes})"


@dataclasses.dataclass(frozen=True)
class Signature:
    """A Predict signature: named inputs to named outputs."""

    name: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    def check_names(self, names: Iterable[str]) -> None:
        """Refuses other inputs than the signature's.

        Raises:
            ServingError: A missing or unknown input.
        """
        if set(names) != self.inputs.keys():
            raise errors.invalid(
                f"Signature {self.name!r} takes the inputs {sorted(self.inputs)}. "
                f"Received: {sorted(names)}"
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
        self.check_names(protos)
        arrays = {}
        for name, spec in self.inputs.items():
            proto = protos[name]
            shape = [dim.size for dim in proto.tensor_shape.dim]
            try:
                dtype = tf.dtypes.as_dtype(proto.dtype)
            except TypeError:
                raise errors.invalid(f"Input {name!r} has no valid dtype") from None
            if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
                raise errors.invalid(f"Input {name!r} has no valid shape")
            spec.check(name, dtype, shape)
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
        self.signature_defs = dict(meta_graph.signature_def)
        self.signatures = {
            key: Signature(
                key,
                {k: TensorSpec.from_info(v) for k, v in sorted(d.inputs.items())},
                {k: TensorSpec.from_info(v) for k, v in sorted(d.outputs.items())},
            )
            for key, d in self.signature_defs.items()
            if d.method_name == PREDICT_METHOD
        }
        self._callables: dict[str, Any] = {}
        self._lock = threading.Lock()

    def run(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one batch. Safe to call from many threads; TensorFlow's errors pass through."""
        values = self._callable(signature)(*(inputs[name] for name in signature.inputs))
        return {
            # A scalar comes as a Python or NumPy scalar.
            name: v if isinstance(v, np.ndarray) else np.array(v, spec.dtype.as_numpy_dtype)
            for (name, spec), v in zip(signature.outputs.items(), values, strict=True)
        }

    def _callable(self, signature: Signature) -> Any:
        # `make_callable` skips the parsing of feeds and fetches that `Session.run` repeats.
        with self._lock:
            if signature.name not in self._callables:
                self._callables[signature.name] = self._session.make_callable(
                    [spec.tensor for spec in signature.outputs.values()],
                    [spec.tensor for spec in signature.inputs.values()],
                )
            return self._callables[signature.name]

    def close(self) -> None:
        """Frees the session and its variables."""
        self._callables.clear()
        self._session.close()
