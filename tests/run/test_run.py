import json

import pytest

from lightnets import cli
from lightnets.config import keys as configs
from lightnets.run import directory as runs
from lightnets.run import run_lock
from lightnets.support.errors import UserError
from lightnets.support.writing import write_json, write_text


def claim(path, **options):
    with runs.claim(path, **options):
        pass


def test_a_new_run_never_overwrites_an_old_one(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.yaml").write_text("{}")
    with pytest.raises(UserError, match=r"old exists\. Continue it with --resume"):
        claim(old, overwrite=False)
    assert (old / "config.yaml").exists()
    with runs.claim(old, overwrite=True):
        assert [path.name for path in old.iterdir()] == [run_lock.NAME]


def test_overwrite_deletes_nothing_but_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a run directory"):
        claim(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_places_that_cannot_be_written_are_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"--out .*file is a file"):
        claim(file, overwrite=False)
    with pytest.raises(UserError, match=r"Cannot create .*file/run: Not a directory"):
        claim(file / "run", overwrite=False)


def test_a_run_without_its_files_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"no run directory .*nowhere"):
        runs.Run.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not a run directory \(it has no config.yaml\)"):
        runs.Run.open(tmp_path)


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"accuracy": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"accuracy": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half" * 100_000 + "\ud800")
    assert json.loads(path.read_text()) == {"accuracy": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    "command",
    [["evaluate", "RUN"], ["export", "RUN", "--out", "OUT"], ["predict", "RUN", "image.png"]],
    ids=lambda command: command[0],
)
def test_a_run_without_weights_says_how_to_finish_it(command, tmp_path, capsys):
    from keras_lightnets.preprocessing import EvalTransform

    run = tmp_path / "run"
    run.mkdir()
    configs.save(configs.from_dict({"data": {"dataset": "digits"}}), run / "config.yaml")
    (run / "labels.txt").write_text("cat\ndog\n")
    write_json(run / "transform.json", EvalTransform(image_size=(32, 32)).to_dict())
    (tmp_path / "image.png").write_bytes(b"")
    places = {"RUN": str(run), "OUT": str(tmp_path / "out"), "image.png": f"{tmp_path}/image.png"}
    code = cli.main([places.get(word, word) for word in command])
    assert code == 1
    message = capsys.readouterr().err
    assert message == (
        f"lightnets: The run {run} has no weights (weights/best.keras is missing). "
        f"Finish it first: lightnets train --resume {run}\n"
    )
    assert not (tmp_path / "out").exists()
