"""Words in messages."""

import os
import pathlib
import re
import subprocess

from keras_lightnets.text import visible
from lightnets.support.words import command, count, nearest
from tests.checkout import ROOT


def test_one_and_many():
    assert count(1, "epoch") == "1 epoch"
    assert count(0, "step") == "0 steps"
    assert count(2, "class", "classes") == "2 classes"


def test_only_a_close_name_is_proposed():
    assert nearest("mobilnet_v2", ["mobilenet_v2", "squeezenet"]) == " Did you mean 'mobilenet_v2'?"
    assert nearest("resnet", ["mobilenet_v2", "squeezenet"]) == ""


def test_a_command_with_any_path_comes_back_from_the_shell_as_it_was():
    paths = [
        "my runs/1",
        "it's",
        "$HOME",
        "a;b",
        "exp[1]",
        "-",
        "b\\n",
        "new\nline",
        "\x1b'\\[\u2028",
    ]
    paths.append(os.fsdecode(b"caf\xe9"))
    shown = [command("serve", pathlib.Path(path)) for path in paths]
    assert all(visible(line) == line for line in shown)
    script = "\n".join(line.replace("lightnets serve", "printf '%s\\0'", 1) for line in shown)
    done = subprocess.run(
        ["bash", "-c", script], env={"LC_ALL": "C.UTF-8"}, capture_output=True, check=True
    )
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(path) for path in paths]
    assert command("evaluate", "runs/1") == "lightnets evaluate runs/1"


def test_no_message_puts_a_value_into_a_command_unquoted():
    suggested = re.compile(r"lightnets [a-z]+ [^\"`]*\{(?!command\()")
    for path in (ROOT / "training").rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if suggested.search(line)]
        assert path.name == "demo.py" or not lines, (path, lines)
