import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_trains_evaluates_exports_serves_and_agrees(tmp_path):
    # Mutation: any step that fails, or a server whose answers are not those of `evaluate`.
    command = [sys.executable, "-m", "lightnets.demo", "--folder", str(tmp_path), "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    for line in (
        f"$ lightnets train --model shufflenet_v1 --dataset digits --out {tmp_path}/runs/demo",
        f"$ lightnets evaluate {tmp_path}/runs/demo",
        f"$ lightnets export {tmp_path}/runs/demo --out {tmp_path}/served/digits",
        f"$ lightnets serve {tmp_path}/served",
        "Every answer agrees with step 2.",
    ):
        assert line in result.stdout
    run = tmp_path / "runs" / "demo"
    assert json.loads((run / "results.json").read_text())["accuracy"] >= 0.975
    assert {path.name for path in run.iterdir()} >= {
        *("config.yaml", "environment.json", "history.csv", "history.json", "curves.png"),
        *("confusion_matrix.png", "per_class.csv", "labels.txt", "results.json", "checkpoints"),
    }
    assert {path.name for path in (run / "weights").iterdir()} == {"best.keras", "last.keras"}
