"""JSON as TensorFlow Serving reads and writes it: a table of its own tests' expectations."""

from __future__ import annotations

import base64
import gc
import json
import math
import re
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.serving.server import errors, json_tensor
from keras_lightnets.serving.server.servable import Signature

DEEP = b"[" * 500_000 + b"]" * 500_000


def signature(**dtypes: tf.DType) -> Signature:
    return Signature("s", {n: tf.TensorSpec(None, d, f"{n}:0") for n, d in dtypes.items()}, {})


def read(body: bytes, **dtypes: tf.DType) -> tuple[dict, bool]:
    """The inputs of a request and whether it is in row format."""
    request = json_tensor.members(body)
    json_tensor.signature_name(request)
    return json_tensor.inputs(request, signature(**dtypes))


def b64(content: bytes) -> str:
    return json.dumps({"b64": base64.b64encode(content).decode()})


@pytest.mark.parametrize(
    ("dtype", "body", "shape", "values"),
    [
        # util/json_tensor_test.cc: rows, one level more and one less
        (tf.int32, b'{"instances": [[1,2],[3,4],[5,6]]}', (3, 2), [1, 2, 3, 4, 5, 6]),
        (tf.int32, b'{"instances": [1]}', (1,), [1]),
        (tf.int32, b'{"inputs": {"x": [[[1,2],[3,4]]]}}', (1, 2, 2), [1, 2, 3, 4]),
        (tf.int32, b'{"inputs": [[[1,2],[3,4]]]}', (1, 2, 2), [1, 2, 3, 4]),
        (tf.int32, b'{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}', (2, 2), [1, 2, 3, 4]),
        (tf.int32, b'{"inputs": 7}', (), [7]),
        (tf.int64, b'{"inputs": [-9223372036854775808]}', (1,), [-(2**63)]),
        # whole numbers and fractions, beyond what a float can hold, not a number
        (tf.float32, b'{"instances": [1, 2.0, 5.003]}', (3,), [1, 2, np.float32(5.003)]),
        (tf.float64, b'{"instances": [1.0, 2, 0.662]}', (3,), [1, 2, 0.662]),
        (tf.float32, b'{"instances": [1435774380]}', (1,), [np.float32(1435774380)]),
        (tf.float32, b'{"instances": [1.7e308, -1.7e308]}', (2,), [math.inf, -math.inf]),
        (tf.float32, b'{"instances": [2e-308]}', (1,), [0]),
        (
            tf.float32,
            b'{"instances": [Infinity, -Inf, Inf]}',
            (3,),
            [math.inf, -math.inf, math.inf],
        ),
        (tf.uint64, b'{"instances": [18446744073709551615, 1]}', (2,), [2**64 - 1, 1]),
        (tf.bool, b'{"instances": [true, false]}', (2,), [True, False]),
        # text and bytes
        (tf.string, b'{"instances": ["foo", "b\\u00e4r\\n"]}', (2,), [b"foo", "b\xe4r\n".encode()]),
        (tf.string, b'{"instances": [{"b64": "aGVsbG8="}, "x"]}', (2,), [b"hello", b"x"]),
        (tf.string, b'{"instances": [[{"b64": "aGVsbG8="}]]}', (1, 1), [b"hello"]),
        (tf.string, b'{"inputs": {"b64": "aGVsbG8"}}', (), [b"hello"]),
        (tf.string, b'{"inputs": {"x": {"b64": "aGVs\\r\\n bG8="}}}', (), [b"hello"]),
        (tf.string, b'{"inputs": ["\xff"]}', (1,), [b"\xff"]),
        # no value at all
        (tf.float32, b'{"inputs": []}', (0,), []),
        (tf.float32, b'{"inputs": [[], [ ]]}', (2, 0), []),
        (tf.string, b'{"inputs": [[]]}', (1, 0), []),
        # what nobody asks for: text behind the document, members, depth, a mark before it
        (tf.int32, b'{"instances": [1]} and more {', (1,), [1]),
        (tf.int32, b'{"instances": [1], "nested": ' + DEEP + b"}", (1,), [1]),
        (tf.int32, b'{"inputs": {"y": {"a": [{}, "]"]}, "x": 1}}', (), [1]),
        (tf.int32, b'\xef\xbb\xbf {"inputs": [1]}', (1,), [1]),
        # of equal keys the first counts
        (tf.int32, b'{"inputs": [1], "inputs": [2]}', (1,), [1]),
        (tf.int32, b'{"inputs": {"x": [1], "x": [2]}}', (1,), [1]),
        (tf.int32, b'{"signature_name": "a", "signature_name": 3, "inputs": [1]}', (1,), [1]),
    ],
)
def test_what_is_taken(dtype, body, shape, values):
    arrays, in_rows = read(body, x=dtype)
    assert arrays["x"].shape == shape
    assert arrays["x"].dtype == (object if dtype == tf.string else dtype.as_numpy_dtype)
    assert arrays["x"].reshape(-1).tolist() == [getattr(v, "item", lambda v=v: v)() for v in values]
    assert in_rows == (b"instances" in body)


@pytest.mark.parametrize(
    ("dtype", "body", "complaint"),
    [
        (tf.int32, b"", "JSON Parse error: The document is empty"),
        (tf.int32, b" \n", "The document is empty"),
        (tf.int32, b"instances = [1, 2]", "JSON Parse error: Invalid value"),
        (tf.int32, b'{"instances": [1]', "JSON Parse error"),
        (tf.int32, b'{"instances": [1}', "JSON Parse error"),
        (tf.int32, b'{"instances": [1]]', "JSON Parse error"),
        (tf.int32, b'{"instances": [1,]}', "JSON Parse error"),
        (tf.int32, b'{"instances": [1 2]}', "JSON Parse error"),
        (tf.int32, b'{"instances": [01]}', "JSON Parse error"),
        (tf.int32, b'{"instances": [[1], x]}', "JSON Parse error"),
        (tf.int32, b'{"instances": [1], "more": [{"a": x}]}', "JSON Parse error"),
        (tf.int32, b"{instances: [1]}", "JSON Parse error"),
        (tf.float32, b'{"instances": [1e400]}', "JSON Parse error"),
        (tf.float32, b'{"instances": [NaN, 1e400]}', "JSON Parse error"),
        (tf.int32, b"[1, 2]", "Is not object"),
        (tf.int32, b'"signature_name"', "Is not object"),
        (tf.int32, b'{"signature_name": 5, "instances": [1]}', "key must be a string value"),
        (tf.int32, b'{"signature_name": null, "instances": [1]}', "key must be a string value"),
        (tf.int32, b'{"signature_name": ' + DEEP + b"}", "key must be a string value"),
        (tf.int32, b"{}", "Missing 'inputs' or 'instances' key"),
        (tf.int32, b'{"instances": [1], "inputs": [1]}', "only one of"),
        (tf.int32, b'{"instances": 1}', "to be a list/array"),
        (tf.int32, b'{"instances": []}', "No values in 'instances' array"),
        (tf.int32, b'{"inputs": {"y": [1]}}', "Missing named input: x"),
        (tf.int32, b'{"instances": [{"x": 1}, {"y": 1}]}', "keys must be equal to: x"),
        (tf.int32, b'{"instances": [{"x": 1}, {"x": 1, "y": 1}]}', "keys must be equal to: x"),
        (tf.int32, b'{"instances": [{"x": 1}, 1]}', "Expecting object but got list at item 1"),
        (tf.int32, b'{"instances": [1, {"x": 1}]}', "not of expected type: int32"),
        (tf.int32, b'{"instances": [[1, 2], [1]]}', "unexpected size"),
        (tf.int32, b'{"instances": [{"x": [1, 2]}, {"x": [1]}]}', "unexpected size"),
        (tf.int32, b'{"instances": [[1], 2]}', "different levels"),
        (tf.int32, b'{"instances": [1, [2]]}', "different levels"),
        (tf.int32, b'{"inputs": [[], 1]}', "different levels"),
        (tf.int32, b'{"inputs": ' + b"[" * 33 + b"{}" + b"]" * 33 + b"}", "deeper than 32"),
        # types: a truth value is no number, a fraction no whole one
        (tf.float32, b'{"instances": [true, 2.0]}', "true is not of expected type: float32"),
        (tf.int32, b'{"instances": [true, 2]}', "true is not of expected type: int32"),
        (tf.int32, b'{"instances": [2.0]}', "2.0 is not of expected type: int32"),
        (tf.int32, b'{"instances": [null]}', "null is not of expected type: int32"),
        (tf.int32, b'{"instances": ["1"]}', "not of expected type: int32"),
        (tf.int32, b'{"instances": [{"b64": "AA=="}]}', "not of expected type: int32"),
        (tf.bool, b'{"instances": [1]}', "1 is not of expected type: bool"),
        (tf.string, b'{"instances": [1]}', "not of expected type: string"),
        (tf.string, b'{"instances": [null]}', "not of expected type: string"),
        (tf.uint8, b'{"instances": [256]}', "outside 0 to 255"),
        (tf.uint64, b'{"instances": [-1]}', "outside 0 to 18446744073709551615"),
        (tf.uint64, b'{"instances": [18446744073709551616]}', "not of expected type: uint64"),
        (tf.int64, b'{"instances": [' + b"9" * 5000 + b"]}", "JSON Parse error"),
        # base64
        (tf.string, b'{"instances": [{"b64": "!!"}]}', "Unable to base64 decode"),
        (tf.string, b'{"instances": [{"b64": "AAAA="}]}', "Unable to base64 decode"),
        (tf.string, b'{"instances": [[{"b64": 3}]]}', "not of expected type: string"),
        (
            tf.string,
            b'{"inputs": [{"b64": "AA==", "b64": "AA=="}]}',
            "not of expected type: string",
        ),
        (tf.string, b'{"inputs": ["\\ud800"]}', "JSON Parse error"),
        (tf.string, b'{"inputs": ["a\nb"]}', "JSON Parse error"),
    ],
)
def test_what_is_refused(dtype, body, complaint):
    with pytest.raises(errors.ServingError, match=re.escape(complaint)) as caught:
        read(body, x=dtype)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("dtype", [tf.half, tf.bfloat16, tf.complex64, tf.uint16])
def test_types_that_json_cannot_carry(dtype):
    with pytest.raises(errors.ServingError) as caught:
        read(b'{"inputs": [1]}', x=dtype)
    assert caught.value.code == "UNIMPLEMENTED"
    with pytest.raises(errors.ServingError, match="Failed to write JSON value") as caught:
        json_tensor.encode_response({"x": np.zeros(1, dtype.as_numpy_dtype)}, False)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_several_inputs():
    body = (
        b'{"instances": [{"i": [[1, 2]], "s": ["foo"], "f": NaN}, '
        b'{"f": 2.0, "s": ["bar"], "i": [[3, 4]]}]}'
    )
    dtypes = {"i": tf.int32, "s": tf.string, "f": tf.float32}
    arrays, _ = read(body, **dtypes)
    assert arrays["i"].tolist() == [[[1, 2]], [[3, 4]]]
    assert arrays["s"].tolist() == [[b"foo"], [b"bar"]]
    assert math.isnan(arrays["f"][0])
    columns = b'{"inputs": {"i": [1, 2], "s": %s, "f": []}}' % b64(b"x").encode()
    arrays, _ = read(columns, **dtypes)
    assert (arrays["s"].shape, arrays["f"].shape) == ((), (0,))
    for body in (b'{"instances": [1]}', b'{"inputs": [1]}'):
        with pytest.raises(errors.ServingError, match="multiple input tensors required"):
            read(body, **dtypes)


def test_pieces_come_together(monkeypatch):
    """Caught: a number that the end of a piece cuts in two."""
    array = np.random.default_rng(0).integers(0, 1000, (3, 5, 7))
    for piece in (8, 20, 64, 4096):
        monkeypatch.setattr(json_tensor, "_PIECE", piece)
        for text in (json.dumps(array.tolist()), json.dumps(array.tolist(), indent=1)):
            arrays, _ = read(b'{"inputs": %s}' % text.encode(), x=tf.int32)
            assert (arrays["x"] == array).all()
        flat = b'{"inputs": %s}' % json.dumps(array.reshape(-1).tolist()).encode()
        assert (read(flat, x=tf.float32)[0]["x"] == array.reshape(-1)).all()


@pytest.mark.parametrize("values", [b"0," * (1 << 23), b"[0]," * (1 << 18)], ids=["flat", "rows"])
def test_other_threads_get_their_turn_while_a_large_body_is_read(values):
    """Caught: one search through megabytes, during which nothing else runs."""
    body = b'{"inputs": [' + values + b"0]}"
    turns, done = [], threading.Event()

    def work() -> None:
        while not done.is_set():
            turns.append(None)
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    thread = threading.Thread(target=work)
    try:
        thread.start()
        before = len(turns)
        json_tensor.members(body)
        assert len(turns) > before + 20
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    ("outputs", "rows", "answer"),
    [
        ({"a": np.array([0.1, 2], np.float32)}, True, {"predictions": [0.1, 2.0]}),
        ({"a": np.array([[1], [2]])}, False, {"outputs": [[1], [2]]}),
        (
            {"a": np.array([1, 2]), "b_bytes": np.array([b"x", b"\xff"], object)},
            True,
            {
                "predictions": [
                    {"a": 1, "b_bytes": {"b64": "eA=="}},
                    {"a": 2, "b_bytes": {"b64": "/w=="}},
                ]
            },
        ),
        ({"a": np.array(b"one", object)}, False, {"outputs": "one"}),
        (
            {"a": np.array(3.5, np.float32), "b": np.array(True)},
            False,
            {"outputs": {"a": 3.5, "b": True}},
        ),
        ({"a": np.array([2**64 - 1], np.uint64)}, False, {"outputs": [2**64 - 1]}),
        ({"a": np.zeros((0, 3), np.float32)}, True, {"predictions": []}),
        ({"a": np.array([math.inf, -math.inf])}, False, {"outputs": [math.inf, -math.inf]}),
    ],
)
def test_answers(outputs, rows, answer):
    assert json.loads(json_tensor.encode_response(outputs, rows)) == answer


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": np.array(1.0)},
        {"a": np.array(b"one", object)},
        {"a": np.zeros(2), "b": np.zeros(3)},
    ],
)
def test_outputs_without_rows(outputs):
    with pytest.raises(errors.ServingError, match="no row format") as caught:
        json_tensor.encode_response(outputs, True)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_an_error_that_is_passed_on_holds_no_body():
    """Caught: error, traceback, frame and back, which only the garbage collector ends."""

    def refuse(body: bytearray) -> errors.ServingError:
        try:
            read(bytes(body), x=tf.int32)
        except errors.ServingError as error:
            failure = errors.describe(error)
        return failure

    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(100):
            refuse(b'{"instances": [{}]}')
        assert len(gc.get_objects()) < before + 50
    finally:
        gc.enable()
