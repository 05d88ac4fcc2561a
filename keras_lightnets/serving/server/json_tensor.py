"""TF Serving's JSON for Predict: request bodies to arrays, arrays to answers.

The format is documented at https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import binascii
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.servable import Signature

_MAX_RANK = 32
_SHOWN = 80  # characters of a value in a message

# Types of TensorFlow that JSON can carry -> Python types of their values.
_TYPES: dict[tf.DType, set[type]] = {tf.string: {bytes}, tf.bool: {bool}}
for _dtype in (tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint32, tf.uint64):
    _TYPES[_dtype] = {int}
for _dtype in (tf.float32, tf.float64):
    _TYPES[_dtype] = {int, float}


def read(body: bytes) -> dict[str, Any]:
    """Parses a request.

    Raises:
        ServingError: The body is no JSON object.
    """
    # Strings may hold bytes that are no UTF-8. What follows the document does not matter.
    text = body.decode("utf-8-sig", "surrogateescape").lstrip(" \t\r\n")
    if not text:
        raise errors.invalid("JSON Parse error: The document is empty")
    try:
        try:
            request, _ = _DECODER.raw_decode(text)
        except json.JSONDecodeError:
            request, _ = _DECODER.raw_decode(re.sub(r"\bInf\b", "Infinity", text))
    except (ValueError, RecursionError) as error:
        raise errors.invalid(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise errors.invalid(f"JSON Value: {_shown(request)} Is not object")
    return request


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("Number too big to be stored in double.")
    return value


# Of equal keys the first counts.
_DECODER = json.JSONDecoder(
    parse_float=_finite, object_pairs_hook=lambda pairs: dict(reversed(pairs))
)


def signature_name(request: dict[str, Any]) -> str | None:
    """The signature that a request names.

    Raises:
        ServingError: The name is no string.
    """
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise errors.invalid("'signature_name' key must be a string value.")
    return name or None


def inputs(request: dict[str, Any], signature: Signature) -> tuple[dict[str, np.ndarray], bool]:
    """Reads a request's tensors.

    Returns:
        The arrays, and whether the request (so the answer) is in row format.

    Raises:
        ServingError: They are not what the signature takes.
    """
    in_rows = "instances" in request
    if in_rows == ("inputs" in request):
        what = "Expecting only one of" if in_rows else "Missing"
        raise errors.invalid(f"{what} 'inputs' or 'instances' key")
    if in_rows:
        values = _rows(request["instances"], signature)
    else:
        values = _columns(request["inputs"], signature)
    return {name: _array(name, signature, values[name]) for name in signature.inputs}, in_rows


def _rows(rows: Any, signature: Signature) -> dict[str, Any]:
    """The values of each input, taken from the rows."""
    if not isinstance(rows, list):
        raise errors.invalid("Expecting 'instances' to be a list/array")
    if not rows:
        raise errors.invalid("No values in 'instances' array")
    if not isinstance(rows[0], dict) or _is_base64(rows[0]):
        return {_only(signature, "instances is a plain list, but expecting list of objects"): rows}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise errors.invalid(f"Expecting object but got list at item {number} of input list")
        if row.keys() != signature.inputs.keys():
            raise errors.invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{_shown(row)} keys must be equal to: {','.join(sorted(signature.inputs))}"
            )
    return {name: [row[name] for row in rows] for name in signature.inputs}


def _columns(columns: Any, signature: Signature) -> dict[str, Any]:
    if not isinstance(columns, dict) or _is_base64(columns):
        return {_only(signature, "inputs is a plain value/list, but expecting an object"): columns}
    for name in signature.inputs:
        if name not in columns:
            raise errors.invalid(f"Missing named input: {name} in 'inputs' object.")
    return columns


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _only(signature: Signature, complaint: str) -> str:
    names = sorted(signature.inputs)
    if len(names) > 1:
        raise errors.invalid(f"{complaint} as multiple input tensors required: {names}")
    return names[0]


def _array(name: str, signature: Signature, value: Any) -> np.ndarray:
    dtype = signature.inputs[name].dtype
    if dtype not in _TYPES:
        raise errors.ServingError(
            "UNIMPLEMENTED", f"Input {name!r}: JSON cannot carry {dtype.name}"
        )
    shape, values = _flattened(name, value)
    if dtype == tf.string:
        values = [_decoded(name, each) for each in values]
    if wrong := set(map(type, values)) - _TYPES[dtype]:
        shown = _shown(next(each for each in values if type(each) in wrong))
        raise errors.invalid(
            f"Input {name!r}: JSON Value: {shown} is not of expected type: {dtype.name}"
        )
    signature.check(name, dtype, shape)
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, as in C++
            return np.array(values, dtype.as_numpy_dtype).reshape(shape)
    except OverflowError:
        limits = f"{dtype.min} to {dtype.max} ({dtype.name})"
        raise errors.invalid(f"Input {name!r}: a value is outside {limits}") from None


def _flattened(name: str, value: Any) -> tuple[list[int], list[Any]]:
    """The sizes of lists in lists of values, and all values.

    Raises:
        ServingError: Lists of one depth have other sizes, or values beside them.
    """
    shape, values = [], [value]
    while list in set(map(type, values)):
        if len(shape) == _MAX_RANK:
            raise errors.invalid(f"Input {name!r}: lists nested deeper than {_MAX_RANK}")
        sizes = {len(each) if isinstance(each, list) else None for each in values}
        if len(sizes) != 1:
            raise errors.invalid(
                f"Input {name!r}: Encountered list at unexpected size, or values at different "
                f"levels, {len(shape)} lists deep"
            )
        shape.append(len(values[0]))
        values = list(itertools.chain.from_iterable(values))
    return shape, values


def _decoded(name: str, value: Any) -> Any:
    """The bytes of a string or of a base64 object; another value as it is."""
    try:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        return _decode_base64(value["b64"]) if _is_base64(value) else value
    except UnicodeEncodeError:
        raise errors.invalid("JSON Parse error: Invalid escape character in string.") from None
    except binascii.Error as error:
        raise errors.invalid(f"Input {name!r}: Unable to base64 decode: {error}") from None


def _decode_base64(string: str) -> bytes:
    text = "".join(string.split())
    if not text.endswith("="):
        text += "=" * (-len(text) % 4)  # padding may be left out, but not be wrong
    elif len(text) % 4:
        raise binascii.Error("Wrong padding")
    return binascii.a2b_base64(text, strict_mode=True)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def encode_response(outputs: dict[str, np.ndarray], row_format: bool) -> bytes:
    """The body of an answer.

    Raises:
        ServingError: A type JSON cannot carry, or rows that do not match.
    """
    values = {name: _json_ready(name, value) for name, value in outputs.items()}
    if not row_format:
        return _dump({"outputs": _unwrapped(values)}, outputs)
    if any(value.ndim == 0 for value in outputs.values()):
        raise errors.invalid("An output without a first dimension has no row format")
    sizes = {name: len(value) for name, value in outputs.items()}
    if len(set(sizes.values())) != 1:
        raise errors.invalid(
            f"Outputs with inconsistent batch sizes have no row format: {sizes}. "
            "Send 'inputs' instead of 'instances'"
        )
    if len(values) == 1:
        return _dump({"predictions": _unwrapped(values)}, outputs)
    rows = zip(*values.values(), strict=True)
    return _dump({"predictions": [dict(zip(values, row, strict=True)) for row in rows]}, outputs)


def _unwrapped(values: dict[str, Any]) -> Any:
    """A single output has no name."""
    return next(iter(values.values())) if len(values) == 1 else values


def _json_ready(name: str, value: np.ndarray) -> Any:
    if value.dtype == object:
        ready = np.empty(value.size, object)
        ready[:] = [_string(name, item) for item in value.reshape(-1)]
        return ready.reshape(value.shape).tolist()
    if tf.dtypes.as_dtype(value.dtype) not in _TYPES:
        raise errors.invalid(
            f"Output {name!r}: Failed to write JSON value for tensor type: {value.dtype}"
        )
    return np.ascontiguousarray(value) if value.ndim else value[()]


def _string(name: str, value: bytes) -> str | dict[str, str]:
    if name.endswith("_bytes"):
        return {"b64": binascii.b2a_base64(value, newline=False).decode()}
    return value.decode("utf-8", "replace")


def _dump(document: Any, outputs: dict[str, np.ndarray]) -> bytes:
    floats: Sequence[np.ndarray] = [v for v in outputs.values() if v.dtype.kind == "f"]
    if all(np.isfinite(value).all() for value in floats):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    # NaN and infinities are bare words, which only `json` writes.
    return json.dumps(document, default=lambda array: array.tolist()).encode()
