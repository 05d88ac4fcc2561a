"""What a graph really computes."""

import tensorflow as tf
from tensorflow.python.eager import context


def used_operations(graph):
    """Returns the operations that the outputs of a graph depend on."""
    used, todo = set(), [tensor.op for tensor in graph.outputs]
    while todo:
        op = todo.pop()
        if op not in used:
            used.add(op)
            todo += [tensor.op for tensor in op.inputs]
    return used


def run_operations(function, *arguments):
    """Runs a `tf.function` once and returns the operations that TensorFlow made of it."""
    context.context().enable_graph_collection()
    try:
        function(*arguments)
        collected = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    largest = max((graph.post_optimization_graph for graph in collected), key=lambda g: len(g.node))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(largest, name="")
    return graph.get_operations()
