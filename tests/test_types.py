"""What type checkers see of the installed package."""

import json
import os
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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    source, site = folder / "source", folder / "site"
    left_out = shutil.ignore_patterns(".*", "runs", "served", "build", "tests", "__pycache__")
    shutil.copytree(ROOT, source, ignore=left_out)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, source], check=True)
    return site


@pytest.mark.slow
def test_the_installed_wheel_adds_no_name_but_the_projects_own(site, tmp_path):
    # Mutation: installing the folder `training` under its own name.
    packages = {path.name for path in site.iterdir() if (path / "__init__.py").exists()}
    assert packages == {"keras_lightnets", "lightnets"}
    # Beside a script and its own modules of common names.
    (tmp_path / "training").mkdir()
    for name in ("training/__init__.py", "data.py", "config.py"):
        (tmp_path / name).write_text("")
    script = "import training, data, lightnets.fit; print(lightnets.fit.FitModel.__name__)"
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "FitModel\n", done.stderr


@pytest.mark.slow
def test_the_installed_wheel_shows_its_types(site, tmp_path):
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
