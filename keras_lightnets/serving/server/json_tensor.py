"""TF Serving's JSON for Predict: requests to arrays, arrays to answers.

The format is documented at https://www.tensorflow.org/tfx/serving/api_rest. `NaN`, `Infinity` and
`-Infinity` are read and written as bare words, as TF Serving does.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.servable import Signature, TensorSpec

Arrays = dict[str, np.ndarray]

_KINDS = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}  # target kind -> JSON kinds it takes
_MAX_RANK = 32


def decode_request(
    body: bytes, signature_of: Callable[[str | None], Signature]
) -> tuple[Signature, Arrays, bool]:
    """Reads the body of a `:predict` request.

    Args:
        body: JSON text.
        signature_of: Gives the signature of a name, the default one for None.

    Returns:
        The signature, its inputs, and whether the request (so the answer) is in row format.

    Raises:
        ServingError: Anything wrong with the body.
    """
    document = parse(body)
    if not isinstance(document, dict):
        raise errors.invalid(f"JSON Value: {shorten(document)} Is not object")
    name = document.get("signature_name")
    if name is not None and not isinstance(name, str):
        raise errors.invalid("'signature_name' key must be a string value.")
    signature = signature_of(name)
    if "instances" in document and "inputs" in document:
        raise errors.invalid("Expecting only one of 'inputs' or 'instances' keys to exist")
    if "instances" in document:
        return signature, _from_rows(document["instances"], signature), True
    if "inputs" in document:
        return signature, _from_columns(document["inputs"], signature), False
    raise errors.invalid("Missing 'inputs' or 'instances' key")


def parse(body: bytes) -> Any:
    """JSON with `NaN` and infinities.

    Raises:
        ServingError: Not JSON.
    """
    if not body.strip():
        raise errors.invalid("JSON Parse error: The document is empty")
    try:
        return orjson.loads(body)  # several times faster than `json`, but strict about NaN
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise errors.invalid(f"JSON Parse error: {error}") from error


def shorten(value: Any, limit: int = 80) -> str:
    """The start of a value, for error messages."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _from_rows(rows: Any, signature: Signature) -> Arrays:
    if not isinstance(rows, list):
        raise errors.invalid("Expecting 'instances' to be a list/array")
    if not rows:
        raise errors.invalid("No values in 'instances' array")
    named = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not named:
        if len(signature.inputs) > 1:
            raise errors.invalid(
                "instances is a plain list, but expecting list of objects as multiple input "
                f"tensors required: {sorted(signature.inputs)}"
            )
        ((name, spec),) = signature.inputs.items()
        return {name: to_array(rows, name, spec)}
    expected = signature.inputs.keys()
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != expected:
            raise errors.invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{shorten(row)} keys must be equal to: {','.join(sorted(expected))}"
            )
    return {
        name: to_array([row[name] for row in rows], name, spec)
        for name, spec in signature.inputs.items()
    }


def _from_columns(columns: Any, signature: Signature) -> Arrays:
    if not isinstance(columns, dict) or _is_base64(columns):
        if len(signature.inputs) > 1:
            raise errors.invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                f"required: {sorted(signature.inputs)}"
            )
        ((name, spec),) = signature.inputs.items()
        return {name: to_array(columns, name, spec)}
    for name in signature.inputs:
        if name not in columns:
            raise errors.invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_array(columns[name], name, spec) for name, spec in signature.inputs.items()}


def to_array(value: Any, name: str, spec: TensorSpec) -> np.ndarray:
    """A JSON value as an array of the type an input needs.

    Raises:
        ServingError: Ragged lists, values of another type, numbers out of range.
    """
    if spec.dtype == tf.string:
        return _strings(value, name)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise errors.invalid(f"Input {name!r}: lists of unequal size: {error}") from error
    target = np.dtype(spec.dtype.as_numpy_dtype)
    if target.kind not in _KINDS:
        raise errors.ServingError("UNIMPLEMENTED", f"JSON cannot carry {spec.dtype.name}")
    if array.size and array.dtype.kind not in _KINDS[target.kind]:
        raise errors.invalid(
            f"Input {name!r}: JSON Value: {shorten(value)} is not of expected type: "
            f"{spec.dtype.name}"
        )
    if target.kind in "iu" and array.size:
        bounds = np.iinfo(target)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise errors.invalid(
                f"Input {name!r}: a value is outside {bounds.min} to {bounds.max} "
                f"({spec.dtype.name})"
            )
    return array.astype(target)


def _strings(value: Any, name: str) -> np.ndarray:
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if len(shape) > _MAX_RANK:
            raise errors.invalid(f"Input {name!r}: lists nested deeper than {_MAX_RANK}")
        first = first[0] if first else None
    leaves = [value]
    for size in shape:
        if not all(isinstance(item, list) and len(item) == size for item in leaves):
            raise errors.invalid(f"Input {name!r}: lists of unequal size or depth")
        leaves = [leaf for item in leaves for leaf in item]
    array = np.empty(len(leaves), object)
    for index, leaf in enumerate(leaves):
        array[index] = _bytes(leaf, name, index)
    return array.reshape(shape)


def _bytes(value: Any, name: str, index: int) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not _is_base64(value):
        raise errors.invalid(
            f"Input {name!r}, item {index}: JSON Value: {shorten(value)} is not of expected type: "
            'string, or {"b64": "..."}'
        )
    text = value["b64"]
    try:
        if not text.endswith("="):
            text += "=" * (-len(text) % 4)  # padding may be left out, but not be wrong
        elif len(text) % 4:
            raise binascii.Error("Wrong padding")
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise errors.invalid(
            f"Input {name!r}, item {index}: Unable to base64 decode: {error}"
        ) from error


def encode_response(outputs: Arrays, row_format: bool) -> bytes:
    """The body of an answer.

    Raises:
        ServingError: A type JSON cannot carry, or rows that do not match.
    """
    values = {name: _json_ready(name, value) for name, value in outputs.items()}
    if not row_format:
        only = next(iter(values.values())) if len(values) == 1 else values
        return _dump({"outputs": only})
    sizes = {name: len(value) if value.ndim else 0 for name, value in outputs.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise errors.ServingError(
            "FAILED_PRECONDITION",
            f"Outputs with inconsistent 0th dimension have no row format: {sizes}. "
            "Send 'inputs' instead of 'instances'",
        )
    if len(values) == 1:
        return _dump({"predictions": next(iter(values.values()))})
    rows = zip(*values.values(), strict=True)
    return _dump({"predictions": [dict(zip(values, row, strict=True)) for row in rows]})


def _json_ready(name: str, value: np.ndarray) -> Any:
    if value.dtype == object:
        if name.endswith("_bytes"):
            return _map_leaves(
                value, lambda v: {"b64": binascii.b2a_base64(v, newline=False).decode()}
            )
        return _map_leaves(value, lambda v: v.decode("utf-8", "replace"))
    if value.dtype.kind not in "iufb" or (value.dtype.itemsize == 2 and value.dtype.kind == "f"):
        raise errors.ServingError(
            "UNIMPLEMENTED", f"Output {name!r}: JSON cannot carry {value.dtype}"
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        return value.astype(float).tolist()  # `_dump` needs plain floats to write NaN
    return np.ascontiguousarray(value) if value.ndim else value.item()


def _map_leaves(array: np.ndarray, function: Callable[[bytes], Any]) -> Any:
    flat = np.empty(array.size, object)
    for index, leaf in enumerate(array.reshape(-1)):
        flat[index] = function(leaf)
    return flat.reshape(array.shape).tolist()


def _dump(document: Any) -> bytes:
    if _has_nan(document):
        return json.dumps(document, default=lambda array: array.tolist()).encode()
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _has_nan(document: Any) -> bool:
    """Whether any plain float is NaN or infinite; arrays were checked before."""
    if isinstance(document, float):
        return document != document or document in (float("inf"), float("-inf"))
    if isinstance(document, dict):
        return any(_has_nan(value) for value in document.values())
    return isinstance(document, list) and any(_has_nan(value) for value in document)
