"""`FitModel`: Keras' `fit` with the step of `lightnets train`, on one and on two replicas."""

import csv
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from lightnets import fit, fit_batches
from lightnets.distribution import strategy
from lightnets.optimization import optimizers
from lightnets.run import training
from tests import processes, toy

# Not a multiple of the batch: the last batch has one image, fewer than there are replicas.
TRAINED, BATCH = 25, 8


def network(dropout=0.0, momentum=0.7):
    """Returns the toy, always with the same weights."""
    keras.utils.set_random_seed(0)
    config = toy.config(model__dropout_rate=dropout, model__bn_momentum=momentum)
    return toy.build_model(config, toy.ToySplits(0))


def pictures(count, seed=1):
    """Returns images and one-hot labels as arrays."""
    return [part.numpy() for part in toy._examples(tf.constant([seed, 2]), count)]


@keras.saving.register_keras_serializable("test_fit")
class Images(keras.metrics.Metric):
    """Counts the images it sees."""

    def __init__(self, name="images"):
        super().__init__(name=name)
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(tf.cast(tf.shape(y_pred)[0], tf.float32))

    def result(self):
        return tf.identity(self.total.value)


def both(devices, dropout):
    """Returns the weights after 12 steps of the loop, and of `fit` on the same batches."""
    toy.install()
    config = toy.config(
        devices=devices, accumulate=2, model__dropout_rate=dropout, optimizer__clipnorm=0.3
    )
    loop = training.Training(config, None)
    start = loop.model.get_weights()
    batches = loop.batches()
    for _ in range(12):
        loop.take_steps(batches, 1, [0.0, 0.0])
    with loop.strategy.scope():
        model = fit.FitModel(network(dropout), accumulate=2, seed=config.train.seed)
        model.set_weights(start)
        optimizer = optimizers.build(config, loop.steps_per_epoch, model)
        optimizer.clipnorm = 0.3
        model.compile(optimizer)
    data = loop.splits.train(0, global_batch=BATCH)
    model.fit(data.take(12), verbose=0)
    fitted = model.get_weights()
    images = next(iter(data))[0]
    if dropout:  # it goes on with seeds of its own
        assert np.any(model(images, training=True) != model(images, training=True))
    return loop.model.get_weights(), fitted


@pytest.mark.parametrize("devices", ["cpu:1", pytest.param("cpu:2", marks=pytest.mark.slow)])
def test_fit_takes_the_steps_of_the_loop(devices):
    # Mutation: clip in the step only, seed dropout otherwise, another mean.
    for loop, fitted in zip(*processes.call(both, devices, 0.3), strict=True):
        np.testing.assert_allclose(fitted, loop, rtol=0, atol=1e-6)


def fitted(devices, steps_per_execution=1, numbers=False):
    """Returns weights, history and evaluations of sets of several sizes."""
    with strategy.create(devices).scope():
        model = fit.FitModel(network(), accumulate=2, sync_bn=True)
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=0.5),
            keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
            metrics=["accuracy", Images()],
            steps_per_execution=steps_per_execution,
        )

    def data(count, seed=1):
        images, labels = pictures(count, seed)
        return images, labels.argmax(-1) if numbers else labels

    history = model.fit(
        *data(TRAINED),
        batch_size=BATCH,
        epochs=2,
        verbose=0,
        validation_data=data(7, seed=5),
    )
    judged = [model.evaluate(*data(n), return_dict=True, verbose=0) for n in (1, 7, 67)]
    probabilities = model.predict(data(7)[0], verbose=0)
    return model.get_weights(), history.history, judged, probabilities


@pytest.fixture(scope="module")
def one():
    """The result of one device."""
    return processes.call(fitted, "cpu:1")


def test_every_image_is_counted_once(one):
    _, history, judged, probabilities = one
    assert history["images"] == [TRAINED, TRAINED]
    assert history["val_images"] == [7, 7]
    assert [numbers["images"] for numbers in judged] == [1, 7, 67]
    assert probabilities.shape == (7, 4)


@pytest.mark.parametrize(
    ("steps", "numbers"), [(2, False), pytest.param(1, True, marks=pytest.mark.slow)]
)
def test_two_replicas_fit_as_one_does(one, steps, numbers):
    weights, history, judged, probabilities = processes.call(fitted, "cpu:2", steps, numbers)
    for mine, theirs in zip(weights, one[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    assert history.keys() == one[1].keys()
    for name, values in history.items():
        np.testing.assert_allclose(values, one[1][name], atol=1e-5)
    for mine, theirs in zip(judged, one[2], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    np.testing.assert_allclose(probabilities, one[3], atol=1e-5)


def test_callbacks_work_and_a_plain_model_is_saved(tmp_path):
    model = fit.FitModel(network())
    model.compile("sgd", "sparse_categorical_crossentropy", None, ["accuracy"])  # Keras' order
    images, labels = pictures(16)
    history = model.fit(
        images,
        labels.argmax(-1),
        epochs=9,
        batch_size=8,
        verbose=0,
        validation_split=0.25,
        callbacks=[
            # The loss falls, which is worse by this rule: the second epoch is the last.
            keras.callbacks.EarlyStopping("loss", patience=1, mode="max"),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
    )
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(history.epoch) == 2
    assert float(rows[-1]["val_loss"]) == pytest.approx(history.history["val_loss"][-1])
    model.save(tmp_path / "last.keras")
    model.save_weights(tmp_path / "last.weights.h5")
    loaded = keras.models.load_model(tmp_path / "last.keras")
    assert type(loaded).__name__ == "Functional"
    assert type(keras.models.load_model(tmp_path / "best.keras")) is type(loaded)
    answers = loaded.predict(images, verbose=0)
    np.testing.assert_array_equal(answers, model.predict(images, verbose=0))
    np.testing.assert_allclose(model.predict_on_batch(images[:3]), answers[:3], atol=1e-6)
    plain = network()
    plain.load_weights(tmp_path / "last.weights.h5")
    for mine, theirs in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_tensorboard_and_the_progress_bar_show_what_they_show_of_others(tmp_path, capsys):
    model = fit.FitModel(network())
    model.compile("sgd", metrics=["accuracy"])
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    model.fit(*pictures(16), batch_size=8, callbacks=board, verbose=1)
    assert "2/2" in capsys.readouterr().out
    assert b"epoch_accuracy" in next((tmp_path / "train").iterdir()).read_bytes()


def weigh(**how):
    model = fit.FitModel(network())
    model.compile("sgd", weighted_metrics=["accuracy"])
    history = model.fit(*pictures(20), batch_size=10, shuffle=False, verbose=0, **how)
    return model.get_weights(), history.history


@pytest.mark.slow
def test_class_weights_are_weights_of_the_samples():
    labels = pictures(20)[1].argmax(-1)
    by_class, history = weigh(class_weight={2: 0.0, 3: 3.0})
    by_sample, expected = weigh(sample_weight=np.array([1.0, 1.0, 0.0, 3.0])[labels])
    assert history == expected
    assert history != weigh()[1]
    for mine, theirs in zip(by_class, by_sample, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_weights_that_break_end_the_run_before_they_are_saved(tmp_path):
    model = fit.FitModel(network())
    model.compile("sgd")
    images, labels = pictures(24)
    weights = np.repeat([1.0, np.inf, 1.0], 8)
    path = tmp_path / "model.keras"
    saving = keras.callbacks.ModelCheckpoint(path, save_freq=1)
    with pytest.raises(FloatingPointError, match=r"not finite in step 1\."):
        model.fit(
            images,
            labels,
            sample_weight=weights,
            batch_size=8,
            shuffle=False,
            verbose=0,
            callbacks=saving,
        )
    assert not np.isfinite(model.get_weights()[0]).any()
    assert all(np.isfinite(value).all() for value in toy.weights_of(path))


def overflow():
    with strategy.create("cpu:2").scope():
        keras.config.set_dtype_policy("mixed_float16")
        model = fit.FitModel(network())
        model.compile("sgd")
    model.fit(toy.ToySplits(3, heavy_step=7).train(0, global_batch=8).take(12), verbose=0)
    state = model._parts.state
    return int(state.skipped.numpy()), float(state.loss_scale.numpy()), model.get_weights()


@pytest.mark.slow
def test_an_overflow_on_the_second_replica_skips_the_step():
    skipped, scale, weights = processes.call(overflow)
    assert (skipped, scale) == (1, 2.0**14)
    assert all(np.isfinite(value).all() for value in weights)


REFUSED = {
    "must be categorical_crossentropy": lambda: {"loss": "mse"},
    r"Use FitModel\(accumulate=3\)": lambda: {
        "optimizer": keras.optimizers.SGD(gradient_accumulation_steps=3)
    },
    "scales the loss itself": lambda: {
        "optimizer": keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD())
    },
    "loss_weights needs several": lambda: {"loss_weights": [1.0]},
    "Leave out auto_scale_loss": lambda: {"auto_scale_loss": False},
    "ema_overwrite_frequency": lambda: {
        "optimizer": keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2)
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_work_is_refused_by_compile(message):
    model = fit.FitModel(network(), accumulate=2)
    with pytest.raises(ValueError, match=message):
        model.compile(**{"optimizer": "sgd"} | REFUSED[message]())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"batch_size": 7}, "Use a batch of 8"),
        ({"x": iter([])}, "tf.data.Dataset.from_generator"),
        ({"y": np.zeros((3, 4))}, "same number of samples.*16, 3"),
    ],
)
def test_what_does_not_work_is_refused_by_fit(how, message):
    model = fit.FitModel(network(), accumulate=2)
    model.compile("sgd")
    images, labels = pictures(16)
    with pytest.raises(ValueError, match=message):
        model.fit(**{"x": images, "y": labels} | how)


def test_a_dataset_of_single_images_is_refused():
    model = fit.FitModel(network())
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"single images, \(\d+, \d+, 3\): .*by batch\(32\)"):
        model.fit(tf.data.Dataset.from_tensor_slices(tuple(pictures(4))))


def test_compile_takes_its_arguments_in_the_order_of_keras():
    ours, keras_own = (
        inspect.signature(cls.compile).parameters for cls in (fit.FitModel, keras.Model)
    )
    assert list(ours) == list(keras_own)


def test_a_model_without_logits_is_refused():
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="no layer named 'logits'"):
        fit.FitModel(keras.Model(inputs, keras.layers.Dense(2)(inputs)))


def wrong_labels():
    """Gives labels that are no classes in every way; returns what each raised."""
    model = fit.FitModel(network())
    model.compile("sgd")
    images, one_hot = pictures(8)
    right = one_hot.argmax(-1)
    said = {}

    def attempt(case, function):
        try:
            function()
            said[case] = None
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            said[case] = str(error)

    for name, bad in (("one", 4), ("negative", -1), ("half", 0.5), ("nan", np.nan)):
        labels = right.astype("float32" if isinstance(bad, float) else "int64")
        labels[5] = bad
        batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
        good = tf.data.Dataset.from_tensor_slices((images, right)).batch(4)
        ways = {
            "fit": lambda labels=labels: model.fit(images, labels, verbose=0),
            "column": lambda labels=labels: model.fit(images, labels[:, None], verbose=0),
            "validation": lambda labels=labels: model.fit(
                images, right, validation_data=(images, labels), verbose=0
            ),
            "evaluate": lambda labels=labels: model.evaluate(images, labels, verbose=0),
            "train_on_batch": lambda labels=labels: model.train_on_batch(images, labels),
            "test_on_batch": lambda labels=labels: model.test_on_batch(images, labels),
        }
        if name == "one":
            ways["dataset"] = lambda batches=batches: model.fit(batches, verbose=0)
            ways["dataset held out"] = lambda batches=batches, good=good: model.fit(
                good, validation_data=batches, verbose=0
            )
            ways["255"] = lambda: model.fit(images, np.full(8, 255, np.uint8), verbose=0)
            ways["three columns"] = lambda: model.fit(images, one_hot[:, :3], verbose=0)
        for way, function in ways.items():
            attempt(f"{way} {name}", function)
    # Right ones pass in every form; a set to predict may have labels of any kind.
    for labels in (right, right[:, None], right.astype("float32"), right.astype("uint8"), one_hot):
        fit_batches.check_labels(labels, 4)
    unknown = tf.data.Dataset.from_tensor_slices((images, np.full(8, -1))).batch(4)
    assert model.predict(unknown, verbose=0).shape == (8, 4)
    return said


def test_labels_that_are_no_classes_are_refused_in_every_way():
    said = processes.call(wrong_labels)
    for case, message in said.items():
        assert message is not None, case
        if case.startswith("three columns"):
            assert "class numbers (n,) or one-hot (n, 4). Received: (8, 3)" in message
        else:
            assert "Labels must be class numbers from 0 to 3." in message, case
    assert "Received: 255" in said["255 one"]
    assert "Received:" in said["dataset one"]
    assert "[4]" in said["dataset one"]
