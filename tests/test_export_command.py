"""`lightnets export`: one line and no files for what cannot be exported."""

import pytest

from training.cli import main


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--formats", "onx"], 2, "Unknown format 'onx'. Did you mean 'onnx'?"),
        (["--formats", ","], 2, "No format was given"),
        (["--top-k", "0"], 2, "--top-k must be at least 1"),
        (["--max-accuracy-drop", "2"], 2, "--max-accuracy-drop is a share"),
        (["--formats", "onnx"], 1, "none"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "none", "--out", "out", *arguments]) == code
    out, err = capsys.readouterr()
    assert text in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir())
