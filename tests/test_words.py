"""Words in messages."""

import pathlib
import re
import shlex

from training.words import command, count, nearest


def test_one_and_many():
    assert count(1, "epoch") == "1 epoch"
    assert count(0, "step") == "0 steps"
    assert count(2, "class", "classes") == "2 classes"


def test_only_a_close_name_is_proposed():
    assert nearest("mobilnet_v2", ["mobilenet_v2", "squeezenet"]) == " Did you mean 'mobilenet_v2'?"
    assert nearest("resnet", ["mobilenet_v2", "squeezenet"]) == ""


def test_a_command_with_any_path_comes_back_from_the_shell_as_it_was():
    for path in ("my runs/1", "it's", "$HOME", "a;b", "exp[1]", "-", "new\nline"):
        assert shlex.split(command("serve", pathlib.Path(path))) == ["lightnets", "serve", path]
    assert command("evaluate", "runs/1") == "lightnets evaluate runs/1"


def test_no_message_puts_a_value_into_a_command_unquoted():
    suggested = re.compile(r"lightnets [a-z]+ [^\"`]*\{(?!command\()")
    for path in (pathlib.Path(__file__).parents[1] / "training").rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if suggested.search(line)]
        assert path.name == "demo.py" or not lines, (path, lines)
