"""`weights=`: every format, published files from a server on loopback, and what goes wrong."""

import dataclasses
import functools
import hashlib
import http.server
import json
import pickle
import socket
import subprocess
import sys
import threading
import types
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.catalogue import imagenet, registry
from keras_lightnets.catalogue.published import WeightsRow
from keras_lightnets.export import saved_model as export
from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.weights import convert
from keras_lightnets.weights import files as weight_files
from keras_lightnets.weights import load as weights
from tests import golden_weights
from tests.checkout import ROOT

# Small enough to be built many times: 0.2 million parameters.
SMALL = {"groups": 1, "alpha": 0.25, "input_shape": (32, 32, 3), "classes": 7}
MADE_BY_PYTORCH = ROOT / "tests/pth"


@pytest.fixture(scope="module")
def small():
    model = keras_lightnets.ShuffleNetV1(**SMALL)
    _randomize(model)
    return model


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")


def _randomize(model):
    rng = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(rng.uniform(0.2, 1.0, variable.shape))


def _pytorch_layout(model):
    """The model's weights as a pytorchcv state dict."""
    slots, _ = convert.tensor_slots(model, "pytorchcv")
    state = {}
    for slot in slots:
        array = np.asarray(slot.variable)
        state[slot.tensor] = array if slot.axes is None else array.transpose(np.argsort(slot.axes))
    return state


def _write_safetensors(path, state):
    header, blob = {}, b""
    for name, array in state.items():
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        offsets = [len(blob), len(blob) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        blob += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob)


def _write_osmr(path, state, groups=1):
    """tf2cv's layout: trainable tensors of all layers, then the moving statistics."""
    layers = {"features": ([], []), "output1": ([], [])}
    for name, array in state.items():
        trainable, moving = layers["output1" if name.startswith("output") else "features"]
        module, _, part = name.rpartition(".")
        prefix = f"net_1/{module.replace('.', '/')}"
        if part == "weight" and array.ndim == 4:
            if array.shape[1:] == (1, 3, 3):
                trainable.append((f"{prefix}/depthwise_kernel:0", array.transpose(2, 3, 0, 1)))
                continue
            kernel = array.transpose(2, 3, 1, 0)
            grouped = groups > 1 and "conv" in module and array.shape[2] == 1
            if not grouped or "stage1.unit1.compress" in module:
                trainable.append((f"{prefix}/kernel:0", kernel))
                continue
            for number, part_kernel in enumerate(np.split(kernel, groups, axis=-1), 1):
                trainable.append((f"{prefix}/convgroup{number}/kernel:0", part_kernel))
        elif part == "weight" and array.ndim == 2:
            trainable.append((f"{prefix}/kernel:0", array.T))
        elif part == "weight":
            trainable.append((f"{prefix}/gamma:0", array))
        elif part == "bias":
            is_norm = f"{module}.running_mean" in state
            trainable.append((f"{prefix}/{'beta' if is_norm else 'bias'}:0", array))
        else:
            last = {"running_mean": "moving_mean", "running_var": "moving_variance"}[part]
            moving.append((f"{prefix}/{last}:0", array))
    h5 = path.with_name("weights.h5")
    with h5py.File(h5, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, (trainable, moving) in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in trainable + moving]
            for name, array in trainable + moving:
                group[name] = array
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(h5, path.stem)
        h5.unlink()
    else:
        h5.rename(path)


@pytest.fixture(params=[".keras", ".weights.h5", ".safetensors", ".tf2.h5", ".tf2.h5.zip"])
def small_file(request, small, tmp_path):
    path = tmp_path / f"small{request.param}"
    if request.param == ".keras":
        small.save(path)
    elif request.param == ".weights.h5":
        small.save_weights(path)
    elif request.param == ".safetensors":
        _write_safetensors(path, _pytorch_layout(small))
    else:
        _write_osmr(path, _pytorch_layout(small))
    return path


def test_file_gives_the_same_predictions(small_file, small, image):
    loaded = keras_lightnets.ShuffleNetV1(**SMALL, weights=small_file)
    np.testing.assert_array_equal(small(image), loaded(image))


@pytest.mark.parametrize(
    "network",
    ["mobilenet_v1_b_x0_25", "mobilenet_v2_trunc_expand_x0_25", "shufflenet_v2_ceil_x0_5"],
)
@pytest.mark.parametrize("include_top", [True, False])
def test_osmr_files_of_other_networks_load(network, include_top, tmp_path):
    # Mutation: layers that the network lacks, as batch norms of `mobilenet_v1_b`, are asked for.
    arguments = {"input_shape": (32, 32, 3), "classes": 5}
    source = keras_lightnets.create_model(network, **arguments)
    _randomize(source)
    _write_osmr(tmp_path / "file.tf2.h5", _pytorch_layout(source))
    model = keras_lightnets.create_model(
        network, weights=tmp_path / "file.tf2.h5", include_top=include_top, **arguments
    )
    for weight in model.weights:
        layer, _, name = weight.path.partition("/")
        expected = next(w for w in source.get_layer(layer).weights if w.name == name)
        np.testing.assert_array_equal(weight, expected)


def test_other_number_of_classes_loads_all_but_the_classifier(small_file, small):
    with pytest.warns(UserWarning, match="everything but the classifier was loaded"):
        loaded = keras_lightnets.ShuffleNetV1(**{**SMALL, "classes": 3}, weights=small_file)
    kernel = loaded.get_layer("logits").kernel
    assert kernel.shape[-1] == 3
    assert np.abs(np.asarray(kernel)).max() < 0.2  # the initial values, not the file's
    for layer in loaded.layers:
        if layer.weights and layer.name != "logits":
            for ours, theirs in zip(
                layer.weights, small.get_layer(layer.name).weights, strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("arguments", [{"include_top": False}, {"features_only": True}])
def test_models_without_top_load_files_with_one(arguments, small_file, small):
    loaded = keras_lightnets.ShuffleNetV1(**SMALL, **arguments, weights=small_file)
    name = "stage4_unit4_expand_bn"
    np.testing.assert_array_equal(
        loaded.get_layer(name).moving_mean, small.get_layer(name).moving_mean
    )


@pytest.mark.parametrize("file", ["zip_format.pth", "legacy_format.pth", "tensors.safetensors"])
def test_files_that_pytorch_wrote_are_read_without_it(file):
    # Written by PyTorch 2.13 and safetensors 0.8: a view, half, bfloat16, integers, a parameter.
    tensors = weight_files.read_state_dict(MADE_BY_PYTORCH / file)
    base = np.arange(24, dtype="float32").reshape(4, 6)
    expected = {
        "a.weight": base,
        "a.view": base.T[1:4],
        "b.half": [1.5, -2.25, 3.0],
        "b.bf16": [1.5, -2.25, 3.0],
        "b.num_batches_tracked": 7,
        "c.param": np.ones((2, 3)),
    }
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_pth_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"weight": Evil()}))
    with pytest.raises(ValueError, match=r"evil.pth cannot be read.*builtins.print"):
        weight_files.read_state_dict(path)


def test_truncated_files_are_refused(small_file):
    data = small_file.read_bytes()
    small_file.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match=r"cannot be (read|loaded).*truncated"):
        keras_lightnets.ShuffleNetV1(**SMALL, weights=small_file)


@pytest.mark.parametrize("file", ["zip_format.pth", "legacy_format.pth", "tensors.safetensors"])
def test_truncated_pytorch_files_are_refused(file, tmp_path):
    data = (MADE_BY_PYTORCH / file).read_bytes()
    path = tmp_path / file
    for size in (0, 10, len(data) // 2, len(data) - 20):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"cannot be read.*truncated"):
            weight_files.read_state_dict(path)


def test_weights_of_another_network_are_refused_by_name(small_file):
    with pytest.raises(ValueError, match=r"another network|mistakes"):
        keras_lightnets.ShuffleNetV1(**{**SMALL, "alpha": 0.5}, weights=small_file)
    with pytest.raises(ValueError, match=r"another network|mistakes"):
        keras_lightnets.MobileNetV1((32, 32, 3), alpha=0.25, classes=7, weights=small_file)


@pytest.mark.parametrize(
    ("weights_argument", "message"),
    [
        ("nowhere.keras", "must be an existing file. Received: 'nowhere.keras'"),
        ("imagenot", "Did you mean 'imagenet'\\? Received: 'imagenot'"),
        ("osmrr", "or one of 'imagenet', 'osmr'. Did you mean 'osmr'"),
        ("timm-ra4", "one of 'imagenet', 'osmr'. Received: 'timm-ra4'"),
        (7, "must be None, a path or a tag. Received: 7"),
    ],
)
def test_unknown_weights_are_refused_before_anything_is_built(weights_argument, message):
    with pytest.raises(ValueError, match=message):
        keras_lightnets.ShuffleNetV1(weights=weights_argument)


def test_networks_without_published_weights_say_so():
    with pytest.raises(ValueError, match=r"No published weights fit shufflenet_v1.*list_models"):
        keras_lightnets.ShuffleNetV1(alpha=2.0, weights="imagenet")


class _Server(http.server.SimpleHTTPRequestHandler):
    requests: list[str]

    def do_GET(self):
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves `root`; Keras' cache is `cache`, `requests` are the paths asked for."""
    root = tmp_path / "root"
    root.mkdir()
    requests = []
    handler = type("Handler", (_Server,), {"requests": requests})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(root))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    yield types.SimpleNamespace(
        root=root,
        url=f"http://127.0.0.1:{server.server_port}",
        requests=requests,
        cache=tmp_path / "keras" / "models" / "keras_lightnets",
    )
    server.shutdown()
    thread.join()
    server.server_close()


def _only(monkeypatch, network, row):
    """Makes `row` the network's only published weights."""
    family, _ = registry.find(network)
    monkeypatch.setitem(family.weights, network, (row,))


def _publish(server, monkeypatch, network, file, digest, source, **extra):
    row = WeightsRow(
        "test", file, f"{server.url}/{file}", digest, source, 50.0, 75.0, "none", **extra
    )
    _only(monkeypatch, network, row)
    return row


@pytest.fixture
def golden(server, monkeypatch):
    """ShuffleNet v1 (g3) of pytorchcv's golden weights, published as osmr's zipped file."""
    name, _ = golden_weights.NETWORKS["pytorchcv__shufflenet_g3_w1"]
    state, pairs = golden_weights.read("pytorchcv__shufflenet_g3_w1")
    path = server.root / "golden.tf2.h5.zip"
    _write_osmr(path, state, groups=3)
    with zipfile.ZipFile(path) as archive:
        sha1 = hashlib.sha1(archive.read(archive.namelist()[0])).hexdigest()
    row = _publish(
        server,
        monkeypatch,
        name,
        path.name,
        f"sha1:{sha1}",
        "osmr-tf2",
        mean=(127.5,) * 3,
        antialias=False,
    )
    return row, pairs[0]


def test_published_file_is_downloaded_once_and_gives_the_golden_logits(golden, server):
    row, (images, expected) = golden
    model = keras_lightnets.ShuffleNetV1(weights="test", classifier_activation=None)
    logits = np.asarray(model(images))
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
    assert weights.notes(model)["weights"] == row.file
    assert [path.name for path in server.cache.iterdir()] == [row.file]

    keras_lightnets.ShuffleNetV1(weights="imagenet")
    assert server.requests == [f"/{row.file}"]  # the second model came from the cache


def test_preprocessing_is_that_of_the_weights(golden):
    row, (images, _) = golden
    pixels = np.random.default_rng(3).integers(0, 256, (1, *images.shape[1:]), dtype="uint8")
    # Logits: with the golden weights they are so large that probabilities are 0 and 1.
    arguments = {"weights": "test", "classifier_activation": None}
    inside = keras_lightnets.ShuffleNetV1(include_preprocessing=True, **arguments)(pixels)
    normalized = (pixels.astype("float32") - row.mean) / np.array(row.std, "float32")
    outside = keras_lightnets.ShuffleNetV1(**arguments)(normalized)
    difference = np.abs(np.asarray(inside) - np.asarray(outside)).max()
    assert difference < 1e-4 * np.abs(np.asarray(outside)).max()


def test_wrong_download_is_not_kept(golden, server):
    row, _ = golden
    (server.root / row.file).write_bytes(b"<html>captive portal</html>")
    with pytest.raises(ValueError, match=r"is not the published file.*Nothing was kept"):
        keras_lightnets.ShuffleNetV1(weights="test")
    assert list(server.cache.iterdir()) == []


def test_wrong_file_in_the_cache_is_left_as_it_is(golden, server):
    row, _ = golden
    server.cache.mkdir(parents=True)
    cached = server.cache / row.file
    with zipfile.ZipFile(cached, "w") as archive:
        archive.writestr("mine.tf2.h5", "mine")
    content = cached.read_bytes()
    with pytest.raises(ValueError, match=f"{row.file} is damaged or another file.*expected sha1"):
        keras_lightnets.ShuffleNetV1(weights="test")
    assert cached.read_bytes() == content
    assert server.requests == []


def test_missing_server_is_reported_with_url_path_and_what_to_do(golden, monkeypatch, server):
    row, _ = golden
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.tf2.h5.zip"
        _only(monkeypatch, "shufflenet_v1_g3_x1_0", dataclasses.replace(row, url=url))
        with pytest.raises(ValueError, match=f"Cannot download {url}.*put the file at ") as error:
            keras_lightnets.ShuffleNetV1(weights="test")
    assert str(server.cache / row.file) in str(error.value)
    assert not (server.cache / row.file).exists()


def test_interrupted_download_leaves_nothing(golden, server):
    row, _ = golden
    size = (server.root / row.file).stat().st_size
    original = _Server.copyfile

    def cut(self, source, outputfile):
        outputfile.write(source.read(size // 2))

    _Server.copyfile = cut
    try:
        with pytest.raises(ValueError, match="Cannot download"):
            keras_lightnets.ShuffleNetV1(weights="test")
    finally:
        _Server.copyfile = original
    assert list(server.cache.iterdir()) == []
    keras_lightnets.ShuffleNetV1(weights="test")  # the next attempt starts over


def test_classes_are_named_by_the_published_weights(golden):
    """The names are part of the package: nothing but the weights was asked for."""
    model = keras_lightnets.ShuffleNetV1(weights="test")
    probabilities = np.zeros((1, 1000))
    probabilities[0, [3, 8]] = 0.7, 0.3
    assert keras_lightnets.decode_predictions(model, probabilities, top=2) == [
        [("tiger shark", pytest.approx(0.7)), ("hen", pytest.approx(0.3))]
    ]
    labels = weights.class_names(model)
    assert len(set(labels)) == 1000
    assert (labels[134], labels[517]) == ("crane (n02012849)", "crane (n03126707)")


def test_imagenet_is_known_by_identifier_and_word():
    assert list(imagenet.synsets()) == sorted(imagenet.synsets())
    assert len(imagenet.synsets()) == 1000
    for name in ("n02123045", "tabby", "Tabby"):
        assert imagenet.index(name) == 281
    assert imagenet.index("great_white_shark") == 2
    assert imagenet.index("crane (n02012849)") == 134
    # The word of two classes says neither.
    assert imagenet.index("crane") is imagenet.index("nonsense") is None


def test_exporter_takes_names_and_transform_from_the_published_weights(golden):
    model = keras_lightnets.ShuffleNetV1(weights="test", include_preprocessing=True)
    interface = export.make_interface(model, None, None, export.ExportOptions())
    assert interface.labels[3] == "tiger shark"
    assert interface.transform == EvalTransform((224, 224), resize_shorter=256, antialias=False)


def test_published_file_is_recognized_by_its_digest_wherever_it_lies(golden, server, tmp_path):
    row, _ = golden
    path = tmp_path / "mine.tf2.h5.zip"
    path.write_bytes((server.root / row.file).read_bytes())
    model = keras_lightnets.ShuffleNetV1(weights=path, include_preprocessing=True)
    np.testing.assert_allclose(model.get_layer("normalization").offset[0], -127.5 / row.std[0])
    assert weights.class_names(model)[3] == "tiger shark"
    assert weights.evaluation_transform(model).antialias is False
    assert server.requests == []


def test_published_file_without_a_digest_is_recognized_by_its_name(
    golden, server, tmp_path, monkeypatch
):
    row, _ = golden
    _only(monkeypatch, "shufflenet_v1_g3_x1_0", dataclasses.replace(row, digest=None))
    path = tmp_path / row.file
    path.write_bytes((server.root / row.file).read_bytes())
    model = keras_lightnets.ShuffleNetV1(weights=path)
    assert weights.notes(model)["weights"] == row.file


def test_what_an_unknown_file_is_assumed_to_be_is_said(small, tmp_path):
    path = tmp_path / "mine.safetensors"
    _write_safetensors(path, _pytorch_layout(small))
    arguments = {**SMALL, "include_preprocessing": True, "weights": path}
    with pytest.warns(UserWarning, match=r"mine.safetensors does not say .* ImageNet's mean"):
        keras_lightnets.ShuffleNetV1(**arguments)
    keras_lightnets.ShuffleNetV1(**arguments, mean=(0, 0, 0), std=(1, 1, 1))


def test_published_file_of_another_network_is_named(small, tmp_path, monkeypatch):
    path = tmp_path / "renamed.safetensors"
    _write_safetensors(path, _pytorch_layout(small))
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    row = WeightsRow("test", "known.pth", "http://x", digest, "pytorchcv", 50.0, None, "none")
    _only(monkeypatch, "squeezenet_v1_0", row)
    with pytest.warns(UserWarning, match=r"is known.pth, published for another network"):
        keras_lightnets.ShuffleNetV1(**SMALL, weights=path)


NOTES = """
import sys, keras, keras_lightnets, numpy as np
from keras_lightnets.weights import load as weights
model = keras.models.load_model(sys.argv[1])
for copy in (model, keras.models.clone_model(model), keras.Model.from_config(model.get_config()),
             keras_lightnets.fold_batch_norm(model)):
    assert weights.class_names(copy) == list("abcdefg"), weights.class_names(copy)
    assert weights.evaluation_transform(copy).resize_shorter == 40
headless = keras.Model(model.input, model.get_layer("global_pool").output)
assert weights.class_names(headless) is None
assert weights.evaluation_transform(headless).resize_shorter == 40
again = keras_lightnets.MobileNetV2((32, 32, 3), alpha=0.25, classes=7, weights=sys.argv[1],
                                    include_preprocessing=True)
assert weights.notes(again) == weights.notes(model), weights.notes(again)
image = np.full((1, 32, 32, 3), 200, "uint8")
np.testing.assert_array_equal(again(image), model(image))
"""


@pytest.mark.slow
def test_notes_survive_saving_loading_and_copying_in_a_fresh_process(tmp_path):
    """Class names, transform, normalization, padding and epsilon, each unlike the default."""
    model = keras_lightnets.MobileNetV2(
        (32, 32, 3),
        alpha=0.25,
        classes=7,
        padding="same",
        bn_epsilon=1e-2,
        include_preprocessing=True,
        mean=(1, 2, 3),
        std=(4, 5, 6),
    )
    transform = EvalTransform((32, 32), resize_shorter=40)
    weights.notes(model).update(class_names=list("abcdefg"), transform=transform.to_dict())
    model.save(tmp_path / "copied.keras")
    command = [sys.executable, "-W", "error::UserWarning", "-c", NOTES]
    subprocess.run([*command, tmp_path / "copied.keras"], check=True, timeout=300)


def test_a_file_whose_network_stands_in_a_larger_model_is_loaded(tmp_path):
    # As it does behind augmentation. Mutation: only the layers of the outer model count.
    build = functools.partial(keras_lightnets.MobileNetV1, (32, 32, 3), alpha=0.25, classes=3)
    network = build(include_preprocessing=True, mean=(1, 2, 3), std=(4, 5, 6))
    outer = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.RandomFlip(), network])
    outer.save(tmp_path / "outer.keras")
    read = build(include_preprocessing=True, weights=tmp_path / "outer.keras")
    assert weights.notes(read)["mean"] == [1, 2, 3]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    np.testing.assert_array_equal(read(images), outer(images, training=False))


def test_labels_can_be_given(small):
    labels = list("abcdefg")
    decoded = keras_lightnets.decode_predictions(small, np.eye(7)[[2]], top=1, labels=labels)
    assert decoded == [[("c", 1.0)]]
    with pytest.raises(ValueError, match=r"one name per class, 7. Received: 2"):
        keras_lightnets.decode_predictions(small, np.eye(7), labels=["a", "b"])
    with pytest.raises(ValueError, match="does not know the names of its classes: pass `labels`"):
        keras_lightnets.decode_predictions(small, np.eye(7))


def test_names_in_the_place_of_their_number_are_known_to_the_model(tmp_path):
    # Mutation: the names are counted and forgotten.
    model = keras_lightnets.SqueezeNet((32, 32, 3), classes=["cat", "dog"], small_input=True)
    model.save(tmp_path / "pets.keras")
    for pets in (model, keras.models.load_model(tmp_path / "pets.keras")):
        assert pets.output_shape == (None, 2)
        assert keras_lightnets.decode_predictions(pets, np.eye(2)[[1]], top=1) == [[("dog", 1.0)]]
        both = [[("dog", 1.0), ("cat", 0.0)]]
        assert keras_lightnets.decode_predictions(pets, np.eye(2)[[1]]) == both, "of top=5, all"


def test_habits_of_keras_applications_are_answered(small):
    with pytest.raises(ValueError, match=r"decode_predictions\(model, predictions, top=5\)"):
        keras_lightnets.decode_predictions(np.eye(7), top=5)
    with pytest.raises(ValueError, match="build them with `include_preprocessing=True`"):
        keras_lightnets.preprocess_input(np.zeros((1, 224, 224, 3)))


def test_tag_of_another_network_is_named():
    with pytest.raises(ValueError, match="Tag 'timm-ra4' is for mobilenet_v1_relu6"):
        keras_lightnets.create_model("mobilenet_v1", weights="timm-ra4")
    with pytest.raises(ValueError, match=r"Did you mean 'torchvision-v[12]'"):
        keras_lightnets.create_model("mobilenet_v2", weights="torchvision")
