"""Versions appear whole or not at all."""

import os
import platform
import signal
import subprocess
import sys

import pytest

from keras_lightnets.catalogue import class_names
from keras_lightnets.errors import ExportError
from keras_lightnets.export import bundle


def test_versions_count_up_and_ignore_what_is_no_version(tmp_path):
    assert bundle.choose_version([tmp_path / "none"], None) == 1
    for name in ("1", "10", "2", "old", ".incoming-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "99").write_text("a file is no version")
    assert list(bundle.versions(tmp_path)) == [1, 2, 10]
    assert bundle.choose_version([tmp_path], None) == 11


@pytest.mark.parametrize("version", [0, -1, 2**63, 10**40, 2.5, "2"])
def test_versions_that_no_server_loads(tmp_path, version):
    with pytest.raises(ExportError, match="whole number from 1 to 9223372036854775807"):
        bundle.choose_version([tmp_path], version)


def test_there_is_none_after_the_last_version(tmp_path):
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(ExportError, match="whole number from 1 to 9223372036854775807"):
        bundle.choose_version([tmp_path], None)
    assert bundle.choose_version([tmp_path], 5) == 5


def test_a_version_that_somebody_is_writing_is_refused_early(tmp_path):
    # Mutation: the number is not part of the hidden directory's name.
    with bundle.staging(tmp_path, 5):
        with pytest.raises(ExportError, match=f"Another export is writing {tmp_path}/5 right now"):
            bundle.staging(tmp_path, 5).__enter__()
        with bundle.staging(tmp_path, 15), bundle.staging(tmp_path, 6), bundle.staging(tmp_path):
            pass
    with bundle.staging(tmp_path, 5):
        pass


def test_an_error_leaves_nothing_behind(tmp_path):
    def fail():
        with bundle.staging(tmp_path / "a" / "b") as staged:
            (staged / "half").write_text("")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


def test_publishing_is_one_renaming(tmp_path):
    """Caught: a copy, of which a server that watches could load a half."""
    with bundle.staging(tmp_path) as staged:
        (staged / "saved_model.pb").write_text("")
        inode = staged.stat().st_ino
        bundle.publish(staged, tmp_path / "1")
    assert (tmp_path / "1").stat().st_ino == inode


def test_publishing_never_overwrites(tmp_path):
    for content in ("first", "second"):
        with bundle.staging(tmp_path) as staged:
            (staged / "saved_model.pb").write_text(content)
            if content == "first":
                bundle.publish(staged, tmp_path / "1")
            else:
                with pytest.raises(ExportError, match="Cannot publish"):
                    bundle.publish(staged, tmp_path / "1")
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_killed_export_leaves_the_versions_whole_and_the_next_one_tidies_up(tmp_path):
    with bundle.staging(tmp_path) as staged:
        bundle.publish(staged, tmp_path / "1")
    code = (
        "import pathlib, sys, time\nfrom keras_lightnets.export import bundle\n"
        "with bundle.staging(pathlib.Path(sys.argv[1])) as staged:\n"
        "    (staged / 'saved_model.pb').write_text('half')\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(bundle.versions(tmp_path)) == [1]
    assert len(list(tmp_path.glob(".incoming-*"))) == 1
    with bundle.staging(tmp_path):
        assert len(list(tmp_path.glob(".incoming-*"))) == 1  # only the new one
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_what_a_living_process_is_writing_is_left_alone(tmp_path):
    busy = tmp_path / f".incoming-{platform.node()}-{os.getpid()}-0"
    busy.mkdir()
    with bundle.staging(tmp_path):
        pass
    assert busy.exists()


@pytest.mark.parametrize("where", ["2/assets.extra", "formats/3"])
def test_one_name_stands_for_one_model(tmp_path, where):
    (tmp_path / "1").mkdir()
    for parent in (tmp_path / where).parent, tmp_path / where:
        parent.mkdir(exist_ok=True)
    bundle.write_extra(tmp_path / where, ["cat", "dog"], {})
    if where.startswith("formats"):
        (tmp_path / "2").mkdir()  # without a file of names it says nothing
    with pytest.raises(ExportError, match=r"another model of this name.* \(cat, dog; now dog, cat"):
        bundle.check_same_classes(tmp_path, ["dog", "cat"])


def test_class_names_of_any_script_come_back(tmp_path):
    labels = ["fünf", "猫", "a\u2028b", "\x85", " spaced ", "\r", "two\nlines", "\x1b[31m", r"a\nb"]
    bundle.write_extra(tmp_path, labels, {})
    assert class_names.read(tmp_path) == labels
    shown = (tmp_path / "labels.txt").read_text("utf-8").splitlines()
    escaped = [r"a\u2028b", r"\u0085", " spaced ", r"\r", r"two\nlines", r"\x1b[31m", r"a\nb"]
    assert shown == ["fünf", "猫", *escaped]
    # Names that lines can hold need no second file, and none of before is left.
    bundle.write_extra(tmp_path, labels[:2], {})
    assert class_names.read(tmp_path) == labels[:2]
    assert not (tmp_path / "labels.json").exists()


def test_names_that_no_file_or_server_can_hold_are_refused():
    assert class_names.problem(["a\nb", "c"]) is None
    assert class_names.problem(["a", ""]) == "A class has an empty name."
    assert "'caf\\xe9' is not UTF-8" in class_names.problem([os.fsdecode(b"caf\xe9")])
    assert "'a' occurs more than once" in class_names.problem(["a", "b", "a"])


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b"])
def test_names_that_are_no_part_of_a_url(name):
    with pytest.raises(ExportError, match="letters, digits"):
        bundle.check_name(name)
