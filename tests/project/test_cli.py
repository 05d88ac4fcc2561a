import io
import os
import re
import subprocess
import sys

import pytest

from lightnets import cli
from lightnets.commands import train as train_command
from lightnets.support import console
from lightnets.support.errors import UserError
from tests.checkout import ROOT

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
        "from lightnets import cli\n"
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
        # The flag of another action: it was suggested in place of itself.
        (["data", "check", "a", "--out", "x"], "See lightnets data check --help."),
        (["train", "--modle=x"], "Unknown flag '--modle'. Did you mean '--model'?"),
        (["train", "pictures", "extra"], "Unknown argument 'extra'."),
        (["train"], "DATA is missing: a folder with a subfolder of pictures for"),
        (["train", "--out"], "Argument --out: expected one argument"),
        (["train", "--out", "r", "--epochs", "ten"], "train.epochs in the command line must be a"),
        (["train", "--out", "r", "--model", "shufflenet_v3"], "Did you mean 'shufflenet_v"),
        (["train", "digits", "--teacher", "mobilnet_v2"], "Did you mean 'mobilenet_v2'?"),
        (["train", "--out", "r", "--recipe", "digit"], "Did you mean 'digits'?"),
        (["train", "--out", "r", "--optimizer", "sdg"], "Did you mean 'sgd'?"),
        (["train", "--out", "r", "--set", "train.epoch=1"], "Did you mean 'epochs'?"),
        (["train", "--out", "r", "--set", "train"], "--set takes section.key=value"),
        (["train", "--out", "r", "--config", "none.yaml"], "none.yaml: No such file"),
        (["train", "--resume", "--overwrite", "--out", "r"], "contradict each other"),
        (["train", "--dry-run"], "To try it: lightnets train digits."),
        (["train", "--resume"], "--resume needs a run directory"),
        (["train", "--resume", "r", "--extend", "0"], "--extend: must be at least 1. Received: 0"),
        (["train", "digits", "--extend", "3"], "Name it: --resume RUN --extend N."),
        (
            ["evaluate", "nowhere", "--batch-size", "0"],
            "--batch-size: must be at least 1. Received: 0",
        ),
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
        (["train", "digits", "--teacher", "./runs/x"], "There is no teacher ./runs/x."),
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


NAMES = ["猫", "two\nlines\u2028", "\x1b[31mred", "[bold]", os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_is_shown_on_any_terminal_and_never_obeyed(monkeypatch, encoding):
    """Caught: UnicodeEncodeError, control characters, and a name on two lines."""

    def shown(args):
        console.line(f"{NAMES}")
        for name in NAMES:
            console.line(name)
        console.fields(*NAMES)
        console.table(["class"], [[name] for name in NAMES])
        print("猫", flush=True)
        raise UserError(f"Bad: {' '.join(NAMES)}", *NAMES)

    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(train_command, "run", shown)
    assert cli.main(["train", "--out", "r"]) == 1
    out, err = (stream.buffer.getvalue() for stream in streams.values())
    lines = out.decode(encoding).splitlines()
    cat = "猫" if encoding == "utf-8" else r"\u732b"
    expected = [cat, r"two\nlines\u2028", r"\x1b[31mred", "[bold]", r"caf\xe9"]
    assert lines[1:6] == expected
    assert lines[6] == "\t".join(expected)
    assert [line.strip() for line in lines[8:13]] == expected
    assert lines[13:] == [cat]
    assert err.decode(encoding) == "\n".join(
        [f"lightnets: Bad: {' '.join(expected)}", *expected, ""]
    )


def test_a_name_that_is_not_utf8_is_refused_before_any_work(capsys, tmp_path, monkeypatch):
    name = os.fsdecode(b"caf\xe9")
    for command in (
        ["train", "--dataset", "digits", "--out", name],
        ["evaluate", name],
        ["data", "check", name],
        ["export", name, "--out", "x"],
    ):
        code, _, err = lightnets(capsys, *command)
        assert (code, err) == (
            2,
            "lightnets: The name 'caf\\xe9' is not UTF-8. Rename it, or give another name.\n",
        )
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    code, _, err = lightnets(capsys, "evaluate", "run")
    assert code == 2
    assert "caf\\xe9' is not UTF-8" in err


def test_a_home_that_nobody_knows_is_one_line(capsys):
    code, _, err = lightnets(
        capsys, "train", "--out", "r", "--dataset", "~nobody-has-this-name/pictures"
    )
    assert code == 1
    assert err.startswith("lightnets: The home folder that a ~ stands for is not known.")


def test_a_bug_is_not_dressed_up_as_a_mistake_of_the_user(monkeypatch):
    def broken(args):
        raise KeyError("surprise")

    monkeypatch.setattr(train_command, "run", broken)
    with pytest.raises(KeyError, match="surprise"):
        cli.main(["train", "--out", "r"])


def test_a_closed_pipe_is_no_traceback():
    result = subprocess.run(
        f"{sys.executable} -m lightnets.cli list | head -n 1", shell=True, capture_output=True
    )
    assert result.stderr == b""


def test_user_errors_carry_their_exit_code():
    assert UserError("x").exit_code == 1


def interrupted(folder, tensorflow):
    """Presses Ctrl-C in a command that imports this for TensorFlow; returns how it ended."""
    (folder / "tensorflow.py").write_text(
        f"import os\nos.write(2, b'log of an import')\n{tensorflow}"
    )
    code = "import sys; from lightnets import cli; sys.exit(cli.main(sys.argv[1:]))"
    arguments = ["train", "--dataset", "digits", "--out", str(folder / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=folder,
        timeout=120,
    )


@pytest.mark.parametrize(
    "answer",
    [
        "os.kill(os.getpid(), 2)",
        "try:\n    os.kill(os.getpid(), 2)\nexcept KeyboardInterrupt:\n    raise OSError('half')",
        "try:\n    os.kill(os.getpid(), 2)\nexcept BaseException:\n    pass\n1 / 0",
    ],
    ids=["raised", "turned into another error", "swallowed before another"],
)
def test_ctrl_c_during_the_start_is_one_line_and_130(answer, tmp_path):
    done = interrupted(tmp_path, answer)
    assert done.stderr == "lightnets: Interrupted.\n"
    assert done.returncode == 130
    assert not (tmp_path / "run").exists()
