"""One loaded version of a model: a SavedModel in a Session, which is what TF Serving runs."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import pathlib
import threading
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lightnets.literal_path import literal_path
from keras_lightnets.serving.server import errors

PREDICT_METHOD = "tensorflow/serving/predict"
DEFAULT_SIGNATURE = "serving_default"


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

    def describe(self) -> str:
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

    def check(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Refuses inputs the graph cannot take, before they can spoil a batch of others.

        Raises:
            ServingError: A missing or unknown input, a wrong type or shape.
        """
        if inputs.keys() != self.inputs.keys():
            raise errors.invalid(
                f"Signature {self.name!r} takes the inputs {sorted(self.inputs)}. "
                f"Received: {sorted(inputs)}"
            )
        for name, spec in self.inputs.items():
            value = inputs[name]
            got = f"{name!r} must be {spec.describe()}. Received: {value.dtype} {value.shape}"
            expected = object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
            if value.dtype != expected:
                raise errors.invalid(f"Wrong type: input {got}")
            if spec.shape is not None and (
                len(spec.shape) != value.ndim
                or any(
                    a is not None and a != b for a, b in zip(spec.shape, value.shape, strict=True)
                )
            ):
                raise errors.invalid(f"Wrong shape: input {got}")
            if value.size == 0:
                raise errors.invalid(f"Empty: input {got}")
        return inputs

    @property
    def batched(self) -> bool:
        """Whether every tensor has a free first dimension, so that requests can be merged."""
        return all(
            spec.shape is not None and len(spec.shape) > 0 and spec.shape[0] is None
            for spec in [*self.inputs.values(), *self.outputs.values()]
        )


@functools.cache
def disable_xla() -> None:
    """Turns XLA off for this process, as `tensorflow_model_server` does.

    A model that can only be compiled must fail here as it would there. There is no way back, so
    only a process that does nothing but serve may call it.
    """
    import tensorflow.python.platform.build_info  # noqa: F401  # loads the shared library

    folder = pathlib.Path(tf.sysconfig.get_lib())
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    library._ZN10tensorflow21DisableXlaCompilationEv()


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

    def signature(self, name: str | None) -> Signature:
        """The signature called `name`, or the default one.

        Raises:
            ServingError: There is none.
        """
        key = name or DEFAULT_SIGNATURE
        if key not in self.signatures:
            raise errors.invalid(
                f'Serving signature name: "{key}" not found in signature def; '
                f"this model has {sorted(self.signatures)}"
            )
        return self.signatures[key]

    def run(self, signature: Signature, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one batch. Safe to call from many threads; TensorFlow's errors pass through."""
        values = self._callable(signature)(*(inputs[name] for name in signature.inputs))
        return dict(zip(signature.outputs, values, strict=True))

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
