"""Plausible one-line mistakes, and the test that must catch each.

`python tests/run_mutations.py` applies them one by one to a copy of the project. A mistake
that no test catches is a missing test.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """Replaces `old`, which occurs once in `file`, by `new`; then `test` must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


def _parity(file: str) -> str:
    return f"test_parity.py::test_logits_are_those_of_the_other_implementation[{file}]"


def _count(key: str) -> str:
    return f"test_registry.py::test_counts_are_those_of_the_other_implementation[{key}]"


MUTATIONS = (
    Mutation(
        "inverse channel shuffle",
        "keras_lightnets/layers/channel_shuffle.py",
        "tf.reshape(inputs, (-1, self.groups, channels // self.groups))",
        "tf.reshape(inputs, (-1, channels // self.groups, self.groups))",
        _parity("pytorchcv__shufflenet_g3_w1"),
    ),
    Mutation(
        "ShuffleNet v1 concatenates the pooled input first",
        "keras_lightnets/shufflenet_v1.py",
        "([x, shortcut])",
        "([shortcut, x])",
        _parity("pytorchcv__shufflenet_g8_w1"),
    ),
    Mutation(
        "activation behind depthwise convolutions",
        "keras_lightnets/blocks.py",
        "    activation: str | None = None,\n",
        '    activation: str | None = "relu",\n',
        _parity("torchvision__shufflenet_v2_x0_5"),
    ),
    Mutation(
        "Keras' epsilon",
        "keras_lightnets/options.py",
        "bn_epsilon: float = 1e-5",
        "bn_epsilon: float = 1e-3",
        _parity("timm__mobilenetv1_100"),
    ),
    Mutation(
        '"same" padding at stride 2',
        "keras_lightnets/blocks.py",
        'return x, "same"  #',
        'return x, "same"\n    if sizes:\n        return x, "same"  #',
        _parity("torchvision__mobilenet_v2"),
    ),
    Mutation(
        "floor-mode pooling",
        "keras_lightnets/blocks.py",
        'padding = "valid" if sizes[0] % 2 else "same"',
        'padding = "valid"',
        "test_models.py::test_unknown_image_size_computes_the_same[SqueezeNet]",
    ),
    Mutation(
        "floor-mode pooling of unknown sizes",
        "keras_lightnets/blocks.py",
        "        end = 3 - strides\n",
        "        end = 2 - strides\n",
        _parity("pytorchcv__squeezeresnet_v1_0"),
    ),
    Mutation(
        "average pooling without the padding's zeros",
        "keras_lightnets/blocks.py",
        'AveragePooling2D(3, strides, "valid", name=name)(x)',
        'AveragePooling2D(3, strides, "same", name=name)(x[:, 1:-1, 1:-1])',
        _parity("pytorchcv__shufflenet_g3_w1"),
    ),
    Mutation(
        "grouped entry into stage 2",
        "keras_lightnets/shufflenet_v1.py",
        "entry_groups=1 if (stage, unit) == (2, 1) else groups",
        "entry_groups=groups",
        _count("pytorchcv/shufflenet_g3_w1"),
    ),
    Mutation(
        "bottleneck of the remaining channels",
        "keras_lightnets/shufflenet_v1.py",
        "x = conv_bn(x, filters // 4, groups=entry_groups",
        "x = conv_bn(x, out // 4 // groups * groups, groups=entry_groups",
        _count("pytorchcv/shufflenet_g3_w1"),
    ),
    Mutation(
        "stem scaled at width 1.5",
        "keras_lightnets/shufflenet_v1.py",
        "scale = 1.0 if alpha == 1.5 else alpha",
        "scale = alpha",
        _count("megvii/shufflenet_v1_g8_1.5x"),
    ),
    Mutation(
        "activation behind the bottleneck of MobileNet v2",
        "keras_lightnets/mobilenet_v2.py",
        'activation=None, norm=norm, name=f"{name}_project"',
        'activation="relu6", norm=norm, name=f"{name}_project"',
        _parity("torchvision__mobilenet_v2"),
    ),
    Mutation(
        "no residuals in MobileNet v2",
        "keras_lightnets/mobilenet_v2.py",
        "    if residual:\n",
        "    if not name:\n",
        _parity("torchvision__mobilenet_v2"),
    ),
    Mutation(
        "last layer of MobileNet v2 scaled below width 1",
        "keras_lightnets/mobilenet_v2.py",
        "HEAD_FILTERS * max(1.0, alpha)",
        "HEAD_FILTERS * alpha",
        _count("pytorchcv/mobilenetv2_wd4"),
    ),
    Mutation(
        "ReLU in place of ReLU6",
        "keras_lightnets/mobilenet_v1.py",
        '        activation=activation,\n        norm=norm,\n        name="stem"',
        '        activation="relu",\n        norm=norm,\n        name="stem"',
        _parity("timm__mobilenetv1_100"),
    ),
    Mutation(
        "ShuffleNet v2 transforms the other half",
        "keras_lightnets/shufflenet_v2.py",
        "passed, x = keras.ops.split(x, 2, axis=-1)",
        "x, passed = keras.ops.split(x, 2, axis=-1)",
        _parity("torchvision__shufflenet_v2_x1_0"),
    ),
    Mutation(
        "ShuffleNet v2 joins its branches in the other order",
        "keras_lightnets/shufflenet_v2.py",
        "([left, right])",
        "([right, left])",
        _parity("torchvision__shufflenet_v2_x0_5"),
    ),
    Mutation(
        "ShuffleNet v2 without shuffles",
        "keras_lightnets/shufflenet_v2.py",
        'return ChannelShuffle(2, name=f"{name}_shuffle")(x)',
        "return x",
        _parity("torchvision__shufflenet_v2_x0_5"),
    ),
    Mutation(
        "no ReLU behind SqueezeNet's conv10",
        "keras_lightnets/squeezenet.py",
        'Activation("relu", dtype="float32", name="logits_act")',
        'Activation("linear", dtype="float32", name="logits_act")',
        _parity("torchvision__squeezenet1_1"),
    ),
    Mutation(
        "bypass around the other Fire modules",
        "keras_lightnets/squeezenet.py",
        "if bypass is not None and number % 2:",
        "if bypass is not None and number % 2 and number > 3:",
        _parity("pytorchcv__squeezeresnet_v1_0"),
    ),
    Mutation(
        "Fire concatenates 3x3 first",
        "keras_lightnets/squeezenet.py",
        "([left, right])",
        "([right, left])",
        _parity("torchvision__squeezenet1_0"),
    ),
    Mutation(
        "lost strides do not dilate",
        "keras_lightnets/blocks.py",
        "self.dilation *= strides",
        "self.dilation *= 1",
        "test_models.py::test_atrous_network_computes_the_same_at_every_position_that_the_"
        "strided_one_keeps[MobileNetV2-8]",
    ),
    Mutation(
        "normalization subtracts the mean of another scale",
        "keras_lightnets/network.py",
        "offset=[-m / s for",
        "offset=[-m for",
        "test_models.py::test_preprocessing_normalizes_uint8_and_float_alike[MobileNetV1]",
    ),
    Mutation(
        "classifier in half precision",
        "keras_lightnets/classifier.py",
        '        dtype="float32",\n        name="logits",\n',
        '        name="logits",\n',
        "test_models.py::test_head_is_float32_under_mixed_precision[mixed_float16-MobileNetV1]",
    ),
    Mutation(
        "features of the pooled map",
        "keras_lightnets/squeezenet.py",
        '            net.tap(x)\n            x = _pool(net, x, f"pool{number}")\n',
        '            x = _pool(net, x, f"pool{number}")\n            net.tap(x)\n',
        "test_models.py::test_features_are_named_by_stride[SqueezeNet]",
    ),
    Mutation(
        "left-over tensors pass",
        "keras_lightnets/convert.py",
        'f"left over: {name}"\n        for name in tensors\n        if name not in used',
        'f"left over: {name}"\n        for name in tensors\n        if name in ()',
        "test_convert.py::test_mistakes_are_listed_and_nothing_is_changed[left over]",
    ),
    Mutation(
        "hashes are not compared",
        "keras_lightnets/downloads.py",
        "return None if found.startswith(expected)",
        "return None if True",
        "test_weights.py::test_wrong_file_in_the_cache_is_left_as_it_is",
    ),
    Mutation(
        "pickles may run code",
        "keras_lightnets/weight_files.py",
        'raise pickle.UnpicklingError(f"it needs {module}.{name}, which is not a tensor")',
        "return super().find_class(module, name)",
        "test_weights.py::test_pth_that_would_run_code_is_refused",
    ),
    Mutation(
        "preprocessing does not follow the weights",
        "keras_lightnets/network.py",
        "mean = self.options.mean or (source and source.mean) or IMAGENET_MEAN",
        "mean = self.options.mean or IMAGENET_MEAN",
        "test_weights.py::test_preprocessing_is_that_of_the_weights",
    ),
    Mutation(
        "learning: L2 outside the momentum",
        "training/optimizers.py",
        "gradient += self.l2 * tf.convert_to_tensor(variable)",
        "self.assign_sub(variable, learning_rate * self.l2 * tf.convert_to_tensor(variable))",
        "test_optimizers.py::test_sgd_is_that_of_torch[False]",
    ),
    Mutation(
        "learning: mean of squares starts at zero",
        "training/optimizers.py",
        'initializer = "ones"',
        'initializer = "zeros"',
        "test_optimizers.py::test_rmsprop_is_that_of_tensorflow_1",
    ),
    Mutation(
        "learning: decoupled decay of everything",
        "training/optimizers.py",
        "if v.path in excluded",
        "if False",
        "test_optimizers.py::test_adamw_decays_the_weights_and_not_the_gradient",
    ),
    Mutation(
        "learning: depthwise kernels count as others",
        "training/optimizers.py",
        "keep = config.optimizer.decay_depthwise or not depthwise",
        "keep = True",
        "test_optimizers.py::test_who_is_spared_the_decay[options1-expected1]",
    ),
    Mutation(
        "learning: Muon takes all groups as one matrix",
        "training/optimizers.py",
        "return {layer.kernel.path: layer.groups for layer in layers[1:]}",
        "return {layer.kernel.path: 1 for layer in layers[1:]}",
        "test_optimizers.py::test_muon_takes_hidden_convolutions_per_group_and_leaves_the_rest"
        "_to_adamw",
    ),
    Mutation(
        "learning: decay counts from the start",
        "training/schedules.py",
        "tf.maximum(step - self.warmup_steps, 0.0)",
        "step",
        "test_schedules.py::test_decay_counts_from_the_end_of_the_warm_up",
    ),
    Mutation(
        "learning: warm-up in coarse steps",
        "training/schedules.py",
        "(1.0 - start) * step / self.warmup_steps",
        "(1.0 - start) * (step // 10) * 10 / self.warmup_steps",
        "test_schedules.py::test_warm_up_is_per_step_and_reaches_the_peak[linear]",
    ),
    Mutation(
        "learning: step counter in half precision",
        "training/schedules.py",
        "step = tf.cast(step, tf.float32)",
        "step = tf.cast(tf.cast(step, tf.bfloat16), tf.float32)",
        "test_schedules.py::test_late_steps_of_long_runs_are_exact",
    ),
    Mutation(
        "learning: first stages released first",
        "training/finetune.py",
        "resting = backbone[: len(backbone) - released]",
        "resting = backbone[released:]",
        "test_finetune.py::test_head_first_then_stages_from_the_last_one",
    ),
    Mutation(
        "learning: frozen batch norm goes on",
        "training/finetune.py",
        "if layer.trainable != trainable:",
        'if layer.trainable != trainable and not layer.name.endswith("_bn"):',
        "test_finetune.py::test_frozen_layers_do_not_change_and_their_batch_norm_is_in_inference"
        "_mode",
    ),
)
