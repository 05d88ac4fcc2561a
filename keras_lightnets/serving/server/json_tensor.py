"""TF Serving's JSON for Predict: request bodies to arrays, arrays to answers.

The format is documented at https://www.tensorflow.org/tfx/serving/api_rest. A body is read as the
signature directs: its values go straight into arrays, what no input asks for is skipped, and what
an input cannot take is refused where it stands. So a body never becomes a tree of Python objects,
which would take many times its size. Numbers are parsed in pieces of at most `_PIECE` bytes, so
that other threads get their turn.
"""

from __future__ import annotations

import binascii
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import tensorflow as tf

from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.servable import Signature, TensorSpec

_PIECE = 1 << 16
_MAX_RANK = 32

# Types of TensorFlow that JSON can carry -> Python types of their values.
_TYPES: dict[tf.DType, set[type]] = {tf.string: {bytes}, tf.bool: {bool}}
for _dtype in (tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint32, tf.uint64):
    _TYPES[_dtype] = {int}
for _dtype in (tf.float32, tf.float64):
    _TYPES[_dtype] = {int, float}

_S = rb"[ \t\r\n]*+"
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrtu])*+"'
_NUMBER = rb"-?(?:(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|Inf(?:inity)?|NaN)"
_SCALAR = _STRING + rb"|" + _NUMBER + rb"|true|false|null"
_PLAIN = rb"[^\[\]{}\"]"  # numbers and words, to be looked at later
_ROW = rb"\[" + _PLAIN + rb"{0,%d}+\]" % _PIECE

_VALUE = re.compile(_S + rb"(?:([\[{])|" + _SCALAR + rb")")
_SKIPPED = re.compile(_S + rb"(?:" + _ROW + rb"|([\[{])|" + _SCALAR + rb")")
_KEY = re.compile(_S + rb"(" + _STRING + rb")" + _S + rb":")
_SPACE = re.compile(_S)
_NEXT = re.compile(_S + rb"([,\]}])")
_EMPTY = {b"[": re.compile(_S + rb"\]"), b"{": re.compile(_S + rb"\}")}
_BASE64 = re.compile(rb'\{S"b64"S:S(T)S\}'.replace(b"S", _S).replace(b"T", _STRING))
_RUN = re.compile(_PLAIN + rb"++")
# A list of numbers, or of lists of numbers.
_BLOCK = re.compile(
    rb"\[(?:P*+|SR(?:S,SR)*+S)\]".replace(b"R", _ROW).replace(b"P", _PLAIN).replace(b"S", _S)
)


class Fields(NamedTuple):
    """A request's text, and where in it the values of its members begin."""

    text: bytes
    starts: dict[str, int]


def fields(body: bytes) -> Fields:
    """Finds the members of a request. What follows its last brace does not matter.

    Raises:
        ServingError: The body is no JSON object.
    """
    text = body.removeprefix(b"\xef\xbb\xbf")
    if not text.strip(b" \t\r\n"):
        raise errors.invalid("JSON Parse error: The document is empty")
    start = _VALUE.match(text)
    if start is None or start[1] != b"{":
        _skip(text, 0)
        raise errors.invalid(f"JSON Value: {_excerpt(text, 0)} Is not object")
    return Fields(text, _members(text, start.end())[0])


def signature_name(request: Fields) -> str | None:
    """The signature that a request names.

    Raises:
        ServingError: The name is no string.
    """
    start = request.starts.get("signature_name")
    if start is None:
        return None
    match = re.compile(_S + rb"(" + _STRING + rb")").match(request.text, start)
    if match is None:
        raise errors.invalid("'signature_name' key must be a string value.")
    return _unescaped(match[1]).decode("utf-8", "replace")


def inputs(request: Fields, signature: Signature) -> tuple[dict[str, np.ndarray], bool]:
    """Reads a request's tensors.

    Returns:
        The arrays, and whether the request (so the answer) is in row format.

    Raises:
        ServingError: They are not what the signature takes.
    """
    rows, columns = (request.starts.get(key) for key in ("instances", "inputs"))
    if (rows is None) == (columns is None):
        what = "Missing" if rows is None else "Expecting only one of"
        raise errors.invalid(f"{what} 'inputs' or 'instances' key")
    tensors = {name: _Tensor(name, spec) for name, spec in signature.inputs.items()}
    if rows is not None:
        _read_rows(request.text, rows, tensors)
    elif columns is not None:
        _read_columns(request.text, columns, tensors)
    return {name: tensor.array() for name, tensor in tensors.items()}, rows is not None


def _read_rows(text: bytes, at: int, tensors: dict[str, _Tensor]) -> None:
    at = _space(text, at)
    if text[at] != ord("["):
        raise errors.invalid("Expecting 'instances' to be a list/array")
    if _EMPTY[b"["].match(text, at + 1):
        raise errors.invalid("No values in 'instances' array")
    first = _space(text, at + 1)
    if text[first] != ord("{") or _BASE64.match(text, first):
        _only(tensors, "instances is a plain list, but expecting list of objects").read(text, at)
        return
    separator, count = b",", 0
    while separator == b",":
        at = _space(text, at + 1)
        start = _found(_VALUE, text, at)
        if start[1] != b"{":
            raise errors.invalid(f"Expecting object but got list at item {count} of input list")
        starts, end = _members(text, start.end())
        if starts.keys() != tensors.keys():
            raise errors.invalid(
                f"Failed to process element: {count} of 'instances' list. JSON object: "
                f"{_excerpt(text, at)} keys must be equal to: {','.join(sorted(tensors))}"
            )
        for name, tensor in tensors.items():
            tensor.read(text, starts[name], level=1)
        count += 1
        match = _found(_NEXT, text, end)
        at, separator = match.end() - 1, match[1]
    for tensor in tensors.values():
        tensor.add_list(0, count)


def _read_columns(text: bytes, at: int, tensors: dict[str, _Tensor]) -> None:
    at = _space(text, at)
    if text[at] != ord("{") or _BASE64.match(text, at):
        _only(tensors, "inputs is a plain value/list, but expecting an object").read(text, at)
        return
    starts, _ = _members(text, at + 1)
    for name, tensor in tensors.items():
        if name not in starts:
            raise errors.invalid(f"Missing named input: {name} in 'inputs' object.")
        tensor.read(text, starts[name])


def _only(tensors: dict[str, _Tensor], complaint: str) -> _Tensor:
    if len(tensors) > 1:
        names = sorted(tensors)
        raise errors.invalid(f"{complaint} as multiple input tensors required: {names}")
    (tensor,) = tensors.values()
    return tensor


class _Tensor:
    """Collects the values of one input, all lists of one depth being of one length."""

    def __init__(self, name: str, spec: TensorSpec) -> None:
        self.name, self.spec = name, spec
        self.sizes: dict[int, int] = {}  # level -> length of the lists there
        self.rank: int | None = None
        self.values: list[Any] = []
        self.parts: list[np.ndarray] = []

    def read(self, text: bytes, at: int, level: int = 0) -> int:
        """Reads the value at `at` and returns where it ends. `level`: lists around it."""
        at = _space(text, at)
        if text[at] != ord("["):
            return self._read_scalar(text, at, level)
        numeric = self.spec.dtype != tf.string
        if numeric and (block := _BLOCK.match(text, at, at + _PIECE)):
            self._read_block(block[0], level, at)
            return block.end()
        if level == _MAX_RANK:
            raise errors.invalid(f"Input {self.name!r}: lists nested deeper than {_MAX_RANK}")
        if empty := _EMPTY[b"["].match(text, at + 1):
            self.add_list(level, 0)
            return empty.end()
        separator, count = b",", 0
        while separator == b",":
            at += 1
            run = _run(text, at) if numeric else b""
            if run:
                values = _numbers(b"[" + run + b"]", at - 1)
                self._add(values, level + 1)
                count += len(values)
                at += len(run)
            else:
                at = self.read(text, at, level + 1)
                count += 1
            match = _NEXT.match(text, at)
            if match is None or match[1] == b"}":
                raise _syntax(at)
            at, separator = match.end() - 1, match[1]
        self.add_list(level, count)
        return at + 1

    def _read_block(self, block: bytes, level: int, at: int) -> None:
        values = _numbers(block, at)
        self.add_list(level, len(values))
        if values and isinstance(values[0], list):
            for size in dict.fromkeys(map(len, values)):
                self.add_list(level + 1, size)
            self._add(list(itertools.chain.from_iterable(values)), level + 2)
        else:
            self._add(values, level + 1)

    def _read_scalar(self, text: bytes, at: int, level: int) -> int:
        coded = _BASE64.match(text, at) if self.spec.dtype == tf.string else None
        if coded:
            self._add([_decode_base64(coded[1], self.name)], level)
            return coded.end()
        match = _found(_VALUE, text, at)
        if match[1] or (match[0][:1] == b'"') != (self.spec.dtype == tf.string):
            raise self._wrong_type(_excerpt(text, at))
        if self.spec.dtype == tf.string:
            self._add([_unescaped(match[0])], level)
        else:
            self._add(_numbers(b"[" + match[0] + b"]", at - 1), level)
        return match.end()

    def add_list(self, level: int, size: int) -> None:
        """Notes a list; the first of its level says how long all are."""
        expected = self.sizes.setdefault(level, size)
        if size != expected:
            raise errors.invalid(
                f"Input {self.name!r}: lists of unequal size. Encountered list at unexpected "
                f"size: {size} at level: {level} expected size: {expected}"
            )

    def _add(self, values: list[Any], level: int) -> None:
        if not values:
            return
        dtype = self.spec.dtype
        if dtype not in _TYPES:
            raise errors.ServingError(
                "UNIMPLEMENTED", f"Input {self.name!r}: JSON cannot carry {dtype.name}"
            )
        if wrong := set(map(type, values)) - _TYPES[dtype]:
            value = next(value for value in values if type(value) in wrong)
            raise self._wrong_type(json.dumps(value))
        if self.rank not in (None, level):
            raise errors.invalid(f"Input {self.name!r}: values found at different levels")
        self.rank = level
        self.values += values
        if len(self.values) >= _PIECE:
            self._pack()

    def _pack(self) -> None:
        dtype = self.spec.dtype
        part = np.empty(len(self.values), dtype.as_numpy_dtype)
        try:
            with np.errstate(over="ignore"):  # beyond float32 is infinite, as in C++
                part[:] = self.values
        except OverflowError:
            raise errors.invalid(
                f"Input {self.name!r}: a value is outside {dtype.min} to {dtype.max} ({dtype.name})"
            ) from None
        self.parts.append(part)
        self.values = []

    def _wrong_type(self, value: str) -> errors.ServingError:
        return errors.invalid(
            f"Input {self.name!r}: JSON Value: {value} is not of expected type: "
            f"{self.spec.dtype.name}"
        )

    def array(self) -> np.ndarray:
        """What was read.

        Raises:
            ServingError: Values beside lists, or another shape than the signature's.
        """
        rank = len(self.sizes) if self.rank is None else self.rank
        if sorted(self.sizes) != list(range(rank)):
            raise errors.invalid(f"Input {self.name!r}: values found at different levels")
        shape = [self.sizes[level] for level in range(rank)]
        self.spec.check(self.name, self.spec.dtype, shape)
        self._pack()
        return np.concatenate(self.parts).reshape(shape)


def _run(text: bytes, at: int) -> bytes:
    """The numbers from `at` on, as many as fit into a piece; empty if there is none."""
    match = _RUN.match(text, at, at + _PIECE)
    if match is None or not match[0].strip(b" \t\r\n"):
        return b""
    if text[match.end() : match.end() + 1] == b"]":
        return match[0]
    return match[0][: max(match[0].rfind(b","), 0)]


def _numbers(text: bytes, at: int) -> list[Any]:
    """Parses a list of numbers and words, or of such lists; `at` is its place, for complaints."""
    try:
        return orjson.loads(text)  # several times faster than `json`, but without NaN
    except orjson.JSONDecodeError as error:
        if b"N" not in text and b"I" not in text:
            raise _syntax(at + error.pos) from None
    try:
        return json.loads(re.sub(rb"Inf(?!i)", b"Infinity", text), parse_float=_finite)
    except ValueError:
        raise _syntax(at) from None


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("Number too big to be stored in double.")
    return value


def _skip(text: bytes, at: int) -> int:
    """Returns where the value at `at` ends. Of a list of numbers only the end is looked for."""
    closers = bytearray()
    while True:
        match = _found(_SKIPPED, text, at)
        at = match.end()
        if opened := match[1]:
            if empty := _EMPTY[opened].match(text, at):
                at = empty.end()
            elif opened == b"[" and text[(end := _plain_end(text, at)) : end + 1] == b"]":
                at = end + 1
            else:
                closers += b"]" if opened == b"[" else b"}"
                at = _key(text, at)[1] if opened == b"{" else at
                continue
        while closers:
            match = _NEXT.match(text, at)
            if match is None or match[1] not in (b",", closers[-1:]):
                raise _syntax(at)
            at = match.end()
            if match[1] == b",":
                at = _key(text, at)[1] if closers[-1:] == b"}" else at
                break
            closers.pop()
        else:
            return at


def _plain_end(text: bytes, at: int) -> int:
    """Where the numbers and words from `at` on end."""
    while match := _RUN.match(text, at, at + _PIECE):
        at = match.end()
    return at


def _members(text: bytes, at: int) -> tuple[dict[str, int], int]:
    """Where the values of an object begin, by key, and where the object ends.

    Of equal keys the first counts.

    Args:
        text: JSON.
        at: Behind the object's opening brace.
    """
    starts: dict[str, int] = {}
    if empty := _EMPTY[b"{"].match(text, at):
        return starts, empty.end()
    separator = b","
    while separator == b",":
        key, at = _key(text, at)
        starts.setdefault(key, at)
        match = _NEXT.match(text, _skip(text, at))
        if match is None or match[1] == b"]":
            raise _syntax(at)
        at, separator = match.end(), match[1]
    return starts, at


def _key(text: bytes, at: int) -> tuple[str, int]:
    match = _found(_KEY, text, at)
    return _unescaped(match[1]).decode("utf-8", "surrogateescape"), match.end()


def _found(pattern: re.Pattern[bytes], text: bytes, at: int) -> re.Match[bytes]:
    match = pattern.match(text, at)
    if match is None:
        raise _syntax(at)
    return match


def _space(text: bytes, at: int) -> int:
    return _found(_SPACE, text, at).end()


def _unescaped(string: bytes) -> bytes:
    """The content of a JSON string, whatever its bytes are."""
    if b"\\" not in string:
        return string[1:-1]
    try:
        text = json.loads(string.decode("utf-8", "surrogateescape"))
        # A lone surrogate of an escape cannot be encoded, a byte that was no UTF-8 can.
        return text.encode("utf-8", "surrogateescape")
    except ValueError:
        raise errors.invalid("JSON Parse error: Invalid escape character in string.") from None


def _decode_base64(string: bytes, name: str) -> bytes:
    text = _unescaped(string).translate(None, b" \t\r\n\f\v")
    try:
        if not text.endswith(b"="):
            text += b"=" * (-len(text) % 4)  # padding may be left out, but not be wrong
        elif len(text) % 4:
            raise binascii.Error("Wrong padding")
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise errors.invalid(f"Input {name!r}: Unable to base64 decode: {error}") from None


def _excerpt(text: bytes, at: int, limit: int = 80) -> str:
    """The start of a value, for complaints."""
    shown = text[_space(text, at) :][: limit + 1].decode("utf-8", "replace")
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def _syntax(at: int) -> errors.ServingError:
    return errors.invalid(f"JSON Parse error: Invalid value. at offset: {at}")


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
