"""Data sets of TensorFlow Datasets as people have them: real builders, written into a folder."""

import dataclasses
import hashlib
import http.server
import io
import json
import re
import threading

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import lightnets.data
from lightnets import cli
from lightnets.config import keys as configuration
from lightnets.data import failures
from lightnets.data.sources import tfds as tfds_source
from lightnets.support.errors import UserError
from tests.processes import free_ports

features = tfds.features


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def jpeg(number):
    """Returns an open file of a picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((40 + number % 7, 30)).save(file, "JPEG")
    file.seek(0)
    return file


def prepare(root, spec, splits, example, *, kind, name="things", configs=(), supervised=None):
    """Prepares a data set below `root`.

    Args:
        spec: Feature by name.
        splits: Number of examples by split.
        example: Split and number to an example.
        kind: File format.
        configs: Names of its configurations; the first is prepared.
        supervised: Names of the features to train on.
    """

    class Things(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config) for config in configs]  # noqa: RUF012
        pkg_dir_path = None

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description="For tests.",
                features=features.FeaturesDict(spec),
                supervised_keys=supervised,
            )

        def _split_generators(self, dl_manager):
            return {split: self._examples(split, count) for split, count in splits.items()}

        def _examples(self, split, count):
            for number in range(count):
                yield number, example(split, number)

        def _generate_examples(self):  # TFDS wants it; the splits above are generators already
            raise NotImplementedError

    Things.name = name
    options = {"config": configs[0]} if configs else {}
    builder = Things(data_dir=str(root), file_format=kind, **options)
    with tfds_source.quiet():
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=min(3, *splits.values()))
        )


def labelled():
    return {"image": features.Image(), "label": features.ClassLabel(names=["b", "a"])}


FIRST = {"train": 0, "validation": 1000, "test": 2000}


def detections(root):
    """Like a set for detection: boxes, names, and a test split without labels."""

    def example(split, number):
        return {
            "bbox": features.BBox(0.0, 0.0, 1.0, 0.5),
            "objects": [{"area": number}] * (number % 3),
            "file_name": f"{split}/{number}.jpg",
            "image": jpeg(FIRST[split] + number),
            "label": -1 if split == "test" else number % 2,
        }

    extra = {
        "bbox": features.BBoxFeature(),
        "objects": features.Sequence({"area": np.int64}),
        "file_name": features.Text(),
    }
    prepare(
        root,
        extra | labelled(),
        {"train": 24, "validation": 8, "test": 4},
        example,
        kind="tfrecord",
    )
    return "things", {"train": 24, "validation": 8, "test": 4}


def configured(root):
    """ArrayRecord, with a configuration and a version in its name."""
    prepare(
        root,
        labelled(),
        {"train": 24, "test": 8},
        lambda split, number: {"image": jpeg(FIRST[split] + number), "label": number % 2},
        kind="array_record",
        configs=("small", "large"),
    )
    return "things/small:1.0.0", {"train": 24, "test": 8}


def other_names(root):
    """Other keys, a mask before the picture, and one split only."""
    spec = {
        "fine": features.ClassLabel(names=["x", "y"]),
        "coarse": features.ClassLabel(names=["z"]),
        "a_mask": features.Image(shape=(None, None, 1)),
        "picture": features.Image(),
    }
    mask = np.zeros((30, 40, 1), np.uint8)
    prepare(
        root,
        spec,
        {"train": 24},
        lambda _, number: {
            "picture": jpeg(number),
            "a_mask": mask,
            "fine": number % 2,
            "coarse": 0,
        },
        kind="tfrecord",
        supervised=("picture", "fine"),
    )
    return "things", {"train": 24}


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(other_names, marks=pytest.mark.slow),
        *(pytest.param(build, marks=pytest.mark.nightly) for build in (configured, detections)),
    ],
)
def test_checked_shown_and_trained(build, tmp_path, capfd):
    """Caught: masks instead of pictures, unlabelled splits called wrong or left behind."""
    name, counts = build(tmp_path / "tfds")
    where = ["--data-dir", str(tmp_path / "tfds")]

    def lightnets(*arguments):
        capfd.readouterr()
        code = cli.main(list(map(str, arguments)))
        out, err = capfd.readouterr()
        assert (code, err) == (0, ""), err
        return out

    found = json.loads(lightnets("data", "check", name, *where, "--json"))
    assert {split: what["images"] for split, what in found["splits"].items()} == counts
    assert {*found["splits"]["train"]["formats"]} == {"JPEG"}
    assert sorted(found["splits"]["train"]["classes"].values()) == [12, 12]
    grid = tmp_path / "grid.png"
    lightnets("data", "show", name, *where, "--image-size", "32", "--images", "2", "--out", grid)
    assert grid.is_file()
    run = tmp_path / "run"
    flags = ["--image-size", "32", "--epochs", "1", "--batch-size", "8", "--out", run]
    flags += ["--model", "mobilenet_v2_trunc_x0_25", "--recipe", "scratch-small"]
    described = "2 classes: " + ", ".join(found["splits"]["train"]["classes"])
    assert described in lightnets("train", "--dataset", name, *where, *flags)
    trained = json.loads((run / "results.json").read_text())
    evaluated = json.loads(lightnets("evaluate", run, "--json"))
    assert evaluated["images"] == (8 if len(counts) > 1 else 4)
    assert evaluated["accuracy"] == trained["accuracy"]


def load(root, name="things", saved=None, seed=0, **data):
    values = {"dataset": name, "data_dir": str(root), "resize_shorter": 32} | data
    sections = {"model": {"image_size": 32}, "data": values, "train": {"seed": seed}}
    return lightnets.data.load(configuration.from_dict(sections), saved)


def contents(batches):
    """Returns a digest of each batch."""
    return [
        hashlib.sha256(b"".join(part.tobytes() for part in batch)).hexdigest()
        for batch in batches.as_numpy_iterator()
    ]


@pytest.mark.nightly
def test_a_tfrecord_set_of_one_split_is_split_like_a_folder(tmp_path):
    """Caught: the last records held out, whatever their classes; a split that a resume forgets."""
    root = tmp_path / "tfds"
    prepare(
        root,
        labelled(),
        {"train": 60},
        lambda _, number: {"image": jpeg(number), "label": number // 40},
        kind="tfrecord",
    )
    splits = load(root, val_split=0.25, crop="random_resized")
    assert "shuffled parts" in splits.order
    assert np.bincount(splits.eval_source.read_labels()).tolist() == [10, 5]
    assert np.bincount(splits.train_source.read_labels()).tolist() == [30, 15]
    whole = contents(splits.train(global_batch=8).take(12))
    held_out = contents(splits.evaluation(4))
    splits.save(tmp_path)

    again = load(root, val_split=0.25, crop="random_resized")
    assert contents(again.train(global_batch=8).take(12)) == whole
    assert contents(again.evaluation(4)) == held_out
    # Resumed in the first and in a later epoch; the file decides what is held out.
    resumed = load(root, saved=tmp_path, val_split=0.1, crop="random_resized")
    for start in (2, 7):
        assert contents(resumed.train(start, global_batch=8).take(12 - start)) == whole[start:]
    assert contents(resumed.evaluation(4)) == held_out
    other = load(root, val_split=0.25, seed=1)
    assert contents(other.evaluation(4)) != held_out
    # Nothing is in both parts, nothing is lost.
    parts = [
        {source.contents(place).numpy() for place in range(source.count)}
        for source in (splits.train_source, splits.eval_source)
    ]
    assert [len(part) for part in parts] == [45, 15]
    assert len(parts[0] | parts[1]) == 60
    check_that_a_damaged_record_is_named(splits)


def check_that_a_damaged_record_is_named(splits):
    """Caught: the name of the record at the same place of the whole set."""
    train = splits.train_source
    victim = train.contents(20)

    def open_damaged(record):
        contents, label = train.open(record)
        return tf.where(contents == victim, b"no picture", contents), label

    damaged = dataclasses.replace(train, open=open_damaged)
    named = re.escape(f"1 image of things cannot be read ({train.name(20)}: it is no image")
    with (
        pytest.raises(UserError, match=named),
        failures.explain(
            dataclasses.replace(splits, train_source=damaged),
            global_batch=8,
            steps=lambda: range(12),
        ),
    ):
        raise tf.errors.DataLossError(None, None, "of the step")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"image": features.Image(), "text": features.Text()}, r"no set of images with a class"),
        (
            {"image": features.Image(), "label": features.Sequence(features.ClassLabel(names="a"))},
            r"no set of images with a class each. It has: .*label \(Sequence\)",
        ),
        (
            labelled() | {"image": features.Image(shape=(8, 8, 1), dtype=np.float32)},
            r"images of things are of float32, only uint8 and uint16",
        ),
        (
            {"image": features.Image(), **{key: features.ClassLabel(names=["a"]) for key in "xy"}},
            r"several labels for each example \(x, y\) .*CSV list",
        ),
    ],
)
def test_a_set_that_cannot_be_classified_is_one_line(tmp_path, spec, message):
    filled = {"text": "", "label": [0], "x": 0, "y": 0}

    def example(_, number):
        image = jpeg(number)
        if getattr(spec["image"], "dtype", None) == np.float32:
            return {"image": np.zeros((8, 8, 1), np.float32), "label": 0}
        return {"image": image} | {key: filled[key] for key in spec if key != "image"}

    prepare(tmp_path, spec, {"train": 4}, example, kind="tfrecord")
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_split_without_labels_is_not_trained_or_evaluated_on(tmp_path):
    detections(tmp_path)
    assert load(tmp_path).eval_examples == 8
    with pytest.raises(UserError, match=r"test\[0\] has no label, so this split can be neither"):
        load(tmp_path, eval_split="test")


def test_another_configuration_or_version_names_those_there_are(tmp_path):
    configured(tmp_path)
    for name in ("things/large", "things/small:2.0.0"):
        with pytest.raises(UserError, match=r"is not prepared in .*There are: things/small/1.0.0"):
            load(tmp_path, name)


class Downloaded(tfds.core.GeneratorBasedBuilder):
    """A set whose file is downloaded from `url`."""

    VERSION = tfds.core.Version("1.0.0")
    url = ""
    url_infos = {}  # noqa: RUF012

    def _info(self):
        spec = {"image": features.Image(), "label": features.ClassLabel(names=["a", "b"])}
        return tfds.core.DatasetInfo(builder=self, features=features.FeaturesDict(spec))

    def _split_generators(self, dl_manager):
        dl_manager.download(self.url)
        raise AssertionError("the download was taken")

    def _generate_examples(self):
        yield from ()


def download(root, url, monkeypatch):
    """Trains on `Downloaded` from `url`; returns the error."""
    info = tfds.download.checksums.UrlInfo(size=5, checksum="0" * 64, filename="file")
    monkeypatch.setattr(Downloaded, "url", url)
    monkeypatch.setattr(Downloaded, "url_infos", {url: info})
    data = {"dataset": "downloaded", "data_dir": str(root), "download": True}
    with pytest.raises(UserError) as raised:
        lightnets.data.load(configuration.from_dict({"data": data}))
    return str(raised.value)


def test_a_server_that_cannot_be_reached_ends_a_download_at_once(tmp_path, monkeypatch):
    (port,) = free_ports(1)
    message = download(tmp_path, f"http://127.0.0.1:{port}/file", monkeypatch)
    assert message.startswith(
        f"downloaded cannot be downloaded: 127.0.0.1:{port} cannot be reached ("
    )
    assert "--data-dir" in message
    assert "\n" not in message


class Greeting(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(405)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


def test_a_download_of_other_contents_is_one_line(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Greeting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/file"
        message = download(tmp_path, url, monkeypatch)
        server.shutdown()
        thread.join()
    assert message.startswith("TFDS could not prepare downloaded (NonMatchingChecksumError): ")
    assert "\n" not in message
