"""Which versions are loaded when, with a loader that only takes notes."""

from __future__ import annotations

import pathlib
import threading
import time

import pytest

from keras_lightnets.export import bundle
from keras_lightnets.serving.server import errors, layout
from keras_lightnets.serving.server.manager import ModelManager, State


class Version:
    def __init__(self, name, version) -> None:
        self.name, self.version, self.closed = name, version, False

    def close(self) -> None:
        self.closed = True


class Loader:
    def __init__(self) -> None:
        self.loaded: list[Version] = []
        self.broken: set[int] = set()

    def __call__(self, name, version, path):
        if version in self.broken:
            raise errors.invalid(f"version {version} is broken")
        self.loaded.append(Version(name, version))
        return self.loaded[-1]


def publish(base: pathlib.Path, version: int) -> None:
    temporary = base / ".new"
    temporary.mkdir(parents=True)
    (temporary / "saved_model.pb").write_bytes(b"x")
    temporary.rename(base / str(version))


@pytest.fixture
def base(tmp_path):
    publish(tmp_path / "m", 1)
    return tmp_path / "m"


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def start(base, loader):
    managers = []

    def start() -> ModelManager:
        manager = ModelManager({"m": base}, loader, poll_interval_s=0.01)
        managers.append(manager)
        manager.start()
        return manager

    yield start
    for manager in managers:
        manager.close()


def eventually(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def states(manager) -> dict[int, State]:
    return {row.version: row.state for row in manager.status("m").model_version_status}


def served(manager, **spec) -> int:
    with manager.acquire("m", **spec) as servable:
        return servable.version


def test_a_new_version_takes_over_and_the_old_one_goes(start, base, loader):
    manager = start()
    assert served(manager) == 1
    publish(base, 2)
    eventually(lambda: served(manager) == 2)
    eventually(lambda: states(manager) == {2: State.AVAILABLE, 1: State.END})
    assert [v.closed for v in loader.loaded] == [True, False]


def test_a_version_in_use_is_not_unloaded(start, base, loader):
    """Caught: closing the session on a switch, which fails the requests in flight."""
    manager = start()
    with manager.acquire("m"):
        publish(base, 2)
        eventually(lambda: served(manager) == 2)
        eventually(lambda: states(manager)[1] == State.UNLOADING)
        assert not loader.loaded[0].closed
    assert loader.loaded[0].closed


def test_a_version_that_is_never_given_back_does_not_stop_the_watch(start, base, loader):
    manager = start()
    with manager.acquire("m"):  # a graph that does not return
        for version in (2, 3):
            publish(base, version)
            eventually(lambda v=version: served(manager) == v)
        eventually(lambda: loader.loaded[1].closed)
        assert states(manager) == {3: State.AVAILABLE, 2: State.END, 1: State.UNLOADING}


def test_there_is_always_a_version_while_versions_change(start, base):
    manager = start()
    failures = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                served(manager)
            except errors.ServingError as error:
                failures.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(2, 8):
        publish(base, version)
        eventually(lambda v=version: states(manager).get(v) == State.AVAILABLE)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_broken_version_is_reported_and_the_old_one_stays(start, base, loader):
    manager = start()
    loader.broken = {2}
    publish(base, 2)
    eventually(lambda: 2 in states(manager) and states(manager)[2] == State.END)
    time.sleep(0.05)  # some more looks
    assert served(manager) == 1
    (row,) = manager.status("m", 2).model_version_status
    assert row.status.error_message == "version 2 is broken"
    loader.broken = set()
    (base / "2" / "late").touch()  # a copy in place goes on
    eventually(lambda: served(manager) == 2)


def test_removing_the_newest_version_goes_back(start, base):
    publish(base, 2)
    manager = start()
    assert served(manager) == 2
    (base / "2").rename(base / ".old")
    eventually(lambda: served(manager) == 1)


def test_removing_every_version_ends_the_service(start, base):
    manager = start()
    (base / "1").rename(base / ".old")
    eventually(lambda: states(manager) == {1: State.END})
    with pytest.raises(errors.ServingError, match=r"Servable not found for request: Latest\(m\)"):
        served(manager)
    (base / ".old").rename(base / "1")
    eventually(lambda: states(manager) == {1: State.AVAILABLE})


def test_a_folder_that_is_away_for_a_moment_takes_nothing_with_it(start, base, loader):
    """Caught: a file system that was not mounted for a second ended the service."""
    manager = start()
    base.rename(base.parent / "away")
    manager._update("m")  # a look
    manager._update("m")
    assert states(manager) == {1: State.AVAILABLE}
    (base.parent / "away").rename(base)
    publish(base, 10)
    eventually(lambda: served(manager) == 10)
    assert [version.version for version in loader.loaded] == [1, 10]


def test_versions_are_numbers_as_tensorflow_serving_reads_them(start, base, loader):
    """Of two folders with one number it takes the last by name."""
    for name in ("00000123", "0122", "122", "v5", "5.tmp", ".6", "-7", "8 ", "\u0663"):
        (base / name).mkdir()
    (base / "200").touch()
    (base / str(2**63)).mkdir()
    (base / ("9" * 20)).mkdir()
    assert bundle.versions(base) == {
        1: base / "1",
        122: base / "122",
        123: base / "00000123",
    }
    manager = start()
    assert served(manager) == 123
    assert states(manager) == {123: State.AVAILABLE}
    (base / "00000123").rename(base / str(2**63 - 1))
    eventually(lambda: served(manager) == 2**63 - 1)


def pin(base, versions, labels=""):
    policy = "".join(f"versions: {version} " for version in versions)
    entry = f'name: "x" base_path: "/models/m" model_version_policy {{ specific {{ {policy}}} }}'
    temporary = base.parent / "new.config"
    temporary.write_text(f"model_config_list {{ config {{ {entry} {labels} }} }}")
    temporary.replace(base.parent / "models.config")


def test_pins_and_labels_of_models_config_are_followed(start, base, loader, caplog):
    # Mutations: the newest version is loaded as well; labels move before their version is there.
    for version in (2, 3):
        publish(base, version)
    pin(base, [1, 2], 'version_labels { key: "stable" value: 1 }')
    manager = start()
    assert states(manager) == {1: State.AVAILABLE, 2: State.AVAILABLE}
    assert (served(manager), served(manager, version="stable")) == (2, 1)
    (row,) = manager.status("m", "stable").model_version_status
    assert row.version == 1
    with pytest.raises(errors.ServingError, match="Unrecognized servable version label: new"):
        served(manager, version="new")
    loader.broken = {3}
    pin(base, [3], 'version_labels { key: "stable" value: 3 }')
    eventually(lambda: 3 in states(manager) and states(manager)[3] == State.END)
    assert served(manager, version="stable") == 1
    loader.broken = set()
    (base / "3" / "late").touch()
    eventually(lambda: served(manager, version="stable") == 3)
    eventually(lambda: states(manager)[1] == states(manager)[2] == State.END)
    (base.parent / "models.config").write_text("model_config_list {")  # half written
    eventually(lambda: "model m stays as it is: " in caplog.text)
    assert served(manager, version="stable") == 3
    (base.parent / "models.config").unlink()
    publish(base, 4)
    eventually(lambda: served(manager) == 4)


def test_a_model_that_cannot_be_loaded_fails_the_start(base, loader):
    loader.broken = {1}
    manager = ModelManager({"m": base}, loader, 0.01)
    with pytest.raises(errors.ServingError, match="version 1 is broken"):
        manager.start()


def test_models_are_found_at_three_levels(tmp_path):
    for path in ("a/one", "a/two", "three"):
        publish(tmp_path / path, 1)
    names = [m.name for m in layout.served_models(tmp_path)]
    assert names == ["one", "two", "three"]
    assert [m.name for m in layout.served_models(tmp_path / "a" / "one")] == ["one"]
    assert [m.name for m in layout.served_models(tmp_path, "two")] == ["two"]


def test_two_models_of_one_name_are_refused(tmp_path):
    publish(tmp_path / "a" / "m", 1)
    publish(tmp_path / "b" / "m", 1)
    with pytest.raises(ValueError, match=r"Two models are called 'm': .*/a/m, .*/b/m"):
        layout.served_models(tmp_path)
