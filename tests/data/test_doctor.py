"""`lightnets data`: what it finds in real files, and what it leaves on the disk."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from lightnets import cli
from lightnets.config import keys as configuration
from lightnets.data import check as damage
from lightnets.data.load import open_dataset
from lightnets.data.sources import listing
from lightnets.data.sources import tfds as tfds_source
from lightnets.data.sources.digits import Digits
from lightnets.doctor import findings, look_alikes, show
from lightnets.doctor import page as doctor_page


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def photograph(seed):
    """Smooth structure, as photographs have it: what perceptual hashes are made for."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path):
    """train and val of two classes, without a fault."""
    root = tmp_path / "pictures"
    seed = 0
    for split, each in (("train", 4), ("val", 2)):
        for label in ("cat", "<b>dog&"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(each):
                photograph(seed).save(folder / f"{number}.jpg", quality=95)
                seed += 1
    return root


def check(capfd, *arguments):
    """Returns the exit code, the findings, and what reached standard error."""
    capfd.readouterr()
    code = cli.main(["data", "check", *map(str, arguments), "--json"])
    out, err = capfd.readouterr()
    return code, json.loads(out), err


def test_a_clean_set_passes(pictures, capfd):
    code, found, err = check(capfd, pictures)
    assert (code, found["wrong"], found["remarks"], found["remove"]) == (0, [], [], [])
    assert found["splits"]["val"]["classes"] == {"<b>dog&": 2, "cat": 2}
    assert found["splits"]["train"]["formats"] == {"JPEG": 8}
    assert found["splits"]["train"]["median"] == [80, 96]
    assert err == ""


def test_damaged_files_and_files_that_are_no_images(pictures, tmp_path, capfd):
    cat = pictures / "train" / "cat"
    whole = (cat / "0.jpg").read_bytes()
    (cat / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    # libjpeg would print "Unsupported marker type 0x20" to standard error itself.
    (cat / "marker.jpg").write_bytes(whole[:20] + b"\xff\x20\x00\x04ab" + whole[20:])
    (cat / "notes.txt").write_text("not an image")
    (pictures / "train" / "README").write_text("beside the classes, so nobody reads it")
    listed = tmp_path / "remove.txt"
    code, found, err = check(capfd, pictures, "--fix-list", listed)
    assert code == 1
    assert set(found["splits"]["train"]["damaged"]) == {f"{cat}/cut.jpg", f"{cat}/marker.jpg"}
    assert found["splits"]["train"]["no_images"] == [f"{cat}/notes.txt"]
    assert listed.read_text().splitlines() == [
        f"{cat}/{name}" for name in ("cut.jpg", "marker.jpg")
    ]
    assert err == ""


def test_following_the_fix_list_makes_the_set_clean(pictures, tmp_path, capfd):
    """Also: of a copy in both splits the training image goes, not the one to evaluate on."""
    train, val = pictures / "train" / "cat", pictures / "val" / "cat"
    (val / "leak.jpg").write_bytes((train / "0.jpg").read_bytes())
    (train / "again.jpg").write_bytes((train / "1.jpg").read_bytes())
    (train / "empty.png").write_bytes(b"")
    listed = tmp_path / "remove.txt"
    code, found, _ = check(capfd, pictures, "--fix-list", listed)
    assert code == 1
    assert found["copies_across_splits"] == [[f"{train}/0.jpg", f"{val}/leak.jpg"]]
    assert len(found["copies"]) == 2
    removed = listed.read_text().splitlines()
    assert cli.main(["data", "check", str(pictures), "--fix-list", str(listed)]) == 1
    *_, told, remove, following = capfd.readouterr().out.splitlines()
    assert told == f"{listed}: 3 files to remove. Look at them first, then:"
    assert remove == f"  xargs -d '\\n' rm -- < {listed}"
    assert following == f"Next: lightnets data check {pictures}"
    assert f"{train}/0.jpg" in removed
    assert f"{val}/leak.jpg" not in removed
    subprocess.run(remove, shell=True, check=True)
    code, found, _ = check(capfd, pictures)
    assert (code, found["wrong"]) == (0, [])


def test_the_list_holds_no_sound_picture_whatever_its_format(pictures, tmp_path, capfd):
    """Caught: iPhone pictures, TIFFs and missing files on a list that is piped into `rm`."""
    cat = pictures / "train" / "cat"
    photograph(90).save(cat / "scan.tiff")
    photograph(91).save(cat / "called.jpg", "TIFF")
    photograph(92).quantize(9).save(cat / "bits4.bmp", bits=4)
    (cat / "drawing.jpg").write_bytes(b"8BPS\0\1 another program's picture")
    (cat / "phone.jxl").write_bytes(b"\xff\x0a")
    (cat / "zeros.jpg").write_bytes(bytes(900))
    broken = cat / "line\nbreak \udce9.jpg"
    broken.write_bytes((cat / "0.jpg").read_bytes()[:999])
    listed = tmp_path / "remove"
    arguments = ["data", "check", str(pictures), "--fix-list", str(listed)]
    assert cli.main(arguments) == 1
    assert "has a line break. Add --null" in capfd.readouterr().err
    assert not listed.exists()
    code, found, _ = check(capfd, pictures, "--fix-list", listed, "--null")
    assert code == 1
    assert found["splits"]["train"]["formats"]["TIFF"] == 2
    assert any("JPEG XL (1): " in line and "save them as PNG" in line for line in found["remarks"])
    before = set(cat.iterdir())
    subprocess.run(["xargs", "-0", "-r", "rm", "--"], input=listed.read_bytes(), check=True)
    assert before - set(cat.iterdir()) == {broken, cat / "zeros.jpg"}


def test_how_a_network_sees_the_pictures_is_remarked(pictures, capfd):
    cat = pictures / "train" / "cat"
    outlines = np.zeros((80, 96, 4), np.uint8)
    outlines[20:40, 30:60, 3] = 255
    Image.fromarray(outlines).save(cat / "outlines.png")
    photograph(93).convert("RGBA").save(cat / "opaque.png")
    twelve = np.random.default_rng(1).integers(0, 2**12, (80, 96), np.uint16)
    Image.fromarray(twelve).save(cat / "twelve.png")
    Image.fromarray(twelve * 16).save(cat / "sixteen.png")
    photograph(94).resize((400, 100)).save(cat / "wide.jpg")
    code, found, _ = check(capfd, pictures)
    assert (code, found["wrong"]) == (0, [])
    train = found["splits"]["train"]
    assert train["transparent"] == [f"{cat}/outlines.png"]
    assert train["dark_16_bit"] == {f"{cat}/twelve.png": twelve.max()}
    assert train["wide"] == {f"{cat}/wide.jpg": 0.81}
    assert train["cut_off"] == {"median": 0.36, "most": 0.81, "file": f"{cat}/wide.jpg"}
    text = "\n".join(found["remarks"])
    for part in ("data.background", "data.scale_16_bit", "up to 81%; a network sees all of each"):
        assert part in text
    assert f"--resize pad: {cat}/wide.jpg" in text
    assert findings.table(found)[1][0][-2] == "36%, at most 81%"


def test_pictures_of_one_shape_are_advised_a_network_of_that_shape(tmp_path, capfd):
    for number in range(4):
        path = tmp_path / "strips" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).resize((640, 120 + number)).save(path)
    _, found, _ = check(capfd, tmp_path / "strips")
    assert "sees all of each with --resize pad --image-size 96x512: " in "".join(found["remarks"])


def test_a_command_of_data_is_found_and_takes_what_messages_advise(pictures, capfd):
    assert cli.main(["check", str(pictures)]) == 2
    assert "Did you mean 'data check'?" in capfd.readouterr().err
    code, _, _ = check(capfd, pictures, "--download", "--set", "data.eval_split=val")
    assert code == 0


def test_copies_with_different_labels_are_left_to_a_person(pictures, capfd):
    train = pictures / "train"
    (train / "cat" / "x.jpg").write_bytes((train / "<b>dog&" / "0.jpg").read_bytes())
    code, found, _ = check(capfd, pictures)
    assert code == 1
    assert len(found["copies_with_different_labels"]) == 1
    assert found["remove"] == []
    assert cli.main(["data", "check", str(pictures)]) == 1
    last = capfd.readouterr().out.splitlines()[-1]
    assert last == f"When it is mended: lightnets data check {pictures}"


def test_near_copies_and_wrong_extensions_are_remarks(pictures, capfd):
    train, val = pictures / "train" / "cat", pictures / "val" / "cat"
    with Image.open(train / "0.jpg") as image:
        image.resize((60, 50)).save(val / "small.png")
    with Image.open(train / "1.jpg") as image:
        image.save(val / "really.png", "WEBP", quality=60)
    code, found, _ = check(capfd, pictures)
    assert (code, found["wrong"]) == (0, [])
    assert sorted(found["near_copies_across_splits"]) == [
        [f"{train}/0.jpg", f"{val}/small.png"],
        [f"{train}/1.jpg", f"{val}/really.png"],
    ]
    assert found["splits"]["val"]["misnamed"] == {f"{val}/really.png": "WebP"}


def test_classes_that_differ_and_classes_without_images(pictures, capfd):
    (pictures / "val" / "cat").rename(pictures / "val" / "cats")
    (pictures / "train" / "bird").mkdir()
    (pictures / "train" / "bird" / "phone.jxl").write_bytes(b"")
    (pictures / "train" / "new folder").mkdir()
    code, found, _ = check(capfd, pictures)
    assert code == 1
    assert found["class_names_that_differ"] == {"train": ["cats"], "val": ["bird", "cat"]}
    assert found["splits"]["train"]["empty_classes"] == ["bird"]
    assert set(found["left_over"].values()) == {"JPEG XL", "a folder without pictures"}


def test_a_tfds_set_and_a_list_with_a_missing_file(tmp_path, pictures, capfd):
    code, found, _ = check(capfd, "digits", "--data-dir", tmp_path / "tfds")
    assert (code, found["splits"]["test"]["images"]) == (0, 360)
    cat = pictures / "train" / "cat"
    (tmp_path / "list.csv").write_text(f"path,label\n{cat}/0.jpg,a\n{cat}/gone.jpg,a\n")
    code, found, _ = check(capfd, tmp_path / "list.csv")
    assert code == 1
    assert found["splits"]["train"]["damaged"] == {f"{cat}/gone.jpg": "there is no such file"}


def test_a_run_remembers_the_check_of_tfrecord_files(tmp_path, capfd, monkeypatch):
    """Of a large set it reads train[:80%] and train[80%:], where the check reads train."""

    class OneSplit(Digits):
        name = "one_split"

        def _split_generators(self, dl_manager):
            return {"train": super()._split_generators(dl_manager)["test"]}

    builder = OneSplit(data_dir=str(tmp_path), file_format="tfrecord")
    with tfds_source.quiet():
        builder.download_and_prepare()
    for limit in (359, 360):
        monkeypatch.setattr(listing, "UNASKED_LIMIT", limit)
        opened = open_dataset(open_config(builder.data_path))
        parts = [opened.train, opened.evaluation] if limit < 360 else [opened.train]
        assert [damage.remembered(part) for part in parts] == [None] * len(parts)
        assert check(capfd, builder.data_path)[0] == 0
        assert [damage.remembered(part) for part in parts] == [{}] * len(parts)


def test_the_table_counts_in_grammar(pictures, capfd):
    (pictures / "train" / "cat" / "bad.gif").write_bytes(b"no")
    assert cli.main(["data", "check", str(pictures)]) == 1
    out = capfd.readouterr().out
    assert "\n13 images: 1 finding\n" in out
    assert f"  {pictures}/train/cat/bad.gif: it is no image of a known format\n" in out


def test_what_is_shown_stays_short_however_much_there_is(tmp_path, capfd):
    """Caught: thousands of lines on a screen, and a page of tens of megabytes."""
    cat, dog = tmp_path / "pictures" / "cat", tmp_path / "pictures" / "dog"
    cat.mkdir(parents=True)
    dog.mkdir()
    photograph(0).save(cat / "first.jpg")
    for number in range(300):
        (cat / f"{number}.jpg").write_bytes((cat / "first.jpg").read_bytes())
    for number in range(45):
        (dog / f"{number}.jpg").write_bytes(b"\xff\xd8\xff no picture")
    page = tmp_path / "page.html"
    code, found, _ = check(capfd, tmp_path / "pictures", "--page", page)
    assert (code, len(found["splits"]["train"]["damaged"])) == (1, 45)
    assert [len(group) for group in found["copies"]] == [301]
    assert len(found["wrong"]) == 46
    text = page.read_text()
    assert text.count("<img") == 8 + 6  # of the group, of the class
    assert "And 293 more images." in text
    assert "Shown: 14 pictures." in text
    assert text.count("it is damaged or cut off") == 20
    assert cli.main(["data", "check", str(tmp_path / "pictures")]) == 1
    out = capfd.readouterr().out
    assert out.count("it is damaged or cut off") == 20
    assert "... damaged: 25 more (--json names all)" in out
    assert re.search(r"The same file: (\S+, ){4}\S+ and 296 more\n", out)
    assert "\n346 images: 46 findings\n" in out


def test_the_pictures_of_a_page_are_shared_by_all_classes(tmp_path, capfd, monkeypatch):
    """Caught: six for each of the first classes, and none for the others."""
    monkeypatch.setattr(doctor_page, "_PICTURES", 12)
    for seed in range(40):
        folder = tmp_path / "pictures" / f"class{seed // 4:02}"
        folder.mkdir(parents=True, exist_ok=True)
        photograph(seed).save(folder / f"{seed}.jpg")
    shutil.copy(folder / "39.jpg", folder / "again.jpg")
    page = tmp_path / "page.html"
    assert check(capfd, tmp_path / "pictures", "--page", page)[0] == 1
    text = page.read_text()
    assert text.count("<img") == 2 + 10
    assert "Shown: 12 pictures." in text


def test_bands_find_all_hashes_that_are_near():
    """Against comparing each with each; catches a band that is left out."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 2**64, 200, np.uint64)
    flips = random.integers(0, 64, (200, look_alikes.DISTANCE)).astype(np.uint64)
    others = codes.copy()
    for column in flips.T:
        others ^= np.uint64(1) << column
    groups = look_alikes.groups(np.concatenate([codes, others]))
    assert sorted(groups) == [[place, place + 200] for place in range(200)]


def open_config(dataset, **data):
    values = {"dataset": str(dataset), "resize_shorter": 32} | data
    return configuration.from_dict({"data": values, "model": {"image_size": 32}})


@pytest.mark.slow
def test_equal_hashes_are_not_compared_in_pairs():
    """Caught: hours for a folder of copies that a program has saved anew."""
    codes = np.random.default_rng(0).integers(0, 2**63, 20_000, np.uint64)
    codes[:15_000] = codes[0]
    codes[15_000] = codes[0] ^ np.uint64(0b1011)
    real, calls = np.bitwise_count, []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(np, "bitwise_count", lambda array: calls.append(len(array)) or real(array))
        groups = look_alikes.groups(codes)
    assert groups == [list(range(15_001))]
    assert sum(calls) < 10 * len(codes)


def test_shown_are_the_same_images_changed_anew_in_each_epoch(pictures):
    """Catches a key that does not depend on the epoch, and rows that change places."""
    config = open_config(pictures, crop="center", flip=True)
    pixels, labels, names = show.views(config, images=4, epochs=6, augment=True)
    assert pixels.shape == (4, 6, 32, 32, 3)
    plain, plain_labels, _ = show.views(config, images=4, epochs=1, augment=False)
    for row in range(4):
        for column in range(6):
            straight = np.array_equal(pixels[row, column], plain[row, 0])
            assert straight or np.array_equal(pixels[row, column], plain[row, 0, :, ::-1])
            np.testing.assert_array_equal(labels[row, column], plain_labels[row, 0])
        assert names[labels[row, 0].argmax()] == ["<b>dog&", "cat"][row // 2]
    assert any(
        not np.array_equal(pixels[row, 0], pixels[row, column])
        for row in range(4)
        for column in range(6)
    )


def test_the_grid_is_written(pictures, tmp_path, capfd):
    out = tmp_path / "grid.png"
    flags = ["--image-size", "32", "--set", "data.mixup=0.4", "--images", "2", "--columns", "2"]
    assert cli.main(["data", "show", str(pictures), "--augment", "--out", str(out), *flags]) == 0
    with Image.open(out) as grid:
        assert grid.size[0] > 200
    assert cli.main(["data", "show", str(pictures), "--images", "0"]) == 2
    assert "--images and --columns must be 1 to 64" in capfd.readouterr().err
    victim = next((pictures / "train" / "cat").iterdir())
    victim.write_bytes(victim.read_bytes()[:60])
    assert cli.main(["data", "show", str(pictures), "--out", str(out), *flags[:2]]) == 1
    assert f"({victim}: it is damaged or cut off)" in capfd.readouterr().err


def test_not_every_damaged_image_of_a_grid_is_listed(tmp_path, capfd):
    """Caught: a line for each of 64."""
    for number in range(40):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no")
    arguments = ["data", "show", tmp_path / "pictures", "--images", "40", "--image-size", "32"]
    assert cli.main(list(map(str, arguments))) == 1
    err = capfd.readouterr().err
    assert err.count(".jpg: it is no image of a known format") == 10
    assert "images of" in err
    assert re.search(r"; and \d+ more\)\. See lightnets data check", err)
    assert err.count("\n") == 1


def test_a_mixed_image_names_both_classes():
    names = ["a$b$", "c"]
    assert show.caption(np.array([0.7, 0.3]), names) == "70% a$b$ + 30% c"
    assert show.caption(np.array([1.0, 0.0]), names) == "a$b$"
