"""Without a GPU: every operation has a kernel for one, and XLA can be given the step for one."""

import pytest
import tensorflow as tf

from tests import gpu_steps, processes

FAMILIES = ["squeezenet", "mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2"]


def test_what_has_no_kernel_and_what_varies_is_found():
    @tf.function(autograph=False)
    def mixed(x, y):
        scale, mean = tf.ones((8,)), tf.zeros((8,))
        with tf.GradientTape() as tape:
            tape.watch(x)
            normal, _, _ = tf.compat.v1.nn.fused_batch_norm(
                x, scale, mean, mean, scale, is_training=False
            )
        return tape.gradient(normal, x), tf.strings.length(y), tf.unique(tf.size(y)[None])

    graph = mixed.get_concrete_function(
        tf.TensorSpec((1, 4, 4, 8)), tf.TensorSpec((None,), tf.string)
    ).graph.as_graph_def()
    assert gpu_steps.missing(graph) == ["Size T=string out_type=int32", "StringLength "]
    assert {n.op for n in graph.node if gpu_steps.varies(n)} == {"FusedBatchNormGradV3"}


STEPS = [
    *((family, "float32", "cpu:1", {"deterministic": True}) for family in FAMILIES),
    ("squeezenet", "mixed_bfloat16", "cpu:2", {"accumulate": 2}),
    ("mobilenet_v2", "mixed_float16", "cpu:2", {"sync_bn": True}),
]


@pytest.mark.parametrize(
    ("family", "policy", "devices", "keys"),
    [
        *(pytest.param(*step, marks=pytest.mark.slow) for step in STEPS),
        *(
            pytest.param(family, *rest, marks=pytest.mark.nightly)
            for family in FAMILIES
            for rest in (
                ("mixed_float16", "cpu:1", {}),
                ("mixed_bfloat16", "cpu:1", {"recompute": True, "ema": 0.9, "clip": 1.0}),
            )
        ),
    ],
)
def test_every_operation_of_a_step_has_a_kernel(family, policy, devices, keys):
    call = gpu_steps.missing_of_step
    assert not processes.call(call, family, policy, devices, timeout=600, **keys)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_operation_of_evaluation_and_inference_has_a_kernel(family):
    assert not processes.call(gpu_steps.missing_of_inference, family, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_xla_takes_the_step_for_a_gpu(family):
    hlo = processes.call(gpu_steps.lowered, family, "mixed_bfloat16", recompute=True, timeout=600)
    again = hlo.count(" batch-norm-inference(")
    assert again == hlo.count(" opt-barrier(")
    assert again > 10 or family == "squeezenet"  # which has none


@pytest.mark.slow
def test_under_xla_too_recomputation_saves_memory(tmp_path):
    plain, recomputed = (
        processes.call(
            gpu_steps.temporary_bytes,
            str(tmp_path / str(recompute)),
            "mobilenet_v2",
            "float32",
            recompute=recompute,
            timeout=600,
        )
        for recompute in (False, True)
    )
    assert recomputed < 0.7 * plain
