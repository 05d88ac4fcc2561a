"""What `export_saved_model` writes, read as a server reads it."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from keras_lightnets.errors import ExportError
from keras_lightnets.export.saved_model import ExportOptions
from keras_lightnets.inference import function
from keras_lightnets.inference.function import inference_model
from keras_lightnets.preprocessing import EvalTransform, evaluation_image
from tests.exports import LABELS, SIZE, TRANSFORM, Served, photos, small_net


@pytest.fixture(scope="module")
def exported(small_export):
    model, path = small_export
    return model, path, Served(path)


def test_directory_and_metadata(exported):
    _, path, _ = exported
    assert path.parts[-2:] == ("small", "1")
    assert (path / "variables" / "variables.index").is_file()
    assert (path / "assets.extra" / "labels.txt").read_text("utf-8").splitlines() == LABELS
    about = json.loads((path / "assets.extra" / "metadata.json").read_text())
    assert about["transform"] == TRANSFORM.to_dict()
    assert about["input"]["shape"] == [None, *SIZE, 3]
    assert about["versions"]["tensorflow"] == tf.__version__
    assert [p.name for p in path.parent.iterdir()] == ["1"]  # no temporary sibling is left


def test_signatures(exported):
    _, _, served = exported
    assert set(served.signatures) - {"__saved_model_init_op"} == {
        "serving_default",
        "serve_bytes",
        "features",
    }
    for name in ("serving_default", "serve_bytes", "features"):
        assert served.signatures[name].method_name == "tensorflow/serving/predict"
    ((key, info),) = served.signatures["serving_default"].inputs.items()
    assert (key, tf.as_dtype(info.dtype).name) == ("images", "uint8")
    outputs = served.signatures["serving_default"].outputs
    dtypes = {key: tf.as_dtype(info.dtype).name for key, info in outputs.items()}
    # REST cannot carry float16, and returns outputs called ..._bytes as base64.
    assert dtypes == {"probabilities": "float32", "classes": "string", "scores": "float32"}


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_images_give_named_probabilities(exported, batch):
    model, _, served = exported
    images = np.random.default_rng(batch).integers(0, 256, (batch, *SIZE, 3)).astype("uint8")
    expected = model.predict_on_batch(images.astype("float32"))
    answer = served("serving_default", images)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    order = np.argsort(-expected, axis=-1)[:, :5]
    assert answer["classes"].tolist() == [[LABELS[i].encode() for i in row] for row in order]
    np.testing.assert_allclose(answer["scores"], np.take_along_axis(expected, order, -1), atol=1e-5)


def test_files_of_all_formats_in_one_batch_are_decoded_as_in_evaluation(exported):
    model, _, served = exported
    files = photos()
    images = np.stack([evaluation_image(tf.constant(f), TRANSFORM) for f in files])
    answer = served("serve_bytes", files)
    assert answer["valid"].all()
    expected = model.predict_on_batch(images.astype("float32"))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize("bad", [b"", b"no image", photos()[1][:200], photos()[0][:150]])
def test_a_corrupt_file_harms_no_other_file_of_the_batch(exported, bad):
    # A server merges the requests of many clients into one batch.
    _, _, served = exported
    files = photos()
    alone = served("serve_bytes", files)
    files.insert(2, bad)
    answer = served("serve_bytes", files)
    assert answer["valid"].tolist() == [True, True, False, True, True, True]
    np.testing.assert_allclose(
        np.delete(answer["probabilities"], 2, 0), alone["probabilities"], atol=1e-6
    )
    assert answer["probabilities"][2].tolist() == [0.0] * 6
    assert answer["classes"][2].tolist() == [b""] * 5


def test_a_request_without_any_image_is_an_error(exported):
    _, _, served = exported
    with pytest.raises(tf.errors.InvalidArgumentError, match="holds no image that can be decoded"):
        served("serve_bytes", [b"garbage", b""])
    with pytest.raises(tf.errors.InvalidArgumentError, match="holds no image that can be decoded"):
        served("serve_bytes", [])
    with pytest.raises(tf.errors.InvalidArgumentError, match="images: the request holds no image"):
        served("serving_default", np.zeros((0, *SIZE, 3), "uint8"))
    assert served("serve_bytes", photos())["valid"].all()  # and the next one is served


@pytest.mark.slow
@pytest.mark.usefixtures("no_gate")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_of_another_shape_are_refused_by_every_signature(tmp_path, dtype):
    """Caught: pixels in another order fill the same reshape, and get an answer."""
    model = small_net(f"shapes_{dtype}")
    path = keras_lightnets.export_saved_model(
        model,
        tmp_path,
        options=ExportOptions(input_dtype=dtype, features=True, warmup_batch_sizes=(1,)),
    )
    served = Served(path)
    height, width = SIZE
    wrong = [(200, 3, *SIZE), (*SIZE, 3), (1, 64, 64, 3), (1, 20, 24, 3), (2, width, height, 3)]
    wrong += [(2, *SIZE, 1), (2, *SIZE, 4), (1, 1, *SIZE, 3), (2, height * width * 3), (3,), ()]
    taking_images = [
        name
        for name, signature in served.signatures.items()
        if any(info.dtype != tf.string.as_datatype_enum for info in signature.inputs.values())
    ]
    assert set(taking_images) == {"serving_default", "features"}
    for name in taking_images:
        assert served.unchecked(name, np.zeros((2, *SIZE, 3), dtype))[0].shape[0] == 2
        for shape in wrong:
            received = re.escape(str(list(shape)).replace(" ", ""))
            message = rf"images.* {received} is not compatible with expected shape \[\?,40,48,3\]"
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                served.unchecked(name, np.zeros(shape, dtype))
        with pytest.raises(tf.errors.InvalidArgumentError, match="request holds no image"):
            served.unchecked(name, np.zeros((0, *SIZE, 3), dtype))


def test_features_are_the_pooled_ones(exported):
    model, _, served = exported
    images = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype("uint8")
    pooled = keras.Model(model.inputs[0], model.get_layer("global_pool").output)
    np.testing.assert_allclose(
        served("features", images)["features"], pooled(images.astype("float32")), rtol=1e-4
    )


@pytest.mark.parametrize("batch", [1, 5])
def test_openvino_reads_the_saved_model_itself(exported, batch):
    """`serving_default` as TensorFlow Serving gets it, class names and all."""
    openvino = pytest.importorskip("openvino")
    model, path, served = exported
    images = np.random.default_rng(batch).integers(0, 256, (batch, *SIZE, 3)).astype("uint8")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}  # else it may choose bfloat16 by itself
    answer = openvino.Core().compile_model(str(path), "CPU", settings)([images])
    expected = model.predict_on_batch(images.astype("float32"))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-4)
    names = served("serving_default", images)["classes"].tolist()
    assert answer["classes"].tolist() == [[name.decode() for name in row] for row in names]


def operations(path):
    graph = Served(path).meta_graph.graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    attributes = {a for f in graph.library.function for a in f.attr}
    return {n.op for n in nodes}, attributes | {a for n in nodes for a in n.attr}


def test_the_graph_runs_anywhere(exported):
    ops, attributes = operations(exported[1])
    assert "_XlaMustCompile" not in attributes
    assert not ops & {"PyFunc", "EagerPyFunc"}
    # Folded, and the weights are constants: oneDNN lays them out once, not at each request.
    assert not ops & {"FusedBatchNormV3", "Rsqrt", "ReadVariableOp"}
    # A grouped convolution with something fused into it cannot run without oneDNN: the gate did.
    parity = json.loads((exported[1] / "assets.extra" / "parity.json").read_text())
    assert "serving_default, oneDNN off" in parity["signatures"]


@pytest.mark.usefixtures("no_gate")
def test_for_a_gpu_no_batch_runs_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(function, "in_parts", lambda *_: pytest.fail("in parts"))
    options = ExportOptions(gpu=True, warmup_batch_sizes=(), selftest_images=0)
    keras_lightnets.export_saved_model(small_net(), tmp_path, options=options)
    assert "-gpu" in (tmp_path / "compose.yaml").read_text()


@pytest.mark.usefixtures("no_gate")
def test_a_mixed_precision_model_becomes_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_net("mixed")
    finally:
        keras.config.set_dtype_policy("float32")
    path = keras_lightnets.export_saved_model(model, tmp_path)
    graph = Served(path).meta_graph.graph_def
    dtypes = {n.attr["T"].type for f in graph.library.function for n in f.node_def}
    assert tf.float16.as_datatype_enum not in dtypes


@pytest.mark.usefixtures("no_gate")
def test_logits_get_a_softmax_and_numbers_for_names(tmp_path):
    path = keras_lightnets.export_saved_model(
        small_net(activation=None),
        tmp_path,
        version=7,
        options=ExportOptions(top_k=1, input_dtype="float32"),
    )
    assert path.name == "7"
    answer = Served(path)("serving_default", np.full((2, *SIZE, 3), 128.0))
    np.testing.assert_allclose(answer["probabilities"].sum(-1), 1, rtol=1e-5)
    assert answer["classes"][0, 0] in {b"0", b"1", b"2", b"3", b"4", b"5"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_gate")
def test_of_two_exports_at_once_the_later_takes_the_next_number(tmp_path):
    """Caught: all the work is done, and then "Directory not empty"."""
    model = small_net()
    written = []

    def export(version=None, progress=lambda line: None):
        written.append(
            keras_lightnets.export_saved_model(
                model,
                tmp_path,
                version=version,
                progress=progress,
                options=ExportOptions(warmup_batch_sizes=(1,)),
            )
        )

    def another(line):
        if line == "Writing the SavedModel":
            export()

    def the_same(line):
        if line == "Writing the SavedModel":
            with pytest.raises(ExportError, match=r"Another export is writing \S+/small/3 "):
                export(3, progress=pytest.fail)

    export(progress=another)
    export(3, progress=the_same)
    assert [path.name for path in written] == ["1", "2", "3"]
    for path in written:
        about = json.loads((path / "assets.extra" / "metadata.json").read_text())
        assert about["version"] == int(path.name)
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["1", "2", "3"]


def test_bad_input(exported):
    model, path, _ = exported
    base = path.parent.parent
    before = sorted(p.name for p in base.rglob("*"))

    def refused(match, *args, model=model, **kwargs):
        with pytest.raises(ExportError, match=match):
            keras_lightnets.export_saved_model(model, base, *args, **kwargs)

    refused("5 class names were given, but the model has 6", LABELS[:5])
    refused("`class_names` must be a list .* Received: {0: 'a',", dict(enumerate("abcdef")))
    refused("`class_names` must be a list .* Received: 'abcdef'", "abcdef")
    refused("`metadata` must hold what JSON can: .* float32 ", metadata={"a": np.float32(1)})
    refused("'one' occurs more than once", ["one"] * 2 + LABELS[2:])
    refused("1 exists. Versions are never overwritten.*get 2", LABELS, 1)
    refused("whole number from 1 to .* Received: 0", LABELS, 0)
    refused("other classes.*zero, one, two.*now 0, 1, 2", None)
    refused("letters, digits.*'a/b'", LABELS, name="a/b")
    refused("`selftest_images` must be .* -1", LABELS, options=ExportOptions(selftest_images=-1))
    refused("`input_dtype` must be.*'half'", LABELS, options=ExportOptions(input_dtype="half"))
    refused(
        "Unknown .*'tflite'.* Known are litert", LABELS, options=ExportOptions(formats=["tflite"])
    )
    refused("`warmup_batch.* Received: 0", LABELS, options=ExportOptions(warmup_batch_sizes=[0, 1]))
    refused("`precision` must be.*'int4'", LABELS, options=ExportOptions(precision="int4"))
    refused(r"size \(8, 8\), but the model takes \(40, 48\)", transform=EvalTransform((8, 8)))
    refused("gives? \\(batch, classes\\)", model=keras.Model(model.inputs, model.layers[3].output))
    assert sorted(p.name for p in base.rglob("*")) == before


@pytest.mark.usefixtures("no_gate")
def test_a_network_that_normalizes_nothing_is_exported_with_a_warning(tmp_path):
    network = keras_lightnets.MobileNetV1((32, 32, 3), alpha=0.25, classes=2)
    with pytest.warns(UserWarning, match="without `include_preprocessing=True`") as caught:
        keras_lightnets.export_saved_model(network, tmp_path)
    assert caught[0].filename == __file__
    scale = keras.layers.Rescaling(1 / 127.5, -1)
    scaled = keras.Sequential([keras.Input((32, 32, 3)), scale, network], name="scaled")
    keras_lightnets.export_saved_model(scaled, tmp_path)  # tests fail on warnings


def test_no_write_permission(tmp_path):
    # A file in the way stops even root, who is stopped by no permission.
    (tmp_path / "models").write_text("")
    with pytest.raises(ExportError, match=f"Cannot write to {tmp_path}/models: it is no directory"):
        keras_lightnets.export_saved_model(small_net(), tmp_path / "models")
    assert [p.name for p in pathlib.Path(tmp_path).iterdir()] == ["models"]


def test_bfloat16_has_float32_ends_and_agrees(tmp_path, no_gate):
    """Probabilities within 0.02 of float32: bfloat16 has 8 bits of mantissa, 2**-8 = 0.004."""
    model = small_net()
    images = np.random.default_rng(1).integers(0, 256, (4, *SIZE, 3)).astype("float32")
    # At this net's random weights, the largest logit alone would decide: bring them to 1.
    logits = keras.Model(model.input, model.get_layer("logits").output)
    scale = np.abs(logits(images)).max()
    head = model.get_layer("logits")
    head.set_weights([weight / scale for weight in head.get_weights()])
    path = keras_lightnets.export_saved_model(
        model,
        tmp_path,
        options=ExportOptions(
            input_dtype="float32",
            precision="bfloat16",
            max_accuracy_drop=0.25,
            warmup_batch_sizes=(1,),
        ),
    )
    served = Served(path)
    signature = served.signatures["serving_default"]
    assert signature.inputs["images"].dtype == tf.float32.as_datatype_enum
    assert signature.outputs["probabilities"].dtype == tf.float32.as_datatype_enum
    probabilities = served("serving_default", images)["probabilities"]
    difference = np.abs(probabilities - np.asarray(model(images))).max()
    # Exactly equal would mean that nothing was computed in bfloat16.
    assert 1e-6 < difference < 0.02
    assert [options["max_accuracy_drop"] for options in no_gate] == [0.25]
    functions = served.meta_graph.graph_def.library.function
    kernels = [node for f in functions for node in f.node_def if node.op == "Conv2D"]
    assert kernels
    assert all(node.attr["T"].type == tf.bfloat16.as_datatype_enum for node in kernels)


@pytest.mark.parametrize(
    "name",
    [
        "shufflenet_v2",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "squeezenet")
        ),
    ],
)
def test_every_network_is_made_bfloat16(name):
    """Caught: a layer of several outputs, as in ShuffleNet v2, is taken for one of one."""
    keras.utils.set_random_seed(0)
    model = keras_lightnets.create_model(name, input_shape=(64, 64, 3), classes=6)
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    made = inference_model(model, "bfloat16")
    maps = [t for layer in made.layers for t in keras.tree.flatten(layer.output) if t.ndim == 4]
    assert {t.dtype for t in maps[-8:]} == {"bfloat16"}
    np.testing.assert_allclose(made(images), model(images), atol=0.1)
