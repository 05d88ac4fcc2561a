"""What a graph really computes."""


def used_operations(graph):
    """Returns the operations that the outputs of a graph depend on."""
    used, todo = set(), [tensor.op for tensor in graph.outputs]
    while todo:
        op = todo.pop()
        if op not in used:
            used.add(op)
            todo += [tensor.op for tensor in op.inputs]
    return used
