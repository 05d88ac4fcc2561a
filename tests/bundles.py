"""Bundles: made of nothing, asked by their self-test, searched for what they must not tell."""

import pathlib
import subprocess
import sys
import tempfile

from keras_lightnets.export import bundle

FILES = ("saved_model.pb", "variables/variables.index", "assets.extra/ä b.txt")


def publish(model_dir, version):
    """Publishes `FILES`, of no use to a server, as a version."""
    with bundle.staging(model_dir) as staged:
        for name in FILES:
            (staged / name).parent.mkdir(exist_ok=True)
            (staged / name).write_bytes(name.encode() * 100)
        bundle.publish(staged, model_dir / str(version))
    return model_dir / str(version)


def selftest(folder, url, *arguments):
    """Runs a script without this package in sight; returns exit code, output, complaints."""
    command = [sys.executable, "-I", "-S", folder / "selftest.py", url, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr


def traces(folder):
    """Files below `folder` that tell where they were made."""
    places = {tempfile.gettempdir(), pathlib.Path.home(), pathlib.Path.cwd(), sys.prefix}
    # With what lies below: a container has a /tmp of its own.
    places = [f"{place}/".encode() for place in places]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(place in path.read_bytes() for place in places)]
