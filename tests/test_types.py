"""What type checkers see of the installed package."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = """
import keras_lightnets
from keras_lightnets import ShuffleNetV1, create_model, export_saved_model
from keras_lightnets.serving import Client

reveal_type(ShuffleNetV1)
reveal_type(create_model)
reveal_type(export_saved_model)
reveal_type(Client.__init__)
ShuffleNetV1(groups=3, classes=10, pooling="avg", weights=None)
Client("http://localhost:8501")

ShuffleNetV1(classes="ten")
ShuffleNetV1(grups=3)
ShuffleNetV1(pooling="mean")
create_model(3)
Client(url=8501)
keras_lightnets.NoSuch
"""
REVEALED = [
    ("ShuffleNetV1", "groups: int = 3", "**options: **NetworkOptions) -> Model"),
    ("create_model", "(name: str, /, **kwargs: Any) -> Model"),
    ("export_saved_model", "model: Model", "class_names"),
    ("__init__", "url: str"),
]


def check(folder, site):
    """Reports of pyright on `SCRIPT`, by line."""
    (folder / "script.py").write_text(SCRIPT)
    # `extraPaths` come before what the checker finds of an editable installation.
    config = {"typeCheckingMode": "basic", "include": ["script.py"], "extraPaths": [str(site)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = ["basedpyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(folder)]
    program = pathlib.Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return json.loads(done.stdout)["generalDiagnostics"]


@pytest.mark.slow
def test_the_installed_wheel_shows_its_types(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    left_out = shutil.ignore_patterns(".*", "runs", "served", "build", "tests", "__pycache__")
    shutil.copytree(ROOT, source, ignore=left_out)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, source], check=True)
    assert (site / "keras_lightnets" / "__init__.pyi").exists()

    reports = check(tmp_path, site)
    revealed = [report["message"] for report in reports if report["severity"] == "information"]
    for message, parts in zip(revealed, REVEALED, strict=True):
        assert all(part in message for part in parts), message
    errors = [
        SCRIPT.splitlines()[report["range"]["start"]["line"]]
        for report in reports
        if report["severity"] == "error"
    ]
    wrong = SCRIPT.split("\n\n")[-1].strip().splitlines()
    assert errors == wrong, reports
