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
        "data: mirrored upside down",
        "training/data/augment.py",
        "tf.reverse(image, [1])",
        "tf.reverse(image, [0])",
        "test_augment.py::test_about_half_of_the_images_are_mirrored_and_the_rest_left_alone",
    ),
    Mutation(
        "data: crops are cut off instead of rounded",
        "training/data/augment.py",
        "tf.cast(pixels + 0.5, tf.uint8)",
        "tf.cast(pixels, tf.uint8)",
        "test_augment.py::test_a_resized_crop_is_rounded_not_cut_off",
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
    Mutation(
        "serving: a wide gate",
        "keras_lightnets/serving/gate.py",
        "TOLERANCE = 1e-5",
        "TOLERANCE = 1e-4",
        "test_gate.py::test_different_numbers_do_not[received0-largest difference of a probability "
        "3.00e-05]",
    ),
    Mutation(
        "serving: the gate looks at top-1 alone",
        "keras_lightnets/serving/gate.py",
        "if agreement < 1 or difference > tolerance:",
        "if agreement < 1:",
        "test_export_command.py::test_a_changed_graph_is_not_published",
    ),
    Mutation(
        "serving: accuracy may fall without limit",
        "keras_lightnets/serving/gate.py",
        "if drop > max_accuracy_drop:",
        "if drop > 1:",
        "test_export_command.py::test_int8_learns_its_ranges_from_training_images",
    ),
    Mutation(
        "serving: int8 learns from held-out images",
        "training/commands/export.py",
        "source = splits.train_source\n",
        "source = splits.eval_source\n",
        "test_export_command.py::test_int8_learns_its_ranges_from_training_images",
    ),
    Mutation(
        "serving: PNG copies are compared",
        "training/commands/export.py",
        "tf.io.encode_png(contents) if source.decoded else contents",
        "tf.io.encode_png(evaluation_image(contents, splits.transform))",
        "test_export_command.py::test_held_out_images_come_with_their_own_bytes",
    ),
    Mutation(
        "serving: the first images of a sorted split",
        "training/commands/export.py",
        "np.linspace(0, total - 1, limit).astype(np.int64)",
        "np.arange(limit)",
        "test_export_command.py::test_held_out_images_come_with_their_own_bytes",
    ),
    Mutation(
        "serving: no warm-up of files",
        "keras_lightnets/serving/warmup.py",
        "yield files([jpeg] * batch)",
        "files([jpeg] * batch)",
        "test_warmup.py::test_every_signature_and_batch_size_is_warmed_up",
    ),
    Mutation(
        "serving: class names in another order",
        "keras_lightnets/serving/signatures.py",
        "names = tf.constant(interface.labels, tf.string)",
        "names = tf.constant(sorted(interface.labels), tf.string)",
        "test_export.py::test_images_give_named_probabilities[3]",
    ),
    Mutation(
        "serving: scores of files that are none",
        "keras_lightnets/serving/signatures.py",
        "probabilities = tf.where(valid[:, tf.newaxis], probabilities, 0.0)",
        "probabilities = tf.where(valid[:, tf.newaxis], probabilities, 0.1)",
        "test_export.py::test_a_corrupt_file_harms_no_other_file_of_the_batch[no image]",
    ),
    Mutation(
        "serving: a version is written over",
        "keras_lightnets/serving/bundle.py",
        "    if version in existing:\n",
        "    if version in ():\n",
        "test_export.py::test_bad_input",
    ),
    Mutation(
        "serving: leftovers stay",
        "keras_lightnets/serving/bundle.py",
        "    _remove_leftovers(parent)\n",
        "",
        "test_bundle.py::test_a_killed_export_leaves_the_versions_whole_and_the_next_one_tidies_up",
    ),
    Mutation(
        "serving: two models under one name",
        "keras_lightnets/serving/bundle.py",
        "if list(labels) != published:",
        "if len(labels) != len(published):",
        "test_export.py::test_bad_input",
    ),
    Mutation(
        "serving: the fastest batch, however large",
        "keras_lightnets/serving/tuning.py",
        "return min(good, key=lambda row: (row.batch_size, row.threads))",
        "return max(good, key=lambda row: row.images_per_second)",
        "test_tuning.py::test_the_smallest_batch_and_fewest_threads_that_are_as_good_as_the_best",
    ),
    Mutation(
        "serving: the measurement is not used",
        "keras_lightnets/serving/deployment.py",
        "parameters = tuned.parameters if tuned else _start(sizes)",
        "parameters = _start(sizes)",
        "test_tuning.py::test_what_was_measured_is_written_whatever_the_start",
    ),
    Mutation(
        "serving: a measurement below published warm-ups",
        "keras_lightnets/serving/tuning.py",
        "largest = max(chosen.batch_size, least_batch)",
        "largest = chosen.batch_size",
        "test_tuning.py::test_batches_of_published_warm_ups_stay_allowed",
    ),
    Mutation(
        "serving: rows of merged requests shifted",
        "keras_lightnets/serving/server/batcher.py",
        "{name: value[end - task.rows : end] for name",
        "{name: value[: task.rows] for name",
        "test_server_batching.py::test_waiting_requests_share_a_run_and_get_their_own_rows",
    ),
    Mutation(
        "serving: padding with zeros",
        "keras_lightnets/serving/server/batcher.py",
        "np.repeat(first[:1], padding, axis=0)",
        "np.repeat(0 * first[:1], padding, axis=0)",
        "test_server_batching.py::test_batches_are_padded_to_allowed_sizes_with_a_real_row",
    ),
    Mutation(
        "serving: one bad request fails its batch",
        "keras_lightnets/serving/server/batcher.py",
        "                self._run(queue, [task])\n",
        "                task.future.set_exception(error)\n",
        "test_server_batching.py::test_one_bad_request_does_not_fail_the_others",
    ),
    Mutation(
        "serving: the queue has no end",
        "keras_lightnets/serving/server/batcher.py",
        "if queue.tasks and queue.rows + rows > room:",
        "if queue.tasks and queue.rows > 1000 * room:",
        "test_server_batching.py::test_a_full_queue_refuses",
    ),
    Mutation(
        "fit: the filling of a last batch counts",
        "training/fit_batches.py",
        "tf.where(place < count, weights, -1.0)",
        "tf.where(place < count, weights, 0.0)",
        "test_fit.py::test_every_image_is_counted_once",
    ),
    Mutation(
        "fit: the step has its own seed",
        "training/fit.py",
        "recompute=recompute, seed=seed)",
        "recompute=recompute)",
        "test_fit.py::test_fit_takes_the_steps_of_the_loop[cpu:1]",
    ),
    Mutation(
        "fit: batch norm keeps to the replica",
        "training/fit.py",
        "if sync_bn and self.replicas > 1:",
        "if sync_bn and self.replicas > 2:",
        "test_fit.py::test_two_replicas_fit_as_one_does[2-False]",
    ),
    Mutation(
        "fit: broken weights are saved before the run ends",
        "training/fit.py",
        "callbacks = [guard, *tf.nest.flatten(callbacks or [])]",
        "callbacks = [*tf.nest.flatten(callbacks or []), guard]",
        "test_fit.py::test_weights_that_break_end_the_run_before_they_are_saved",
    ),
    Mutation(
        "serving: a version that failed to load counts as healthy",
        "keras_lightnets/serving/deployment.py",
        "grep -q '\\\"AVAILABLE\\\"' <&3",
        "grep -q AVAILABLE <&3",
        "test_deployment.py::test_the_health_check_reads_the_state[END-UNAVAILABLE-False]",
    ),
    Mutation(
        "workers: the start does not wait for the last one",
        "training/rendezvous.py",
        "        while missing:",
        "        while len(missing) > 1:",
        "test_rendezvous.py::test_all_go_on_when_the_last_one_has_come",
    ),
    Mutation(
        "workers: a resumed run waits for those of before",
        "training/resolve.py",
        'here = {"train": {"workers": None, "worker_index": 0}}',
        'here = {"train": {"worker_index": 0}}',
        "test_resolve.py::test_a_run_of_several_workers_goes_on_where_it_is_resumed",
    ),
)
