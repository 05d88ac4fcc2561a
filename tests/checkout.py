"""This checkout's files."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]


def imports(path):
    """Dotted names of everything that a file imports, wherever in the file."""
    return imported(ast.parse(path.read_text()))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
