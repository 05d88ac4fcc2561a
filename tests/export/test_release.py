"""`lightnets release`: a canary, its promotion and the way back, for a server that runs."""

import contextlib
import json
import re
import shutil
import threading
import time
import urllib.request

import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.export import models_config
from lightnets.cli import main
from tests.bundles import publish, selftest
from tests.exports import LABELS, SIZE, small_net
from tests.serving_models import serving

FAST = ("--requests", 2)

MINE = """# Ours: ask before you change it. }
model_config_list {
  config {
    name: "other"  # config { name: "m"
    base_path: "/models/other"
  }
  config {
    name: "m"
    base_path: "/elsewhere/m"  # version_labels {}
    # why
    version_labels { key: "old" value: 3 }
    model_platform: "tensorflow"
  }
}
"""


@pytest.fixture
def base(tmp_path):
    for version in (1, 2, 3):
        publish(tmp_path / "m", version)
    (tmp_path / "models.config").write_text(MINE)
    return tmp_path


def release(folder, *arguments):
    return main(["release", str(folder), *map(str, arguments)])


def state(folder, name="m"):
    """The versions and labels of a model."""
    entries = {entry.name: entry for entry in models_config.read(folder / "models.config")}
    policy = entries[name].model_version_policy
    return list(policy.specific.versions), dict(entries[name].version_labels)


def test_each_step_and_back(base, capsys):
    """Other labels stay, and so do their versions; what was stable stays loaded."""
    steps = [
        (("--stable", 1), [1, 3], {"stable": 1}),
        (("--canary", 2), [1, 2, 3], {"stable": 1, "canary": 2}),
        (("--rollback",), [1, 3], {"stable": 1}),
        (("--canary", 2), [1, 2, 3], {"stable": 1, "canary": 2}),
        (("--stable", 2), [1, 2, 3], {"stable": 2, "previous": 1}),
        (("--canary", 3), [1, 2, 3], {"stable": 2, "previous": 1, "canary": 3}),
        (("--rollback",), [1, 2, 3], {"stable": 2, "previous": 1}),
        (("--rollback",), [1, 3], {"stable": 1}),
        (("--stable", 3), [1, 3], {"stable": 3, "previous": 1}),
        (("--stable", 1), [1, 3], {"stable": 1, "previous": 3}),
    ]
    for arguments, versions, labels in steps:
        assert release(base, "--model", "m", *arguments) == 0
        out = capsys.readouterr().out
        assert state(base) == (versions, {**labels, "old": 3}), arguments
        assert out.splitlines()[0] == f"--- {base}/models.config"
        assert out.endswith("Clients ask for /v1/models/m/labels/stable\n")
    assert release(base, "--model", "m", "--stable", 1) == 0
    assert capsys.readouterr().out == f"{base}/models.config says so already.\n"
    kept = (base / "models.config").read_text().splitlines()
    assert [line for line in kept if line in MINE.splitlines()] == MINE.splitlines()
    assert state(base, "other") == ([], {})


@pytest.mark.parametrize(
    "text",
    [
        MINE,
        MINE.replace("\n", "\r\n"),
        MINE.replace('name: "m"\n', "name: 'm' model_version_policy { latest {} } "),
        'model_config_list: { config: { name: "m" base_path: "/m/m" } }',
        'model_config_list { config { base_path: "/m/m}" name: "m" version_labels { key: "canary" '
        'value: 2 } logging_config { sampling_config {} } } config { name: "z" } }',
    ],
)
def test_the_entry_is_changed_in_its_place(text):
    # Mutations: braces in comments and strings count; the first entry is always the one; the
    # policy of before stays.
    changed = models_config.with_release(text, "m", {"stable": 1, "canary": 3})
    before = {entry.name: entry for entry in models_config.entries(text)}
    after = {entry.name: entry for entry in models_config.entries(changed)}
    versions = after["m"].model_version_policy.specific.versions
    assert list(versions) == [1, 3]
    assert dict(models_config.released(after["m"])) == {"stable": 1, "canary": 3}
    for entries in (before, after):
        entries["m"].ClearField("model_version_policy")
        for label in models_config.released(entries["m"]):
            del entries["m"].version_labels[label]
    assert before == after
    comments = re.findall("#.*", text)
    assert re.findall("#.*", changed) == comments
    assert models_config.with_release(changed, "m", {"stable": 1, "canary": 3}) == changed


def damage(base):
    (base / "m" / "2" / "saved_model.pb").write_bytes(b"")


@pytest.mark.parametrize(
    ("prepare", "arguments", "code", "words"),
    [
        (None, [], 2, "Name versions, with --stable and --canary, or say --rollback."),
        (None, ["--rollback", "--stable", 1], 2, "Name versions"),
        (None, ["--stable", 0], 2, "--stable: must be 1 to"),
        (None, ["--stable", 1], 1, "has 2 models: choose one of other, m."),
        (None, ["--model", "n", "--stable", 1], 1, "has no model 'n', but other, m."),
        (None, ["--model", "m", "--stable", 4], 1, "/m has no version 4. There: 1, 2, 3."),
        (None, ["--model", "other", "--stable", 1], 1, "/other has no version 1. There: none."),
        (None, ["--model", "m", "--canary", 1], 1, "'m' has no stable version yet: name it, too."),
        (None, ["--model", "m", "--stable", 1, "--canary", 1], 1, "cannot be stable and canary at"),
        (None, ["--model", "m", "--rollback"], 1, "no canary and no previous version to go back"),
        (damage, ["--model", "m", "--stable", 1, "--canary", 2], 1, "2 is not as it was exported"),
        (
            lambda base: release(base, "--model", "m", "--stable", 1),
            ["--model", "m", "--stable", 2],
            1,
            "does not move 'stable' from version 1 to version 2, which it has not loaded: make it "
            "the canary first.",
        ),
        (
            lambda base: release(base, "--model", "m", "--stable", 3, "--canary", 2),
            ["--model", "m", "--canary", 1],
            1,
            "does not move 'canary' from version 2 to version 1, which it has not loaded: take the "
            "canary away first.",
        ),
        (
            lambda base: (base / "models.config").write_text("x {"),
            ["--stable", 1],
            1,
            "models.config is no valid models.config: 1:1 : ",
        ),
        (
            lambda base: (base / "models.config").unlink(),
            ["--stable", 1],
            1,
            "models.config: `lightnets export` writes it.",
        ),
        (
            lambda base: (base / "models.config").write_text(
                'model_config_list { config < name: "m" base_path: "/m/m" > }'
            ),
            ["--stable", 1],
            1,
            "the entry of 'm' cannot be changed in its place; write into it",
        ),
        (shutil.rmtree, ["--stable", 1], 1, "There is no folder "),
    ],
)
def test_what_cannot_be_served_is_refused(base, capsys, prepare, arguments, code, words):
    if prepare:
        prepare(base)
    capsys.readouterr()
    before = {path: path.read_bytes() for path in base.rglob("*.config")}
    assert release(base, *arguments) == code
    out, err = capsys.readouterr()
    assert (out, words in err) == ("", True), err
    assert {path: path.read_bytes() for path in base.rglob("*") if path in before} == before
    assert not list(base.glob(".*"))


class Client:
    """Asks for the stable version without a pause, and notes what failed and who answered."""

    def __init__(self, url):
        self.url, self.failures, self.answers, self._stop = url, [], [], threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self):
        body = json.dumps({"instances": np.zeros((1, *SIZE, 3), int).tolist()}).encode()
        while not self._stop.wait(0.01):
            try:
                with urllib.request.urlopen(f"{self.url}/labels/stable:predict", body) as response:
                    answer = json.load(response)["predictions"][0]["probabilities"]
                self.answers.append(answer[0])
            except OSError as error:
                self.failures.append(str(error))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("no_gate")
def test_the_path_of_an_operator(small_export, tmp_path):
    """Export, pin, canary, promotion and rollback, under load, without one failed request."""
    versions = [small_export[1], tmp_path / "small" / "2"]
    shutil.copytree(versions[0].parent.parent, tmp_path, dirs_exist_ok=True)
    assert release(tmp_path, "--stable", 1) == 0

    model = small_net()
    head = model.get_layer("logits")
    head.set_weights([np.roll(weight, 1, axis=-1) for weight in head.get_weights()])
    options = keras_lightnets.ExportOptions(warmup_batch_sizes=(1,))

    def available(server, version):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                url = f"{server.url}/v1/models/small/versions/{version}"
                if '"AVAILABLE"' in urllib.request.urlopen(url).read().decode():
                    return
            time.sleep(0.02)
        raise AssertionError(server.output)

    def stable_is(server, version):
        url = f"{server.url}/v1/models/small/labels/stable"
        end = time.monotonic() + 60
        while f'"version": "{version}"' not in urllib.request.urlopen(url).read().decode():
            assert time.monotonic() < end
            time.sleep(0.02)

    with (
        serving(tmp_path, "--poll-seconds", 0.05, forked=True) as server,
        Client(f"{server.url}/v1/models/small") as client,
    ):
        notes = []
        keras_lightnets.export_saved_model(
            model, tmp_path, LABELS, options=options, progress=notes.append
        )
        assert notes[-1].endswith("stays at version 1, version 2 is not served.")
        assert state(tmp_path, "small") == ([1], {"stable": 1})
        assert release(tmp_path, "--canary", 2) == 0
        available(server, 2)
        labels = f"{server.url}/v1/models/small/labels"
        assert selftest(versions[1] / "assets.extra", f"{labels}/canary", *FAST)[0] == 0
        assert selftest(versions[0] / "assets.extra", f"{labels}/stable", *FAST)[0] == 0
        assert selftest(versions[0] / "assets.extra", f"{labels}/canary", *FAST)[0] == 1
        assert release(tmp_path, "--stable", 2) == 0
        stable_is(server, 2)
        assert selftest(versions[1] / "assets.extra", f"{labels}/stable", *FAST)[0] == 0
        assert release(tmp_path, "--rollback") == 0
        stable_is(server, 1)
        assert selftest(versions[0] / "assets.extra", f"{labels}/stable", *FAST)[0] == 0
        server.wait_for("model small version 2 is unloaded")
    assert client.failures == []
    changes = [a != b for a, b in zip(client.answers, client.answers[1:], strict=False)]
    assert sum(changes) == 2  # to version 2 and back
