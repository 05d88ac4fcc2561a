"""A damaged checkpoint gives way to an older one or is refused by name; never a start from zero."""

import pathlib
import resource
import shutil

import pytest
import tensorflow as tf

from lightnets.run.checkpoint import Checkpoints, HostState
from lightnets.support.errors import UserError


def make(folder, value=0.0, keep=3):
    variable = tf.Variable(tf.fill((100,), value))
    return variable, Checkpoints(folder, {"model": [variable]}, {"rows": []}, keep=keep)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 1, 2 and 3, each holding its step."""
    variable, checkpoints = make(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        variable.assign(tf.fill((100,), float(step)))
        checkpoints._host["rows"].append(step)
        checkpoints.save(step)
    return tmp_path / "checkpoints"


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def delete(path: pathlib.Path) -> None:
    path.unlink()


def names(*steps):
    files = ("ckpt-{}.index", "ckpt-{}.data-00000-of-00001")
    return [file.format(step) for step in steps for file in files]


@pytest.mark.parametrize("damage", [truncate, empty, flip, delete])
@pytest.mark.parametrize("name", [*names(1, 2, 3), "checkpoint"])
def test_one_damaged_file(folder, name, damage):
    # Catches `latest_checkpoint`, which finds nothing without the file `checkpoint`.
    damage(folder / name)
    variable, checkpoints = make(folder, -1.0)
    step, problems = checkpoints.restore()
    newest = 2 if name.startswith("ckpt-3") else 3
    assert step == newest
    assert variable.numpy().tolist() == [float(newest)] * 100
    assert checkpoints._host["rows"] == list(range(1, newest + 1))
    assert len(problems) == (newest == 2)
    assert all("ckpt-3" in problem for problem in problems)
    # The run goes on from there: what it writes next is read next, and old ones go.
    variable.assign(tf.fill((100,), 4.0))
    checkpoints.save(4)
    assert checkpoints.steps() == [2, 3, 4]
    assert make(folder)[1].restore()[0] == 4


@pytest.mark.parametrize("damage", [truncate, empty, flip, delete])
def test_all_damaged_is_refused_by_name(folder, damage):
    for name in names(1, 2, 3)[1::2]:
        damage(folder / name)
    with pytest.raises(UserError, match=r"No checkpoint .* can be read.*ckpt-3\.data.*ckpt-1\."):
        make(folder)[1].restore()


def test_only_the_state_file_left_is_refused(folder):
    for name in names(1, 2, 3):
        delete(folder / name)
    with pytest.raises(UserError, match="holds checkpoint but no checkpoint"):
        make(folder)[1].restore()


def test_without_any_checkpoint_the_run_is_new(tmp_path):
    assert make(tmp_path / "none")[1].restore() == (None, [])


def test_another_network_is_refused(folder):
    other = Checkpoints(folder, {"model": [tf.Variable([1.0, 2.0])]}, {}, keep=3)
    with pytest.raises(UserError, match=r"ckpt-3\.index does not fit this run"):
        other.restore()


def test_remains_of_a_killed_write_are_cleared(folder):
    (folder / "ckpt-4_temp").mkdir()
    (folder / "ckpt-4_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    _, checkpoints = make(folder)
    assert checkpoints.restore() == (3, [])
    checkpoints.save(4)
    assert not (folder / "ckpt-4_temp").exists()


def test_a_first_write_that_was_killed_leaves_a_new_run(tmp_path):
    (tmp_path / "ckpt-1_temp").mkdir()
    _, checkpoints = make(tmp_path)
    assert checkpoints.restore() == (None, [])
    checkpoints.save(1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", *sorted(names(1))]


@pytest.mark.parametrize("name", ["exp[1]", "a*c", "a?c", "back\\slash", "line\nbreak", "end "])
def test_the_name_of_a_folder_is_no_pattern(tmp_path, name):
    """Caught: a name that fits no file, and one that fits the files of another run."""
    beside, others = make(tmp_path / "abc", 9.0)
    for step in (1, 2):
        others.save(step)
    for step, value in ((1, 1.0), (2, 2.0), (3, 3.0)):
        _, checkpoints = make(tmp_path / name, value, keep=1)
        checkpoints.save(step)
        assert checkpoints.steps() == [step]
    variable, checkpoints = make(tmp_path / name)
    assert checkpoints.restore() == (3, [])
    assert variable.numpy()[0] == 3.0
    assert others.steps() == [1, 2]
    assert others.restore() == (2, [])
    assert beside.numpy()[0] == 9.0
    flip(tmp_path / name / "ckpt-3.data-00000-of-00001")
    with pytest.raises(UserError, match="is damaged"):
        checkpoints.restore()


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path):
    variable = tf.Variable(tf.fill((100,), 7.0))
    host = HostState({"rows": [1]})
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=[variable], host=host),
        str(tmp_path),
        max_to_keep=3,
        checkpoint_name="ckpt",
    )
    manager.save(checkpoint_number=5)
    variable, checkpoints = make(tmp_path)
    assert checkpoints.restore() == (5, [])
    assert variable.numpy()[0] == 7.0


def test_a_full_disk_is_named_and_the_last_good_checkpoint_stays(folder):
    """The file size limit stands in for the full disk: the write fails halfway just the same."""
    variable = tf.Variable(tf.ones((100_000,)))
    checkpoints = Checkpoints(folder / "big", {"model": [variable]}, {}, keep=3)
    checkpoints.save(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"Cannot write the checkpoint of step 2.*step 1 is"):
            checkpoints.save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints.steps() == [1]
    assert checkpoints.restore() == (1, [])
    checkpoints.save(2)  # there is room again
    assert checkpoints.steps() == [1, 2]


def test_no_space_left_on_the_device_is_said_in_plain_words(monkeypatch, folder):
    _, checkpoints = make(folder)

    def write(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", write)
    with pytest.raises(UserError, match=r"the disk is full.*step 3 is intact.*Make room"):
        checkpoints.save(4)
    assert shutil.disk_usage(folder).free
