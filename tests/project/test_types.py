"""What type checkers see of the installed package."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.checkout import ROOT

SCRIPT = """
import keras_lightnets
from keras_lightnets import ShuffleNetV1, create_model, export_saved_model
from keras_lightnets.serving import Client
from lightnets.fit import FitModel

reveal_type(ShuffleNetV1)
reveal_type(create_model)
reveal_type(export_saved_model)
reveal_type(Client.__init__)
network = ShuffleNetV1(groups=3, classes=10, pooling="avg", weights=None)
FitModel(network, accumulate=2).fit(epochs=1)
Client("http://localhost:8501")

ShuffleNetV1(classes="ten")
ShuffleNetV1(grups=3)
ShuffleNetV1(pooling="mean")
create_model(3)
Client(url=8501)
FitModel(network, acumulate=2)
FitModel(network, accumulate="2")
FitModel(network).fit(epochs="1")
keras_lightnets.NoSuch
"""
# What must not pass in this project either, a line each behind the first empty one.
FAULTS = """from keras_lightnets.preprocessing import EvalTransform
from lightnets.config.keys import Config
from lightnets.data import Splits
from lightnets.run.training import Training


def faults(config: Config, splits: Splits) -> str:
    Training(config, None, resum=True)
    Training(config, "runs/1")
    splits.dataset.describe()
    EvalTransform(image_size=224)
    print(config.train.epoch)
    print(undefined)
    return splits.labels
"""
REVEALED = [
    ("ShuffleNetV1", "groups: int = 3", "**options: **NetworkOptions) -> Model"),
    ("create_model", "(name: str, /, **kwargs: Any) -> Model"),
    ("export_saved_model", "model: Model", "class_names"),
    ("__init__", "url: str"),
]


def check(folder):
    """Reports of pyright on a project."""
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

    (tmp_path / "script.py").write_text(SCRIPT)
    # `extraPaths` come before what the checker finds of an editable installation.
    config = {"typeCheckingMode": "basic", "include": ["script.py"], "extraPaths": [str(site)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    reports = check(tmp_path)
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


@pytest.mark.slow
def test_both_packages_have_no_fault_of_types_and_a_new_one_is_found(tmp_path):
    # Mutation: any fault of `FAULTS` in a module.
    for name in ("keras_lightnets", "training"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "build" / "types").mkdir(parents=True)  # as `make lint` does
    (tmp_path / "build" / "types" / "lightnets").symlink_to("../../training")
    faults = tmp_path / "training" / "faults.py"
    faults.write_text(FAULTS)
    reports = check(tmp_path)
    elsewhere = [report for report in reports if report["file"] != str(faults)]
    assert not elsewhere, elsewhere
    lines = {report["range"]["start"]["line"] for report in reports}
    first = FAULTS.splitlines().index("") + 3
    assert lines == set(range(first, len(FAULTS.splitlines())))
