"""The README in a bundle: its calls are run as they stand, against the embedded server."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.exports import LABELS, photos


def _printed(line):
    """Returns the name of an output and what it holds."""
    name, _, values = line.partition(" ")
    return name, ast.literal_eval(values)


@pytest.mark.slow
def test_the_calls_of_the_readme_work_as_they_stand(small_export, small_server, tmp_path):
    # Mutation: another signature, model or output name in the text.
    (tmp_path / "picture.png").write_bytes(photos()[1])
    readme = (small_export[1].parent.parent / "README.md").read_text()
    shell = re.findall(r"```sh\n(.*?)```", readme, flags=re.S)
    python = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    assert (len(shell), len(python)) == (4, 2)
    rest = small_server.url.removeprefix("http://")
    grpc = small_server.grpc_url.removeprefix("grpc://")

    def run(command, folder=tmp_path):
        command[-1] = command[-1].replace("127.0.0.1:8501", rest)
        command[-1] = command[-1].replace("127.0.0.1:8500", grpc)
        result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert '"AVAILABLE"' in run(["bash", "-c", shell[0]])
    tested = run(["bash", "-c", shell[1]], small_export[1].parent.parent)
    assert {line.split()[0] for line in tested.splitlines()} == {"ok"}
    answer = run(["bash", "-c", shell[3]])
    assert '"valid": true' in answer.replace('":true', '": true')
    lines = [run([sys.executable, "-c", code]).splitlines() for code in python]
    by_rest, by_grpc = (dict(map(_printed, each)) for each in lines)
    assert by_rest.keys() == by_grpc.keys() == {"classes", "probabilities", "scores", "valid"}
    assert by_rest["valid"] is by_grpc["valid"] is True
    label = by_rest["classes"][0]
    assert label == by_grpc["classes"][0].decode()
    assert label in LABELS
    assert by_rest["scores"] == pytest.approx(by_grpc["scores"], abs=1e-5)
    assert f'"{label}"' in answer
    if "stand-in" not in small_server.output:  # which has no metrics
        assert "# TYPE :tensorflow:serving:request_count counter" in run(["bash", "-c", shell[2]])
