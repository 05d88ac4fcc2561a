"""What comes from outside is one line that does nothing to a terminal."""

import os
import unicodedata

import pytest
import tensorflow as tf

from keras_lightnets.text import first_line, visible


def test_nothing_that_a_terminal_obeys_is_left():
    """Caught: a category forgotten."""
    text = visible("".join(map(chr, range(0x110000))))
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [c for c in text if unicodedata.bidirectional(c) in ("RLO", "LRO", "RLE", "LRE")]
    assert len(text.splitlines()) == 1


def test_escapes_are_those_of_the_shell_and_other_text_stays():
    assert visible("a\n\x1b[31mb\x85\u2028") == r"a\n\x1b[31mb\u0085\u2028"
    assert visible(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    for text in ("猫 é \\ %s [bold]", "👩\u200d🔬"):
        assert visible(text) == text


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  Graph execution error:\n\nno image\nmore"), "no image"),
        (ValueError(), "ValueError"),
        (
            ValueError("1 object was not loaded. An example:\n\nLayer 'logits' got 0"),
            "Layer 'logits' got 0",
        ),
        (ValueError("a\u2028b.\nmore"), r"a\u2028b"),
        (FileNotFoundError(2, "No such file", "x"), "No such file"),
        (tf.errors.InternalError(None, None, "f: No space left on device"), "the disk is full"),
        (RuntimeError("Exception from src/x.cpp:1:\nCheck 'a' failed\nno model"), "no model"),
    ],
)
def test_the_line_of_an_error_that_says_something(error, line):
    assert first_line(error) == line
