import re
import subprocess
import sys

import pytest

from training import cli
from training.commands import train as train_command
from training.errors import UserError

HEAVY = "tensorflow", "keras", "tensorflow_datasets", "matplotlib", "sklearn"


def lightnets(capsys, *arguments):
    code = cli.main(arguments)
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["train", "--help"],
        ["trian"],
        ["train", "--modle", "x"],
        ["train", "--out", "x", "--model", "shufflenet_v3"],
        ["evaluate", "nowhere"],
        ["train", "--out", "x", "--set", "train.epoch=3"],
    ],
    ids=" ".join,
)
def test_help_and_mistakes_do_not_wait_for_tensorflow(arguments, tmp_path):
    # Mutation: any heavy import at the top of a command module.
    code = (
        "import sys\n"
        "from training import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        f"sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules) or 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert (result.returncode, result.stderr.splitlines()[1:]) == (0, []), result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: lightnets {name}" in text
    assert not re.search(r"default:\s+(None|False)", text)
    assert not re.search(r"\(default:[^)]*\)\s+\(default:", text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Unknown command 'trian'. Did you mean 'train'?"),
        (["train", "--modle", "x"], "Unknown flag '--modle'. Did you mean '--model'?"),
        (["train", "--modle=x"], "Unknown flag '--modle'. Did you mean '--model'?"),
        (["train", "extra"], "Unknown argument 'extra'."),
        (["train"], "--out DIR is missing"),
        (["train", "--out"], "Argument --out: expected one argument"),
        (["train", "--out", "r", "--epochs", "ten"], "train.epochs in the command line must be a"),
        (["train", "--out", "r", "--model", "shufflenet_v3"], "Did you mean 'shufflenet_v"),
        (["train", "--out", "r", "--recipe", "digit"], "Did you mean 'digits'?"),
        (["train", "--out", "r", "--optimizer", "sdg"], "Did you mean 'sgd'?"),
        (["train", "--out", "r", "--set", "train.epoch=1"], "Did you mean 'epochs'?"),
        (["train", "--out", "r", "--set", "train"], "--set takes section.key=value"),
        (["train", "--out", "r", "--config", "none.yaml"], "none.yaml: No such file"),
        (["train", "--resume", "--overwrite", "--out", "r"], "contradict each other"),
        (
            ["train", "--out", "r"],
            "--dataset is missing: a folder with a subfolder of pictures for",
        ),
        (["train", "--dry-run"], "To try it: --dataset digits."),
        (["train", "--resume"], "--resume needs a run directory"),
        (["evaluate", "nowhere", "--batch-size", "0"], "--batch-size and --top must be at least 1"),
    ],
)
def test_usage_errors_say_what_to_do_and_exit_with_2(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = lightnets(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.startswith("lightnets: ")
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "r", "--dataset", "./pictures"], "no data set at ./pictures"),
        (["train", "--out", "r", "--dataset", "list.csv"], "no data set at list.csv"),
        (["train", "--out", "r", "--recipe", "digits", "--weights", "./w.pth"], "no weight file"),
        (["train", "--resume", "r"], "no run directory r"),
        (["evaluate", "nowhere"], "There is no nowhere"),
        (["evaluate", "nowhere", "--run", "r"], "no run directory r"),
    ],
)
def test_missing_files_are_named_and_exit_with_1(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = lightnets(capsys, *arguments)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_system_become_one_line(capsys, monkeypatch):
    def full(args):
        raise OSError(28, "No space left on device", "runs/1/checkpoints")

    monkeypatch.setattr(train_command, "run", full)
    code, _, err = lightnets(capsys, "train", "--out", "r")
    assert code == 1
    assert err == (
        "lightnets: No space left on device: runs/1/checkpoints. "
        "Free some space, then run the same command again.\n"
    )


def test_a_bug_is_not_dressed_up_as_a_mistake_of_the_user(monkeypatch):
    def broken(args):
        raise KeyError("surprise")

    monkeypatch.setattr(train_command, "run", broken)
    with pytest.raises(KeyError, match="surprise"):
        cli.main(["train", "--out", "r"])


def test_a_closed_pipe_is_no_traceback():
    result = subprocess.run(
        f"{sys.executable} -m training.cli list | head -n 1", shell=True, capture_output=True
    )
    assert result.stderr == b""


def test_user_errors_carry_their_exit_code():
    assert UserError("x").exit_code == 1
