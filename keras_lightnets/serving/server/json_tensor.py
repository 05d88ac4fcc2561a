"""TF Serving's JSON for Predict: request bodies to arrays, arrays to answers.

The format is documented at https://www.tensorflow.org/tfx/serving/api_rest. A tensor is taken from
the text in whole: without its numbers, the brackets and commas must be those of an array of the
shape that they begin like; then the numbers go straight into that array.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from keras_lightnets.serving.server import errors, json_text
from keras_lightnets.serving.server.servable import Signature

# Bytes of numbers that are parsed at once: other threads get their turn in between.
_PIECE = 1 << 16
_MAX_RANK = 32

# Types of TensorFlow that JSON can carry -> Python types of their values.
_TYPES: dict[tf.DType, set[type]] = {tf.string: {bytes}, tf.bool: {bool}}
for _dtype in (tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint32, tf.uint64):
    _TYPES[_dtype] = {int}
for _dtype in (tf.float32, tf.float64):
    _TYPES[_dtype] = {int, float}

_BASE64 = rb'\{S"b64"S:S(T)S\}'.replace(b"S", json_text.S).replace(b"T", json_text.STRING)
_IS_BASE64 = re.compile(_BASE64)
_TEXT = re.compile(_BASE64 + rb"|" + json_text.STRING)
_TAKEN = b"\0"  # stands where a text was: no JSON has it outside of texts
# What is neither a number nor a word, and what is no text.
_NO_NUMBER = re.compile(rb'["{][^\[\],]*')
_NO_TEXT = re.compile(rb"[^\[\],\0][^\[\],]*")
_NO_STRUCTURE = bytes(byte for byte in range(256) if byte not in b"[],")


def members(body: bytes) -> dict[str, bytes]:
    """The texts of a request's members by name.

    Raises:
        ServingError: The body is no JSON object.
    """
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip(json_text.SPACE)
    if not text:
        raise errors.invalid("JSON Parse error: The document is empty")
    if not text.startswith(b"{"):
        json_text.end(text)
        raise errors.invalid(f"JSON Value: {json_text.excerpt(text)} Is not object")
    return json_text.members(text)


def signature_name(request: dict[str, bytes]) -> str | None:
    """The signature that a request names.

    Raises:
        ServingError: The name is no string.
    """
    name = request.get("signature_name")
    if name is None:
        return None
    if not name.startswith(b'"'):
        raise errors.invalid("'signature_name' key must be a string value.")
    return json_text.unescaped(name).decode("utf-8", "replace")


def inputs(request: dict[str, bytes], signature: Signature) -> tuple[dict[str, np.ndarray], bool]:
    """Reads a request's tensors.

    Returns:
        The arrays, and whether the request (so the answer) is in row format.

    Raises:
        ServingError: They are not what the signature takes.
    """
    rows, columns = (request.get(key) for key in ("instances", "inputs"))
    if (rows is None) == (columns is None):
        what = "Missing" if rows is None else "Expecting only one of"
        raise errors.invalid(f"{what} 'inputs' or 'instances' key")
    texts = _columns(columns or b"", signature) if rows is None else _rows(rows, signature)
    arrays = {name: _array(name, signature, texts[name]) for name in signature.inputs}
    return arrays, rows is not None


def _rows(text: bytes, signature: Signature) -> dict[str, bytes]:
    """The text of each input, made of those of the rows."""
    if not text.startswith(b"["):
        raise errors.invalid("Expecting 'instances' to be a list/array")
    first = next(json_text.items(text), None)
    if first is None:
        raise errors.invalid("No values in 'instances' array")
    if not first.startswith(b"{") or _IS_BASE64.match(first):
        complaint = "instances is a plain list, but expecting list of objects"
        return {_only(signature, complaint): text}
    texts: dict[str, list[bytes]] = {name: [] for name in signature.inputs}
    for number, row in enumerate(json_text.items(text)):
        if not row.startswith(b"{"):
            raise errors.invalid(f"Expecting object but got list at item {number} of input list")
        values = json_text.members(row)
        if values.keys() != texts.keys():
            raise errors.invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{json_text.excerpt(row)} keys must be equal to: {','.join(sorted(texts))}"
            )
        for name, value in values.items():
            texts[name].append(value)
    return {name: b"[" + b",".join(values) + b"]" for name, values in texts.items()}


def _columns(text: bytes, signature: Signature) -> dict[str, bytes]:
    if not text.startswith(b"{") or _IS_BASE64.match(text):
        complaint = "inputs is a plain value/list, but expecting an object"
        return {_only(signature, complaint): text}
    texts = json_text.members(text)
    for name in signature.inputs:
        if name not in texts:
            raise errors.invalid(f"Missing named input: {name} in 'inputs' object.")
    return texts


def _only(signature: Signature, complaint: str) -> str:
    names = sorted(signature.inputs)
    if len(names) > 1:
        raise errors.invalid(f"{complaint} as multiple input tensors required: {names}")
    return names[0]


def _array(name: str, signature: Signature, text: bytes) -> np.ndarray:
    dtype = signature.inputs[name].dtype
    if dtype not in _TYPES:
        raise errors.ServingError(
            "UNIMPLEMENTED", f"Input {name!r}: JSON cannot carry {dtype.name}"
        )
    texts: list[bytes] = []

    def take(match: re.Match[bytes]) -> bytes:
        coded, plain = match[1], match[0]
        texts.append(_decode_base64(coded, name) if coded else json_text.unescaped(plain))
        return _TAKEN

    is_text = dtype == tf.string
    compact = (_TEXT.sub(take, text) if is_text else text).translate(None, json_text.SPACE)
    shape = _shape(name, compact)
    if wrong := (_NO_TEXT if is_text else _NO_NUMBER).search(compact):
        raise _wrong_type(name, dtype, json_text.excerpt(wrong[0]))
    signature.check(name, dtype, shape)
    array = np.empty(np.prod(shape, dtype=int), dtype.as_numpy_dtype)
    if is_text:
        array[:] = texts
    elif array.size:
        _fill(array, name, dtype, compact.translate(None, b"[]"))
    return array.reshape(shape)


def _shape(name: str, compact: bytes) -> list[int]:
    """The sizes of lists in lists of values, without spaces.

    Raises:
        ServingError: Lists of one depth have other sizes, or values beside them.
    """
    structure = compact.translate(None, _NO_STRUCTURE)
    rank = len(structure) - len(structure.lstrip(b"["))
    if rank > _MAX_RANK:
        raise errors.invalid(f"Input {name!r}: lists nested deeper than {_MAX_RANK}")
    sizes, expected = [], b""  # from the innermost list on
    for depth in range(rank):
        # The first list of this depth ends at the first place with so many brackets.
        first = structure[: structure.find(b"]" * (depth + 1))]
        sizes.append(first.count(b"]" * depth or b",") + 1)
        if sizes[-1] * len(expected) > len(structure):
            break  # so it is another; but it might be a very long one
        expected = b"[" + b",".join([expected] * sizes[-1]) + b"]"
    empty = b"[]" in compact
    if expected != structure or (empty and compact.translate(None, b"[],")):
        raise errors.invalid(
            f"Input {name!r}: Encountered list at unexpected size, or values at different levels: "
            f"the first lists have the sizes {sizes[::-1]}"
        )
    if empty:  # one value or none between two brackets is the same structure
        sizes[0] = 0
    return sizes[::-1]


def _fill(array: np.ndarray, name: str, dtype: tf.DType, numbers: bytes) -> None:
    """Parses numbers and words between commas."""
    done = start = 0
    while start < len(numbers):
        end = numbers.find(b",", start + _PIECE)
        end = len(numbers) if end < 0 else end
        values = _numbers(b"[" + numbers[start:end] + b"]")
        if wrong := set(map(type, values)) - _TYPES[dtype]:
            value = next(value for value in values if type(value) in wrong)
            raise _wrong_type(name, dtype, json.dumps(value))
        try:
            with np.errstate(over="ignore"):  # beyond float32 is infinite, as in C++
                array[done : done + len(values)] = values
        except OverflowError:
            limits = f"{dtype.min} to {dtype.max} ({dtype.name})"
            raise errors.invalid(f"Input {name!r}: a value is outside {limits}") from None
        done += len(values)
        start = end + 1


def _numbers(text: bytes) -> list[Any]:
    try:
        return orjson.loads(text)  # several times faster than `json`, but without NaN
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(re.sub(rb"Inf(?!i)", b"Infinity", text), parse_float=_finite)
    except ValueError as error:
        raise errors.invalid(f"JSON Parse error: {error}") from None


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("Number too big to be stored in double.")
    return value


def _wrong_type(name: str, dtype: tf.DType, value: str) -> errors.ServingError:
    return errors.invalid(
        f"Input {name!r}: JSON Value: {value} is not of expected type: {dtype.name}"
    )


def _decode_base64(string: bytes, name: str) -> bytes:
    text = json_text.unescaped(string).translate(None, b" \t\r\n\f\v")
    try:
        if not text.endswith(b"="):
            text += b"=" * (-len(text) % 4)  # padding may be left out, but not be wrong
        elif len(text) % 4:
            raise binascii.Error("Wrong padding")
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise errors.invalid(f"Input {name!r}: Unable to base64 decode: {error}") from None


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
