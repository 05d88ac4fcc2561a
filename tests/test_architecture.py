"""Imports point one way only."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

import keras_lightnets

ROOT = pathlib.Path(keras_lightnets.__file__).parents[1]
NETS = {"squeezenet", "mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2"}
# Module of keras_lightnets -> what it may import from the package. `weights` reaches the nets
# through the registry's strings only.
ALLOWED = {
    "_version": set(),
    "options": set(),
    "model_rows": set(),
    "weight_rows": set(),
    "text": set(),
    "paths": set(),
    "weight_files": {"text"},
    "imagenet": set(),
    "keras_h5": {"convert", "weight_files"},
    "state_dict_names": set(),
    "complexity": set(),
    "registry": {"model_rows", "weight_rows"},
    "blocks": {"layers"},
    "classifier": {"options"},
    "downloads": {"paths", "weight_files", "weight_rows"},
    "convert": {"classifier", "state_dict_names"},
    "osmr": {"convert", "downloads", "keras_h5", "weight_files"},
    "saved_weights": {"classifier", "convert", "text", "weight_files"},
    "weights": {
        "convert",
        "downloads",
        "imagenet",
        "keras_h5",
        "layers",
        "osmr",
        "preprocessing",
        "registry",
        "saved_weights",
        "weight_files",
        "weight_rows",
    },
    "network": {"blocks", "classifier", "layers", "options", "preprocessing", "weights"},
    **{net: {"blocks", "layers", "network", "options", "weights"} for net in NETS},
}


def imports(path):
    """Dotted names of everything that a file imports, wherever in the file."""
    return imported(ast.parse(path.read_text()))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_modules_import_only_what_lies_below_them(module):
    found = {
        name.split(".")[1]
        for name in imports(ROOT / "keras_lightnets" / f"{module}.py")
        if name.startswith("keras_lightnets.")
    }
    assert found <= ALLOWED[module]


def sources():
    """The dotted name and the path of every module of both packages."""
    for package in ("keras_lightnets", "training"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_no_module_is_imported_by_what_it_imports():
    """Imports inside functions count: they would only hide a circle."""
    modules = dict(sources())
    below = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            # What only type checkers read ties nothing.
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
        names = {
            name
            for name in imported(tree)
            if name.partition(".")[0] in ("keras_lightnets", "training")
        }
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        below[module] = (found & modules.keys()) - {module}
    graphlib.TopologicalSorter(below).prepare()


def test_functions_fit_on_a_screen():
    for module, path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - first[0].lineno + 1 if first else 0
                assert lines <= 60, f"{module}.{node.name} has {lines} lines of code"


def test_the_library_never_imports_training_and_never_asserts():
    for path in (ROOT / "keras_lightnets").rglob("*.py"):
        assert not [n for n in imports(path) if n.split(".")[0] in ("training", "tests")], path
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path


# Modules that print nothing but words of their own.
OWN_WORDS = {"console", "demo", "cli", "list", "info", "benchmark"}


def test_commands_print_names_by_console_only():
    """What `print` shows may move the cursor, or end the command on an ASCII terminal."""
    for path in (ROOT / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                safe = ast.unparse(node.args[0]).startswith(("json.dumps(", "csv_text("))
                assert safe or path.stem in OWN_WORDS, (path, node.lineno)


def test_keras_is_imported_as_keras():
    """`from tensorflow import keras` could be another Keras than ours."""
    for package in ("keras_lightnets", "training"):
        for path in (ROOT / package).rglob("*.py"):
            assert "tensorflow.keras" not in set(imports(path)), path


def test_public_names_resolve_and_importing_the_package_is_cheap():
    code = (
        "import sys, keras_lightnets, keras_lightnets.registry\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="No keras_lightnets attribute ResNet"):
        _ = keras_lightnets.ResNet
    for name in keras_lightnets.__all__:
        assert getattr(keras_lightnets, name) is not None
