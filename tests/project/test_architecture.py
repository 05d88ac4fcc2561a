"""Imports point one way only."""

import ast
import graphlib
import subprocess
import sys

import pytest

import keras_lightnets
from tests.checkout import ROOT, imported, imports

PACKAGES = {"keras_lightnets": "keras_lightnets", "lightnets": "training"}  # name -> folder

# Folder -> folders that it may import from, besides what lies at the top of `keras_lightnets`
# (version, paths, text, errors, intervals). CONTRIBUTING.md has the picture.
ARROWS = {
    "keras_lightnets": "",
    "keras_lightnets/catalogue": "",
    "keras_lightnets/layers": "",
    "keras_lightnets/preprocessing": "",
    "keras_lightnets/weights": "catalogue layers preprocessing",
    "keras_lightnets/networks": "catalogue layers preprocessing weights",
    "keras_lightnets/inference": "layers",
    "keras_lightnets/quantization": "inference layers",
    "keras_lightnets/export": "catalogue inference layers preprocessing quantization weights",
    "keras_lightnets/serving": "",
    "keras_lightnets/serving/server": "export serving",
    "training/support": "",
    "training/config": "support catalogue",
    "training/distribution": "config layers support",
    "training/optimization": "config layers support",
    "training/data/sources": "config support",
    "training/data": "catalogue config data/sources preprocessing support",
    "training/evaluation": "config data data/sources distribution inference preprocessing support",
    "training/doctor": "config data data/sources evaluation preprocessing support",
    "training/tasks": "evaluation layers networks serving support",
    "training/run": (
        "catalogue config data data/sources distribution evaluation export inference layers "
        "networks optimization preprocessing serving support training/tasks weights"
    ),
    "training/commands": (
        "catalogue config data data/sources distribution doctor evaluation export layers "
        "preprocessing run serving serving/server support training/tasks"
    ),
    "training": "config distribution layers optimization run serving support",
}


def sources():
    """The dotted name and the path of every module of both packages."""
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = (package, *path.relative_to(ROOT / folder).with_suffix("").parts)
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def arrows():
    """Module -> the modules of both packages that it imports, wherever in the file."""
    modules = dict(sources())
    below = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            # What only type checkers read ties nothing.
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
        names = {name for name in imported(tree) if name.partition(".")[0] in PACKAGES}
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        below[module] = (found & modules.keys()) - {module}
    return below


def test_no_module_is_imported_by_what_it_imports():
    """Imports inside functions count: they would only hide a circle."""
    graphlib.TopologicalSorter(arrows()).prepare()


def test_folders_import_only_what_lies_below_them():
    # Mutation: any import against the table, e.g. of `networks` in `weights`.
    folders = {module: str(path.parent.relative_to(ROOT)) for module, path in sources()}
    assert set(folders.values()) == set(ARROWS)
    allowed = {
        folder: {
            name
            if (ROOT / name).is_dir()
            else next(
                base for base in (f"keras_lightnets/{name}", f"training/{name}") if base in ARROWS
            )
            for name in names.split()
        }
        for folder, names in ARROWS.items()
    }
    used = {folder: set() for folder in ARROWS}
    for module, below in arrows().items():
        used[folders[module]] |= {folders[name] for name in below} - {folders[module]}
    # Both ways: a line of the table that nothing needs any more goes.
    assert {folder: names - {"keras_lightnets"} for folder, names in used.items()} == allowed
    graphlib.TopologicalSorter(used).prepare()


# Rooms that work on each of Keras' backends, and the one module there that imports TensorFlow,
# where that is the backend.
ON_ANY_BACKEND = ("catalogue", "layers", "networks", "weights")
ASKS_FOR_TENSORFLOW = "keras_lightnets.layers.placement"


def test_what_a_network_needs_imports_no_tensorflow():
    # Mutation: `import tensorflow` in any layer, or in `preprocessing.eval_transform`.
    below = arrows()
    need = {
        module
        for module in below
        if module.startswith(tuple(f"keras_lightnets.{room}" for room in ON_ANY_BACKEND))
    }
    while more := {name for module in need for name in below[module]} - need:
        need |= more
    paths = dict(sources())
    found = {name for name in need if any(n.startswith("tensorflow") for n in imports(paths[name]))}
    assert found == {ASKS_FOR_TENSORFLOW}


# Imports by name, which the table does not see: public names and layers, builders of networks,
# optional packages, commands.
BY_NAME = {
    "keras_lightnets",
    "keras_lightnets.networks.create",
    "keras_lightnets.export.runtimes",
    "lightnets.cli",
    "lightnets.support.modules",
}


def test_only_these_modules_import_by_name():
    calls = ("importlib.import_module", "pkgutil.resolve_name", "__import__")
    found = {
        module
        for module, path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in calls
    }
    assert found == BY_NAME


def test_functions_fit_on_a_screen():
    for module, path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - first[0].lineno + 1 if first else 0
                assert lines <= 60, f"{module}.{node.name} has {lines} lines of code"


def test_the_library_never_imports_training_and_never_asserts():
    for path in (ROOT / "keras_lightnets").rglob("*.py"):
        assert not [n for n in imports(path) if n.split(".")[0] in ("lightnets", "tests")], path
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path


# Modules that print nothing but words of their own.
OWN_WORDS = {"console", "demo", "cli"}


def test_commands_print_names_by_console_only():
    """What `print` shows may move the cursor, or end the command on an ASCII terminal."""
    for path in (ROOT / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                safe = ast.unparse(node.args[0]).startswith(("json.dumps(", "csv_text("))
                assert safe or path.stem in OWN_WORDS, (path, node.lineno)


def test_keras_is_imported_as_keras():
    """`from tensorflow import keras` could be another Keras than ours."""
    for _, path in sources():
        assert "tensorflow.keras" not in set(imports(path)), path


def test_public_names_resolve_and_importing_the_package_is_cheap():
    code = (
        "import sys, keras_lightnets, keras_lightnets.catalogue.registry\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="No keras_lightnets attribute ResNet"):
        _ = keras_lightnets.ResNet
    for name in keras_lightnets.__all__:
        assert getattr(keras_lightnets, name) is not None


# What leads from a tensor to the operation that made it, or into a graph.
_GRAPH = {
    "add_to_collection",
    "as_graph_def",
    "get_attr",
    "get_collection",
    "get_operation_by_name",
    "get_operations",
    "get_tensor_by_name",
    "graph_def",
    "node_def",
    "op",
}
GRAPH_READERS = {
    "keras_lightnets.export.litert": "whether the graph of a network holds its batch size",
    "keras_lightnets.inference.parts": "the sizes of all maps of a network, whatever made them",
}


def test_nothing_is_decided_by_the_operations_that_a_layer_made():
    """Layers that work together hand over objects: another form of an operation breaks nothing."""
    readers = {
        module
        for module, path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in _GRAPH
    }
    assert readers == GRAPH_READERS.keys()


def test_one_module_answers_what_the_layers_run_on():
    """Others would forget the strategy: `--devices cpu:1` where there is a GPU."""
    asking = {path.name for _, path in sources() if '_devices("GPU")' in path.read_text()}
    assert asking == {"placement.py", "strategy.py"}
