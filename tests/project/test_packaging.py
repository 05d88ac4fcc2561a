import configparser
import re
import tomllib

import keras_lightnets
from tests.checkout import ROOT


def test_setup_cfg_and_pyproject_never_state_the_same_fact():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(pyproject) == {"build-system", "tool"}
    assert set(pyproject["tool"]) & {section.split(":")[-1] for section in setup} == set()
    assert all(section.startswith(("metadata", "options")) for section in setup.sections())


def test_the_version_stands_in_one_place_and_in_the_changelog():
    assert "version = attr:" in (ROOT / "setup.cfg").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## (.+)$", changelog, flags=re.M)
    assert newest[0] == "Unreleased"
    released = [heading.split()[0] for heading in newest[1:]]
    assert not released or released[0] == keras_lightnets.__version__


def test_every_folder_of_code_is_a_package_that_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {"keras_lightnets": "keras_lightnets", "training": "lightnets"}
    found = [
        ".".join((name, *path.parent.relative_to(ROOT / folder).parts))
        for folder, name in folders.items()
        for path in (ROOT / folder).rglob("__init__.py")
    ]
    assert setup["options"]["packages"].split() == sorted(found)


def test_every_file_beside_the_code_is_installed():
    # Mutation: no line for `templates/*` or `*.yaml` in setup.cfg: a wheel lacks them.
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    installed = {
        path
        for package, patterns in setup["options.package_data"].items()
        for pattern in patterns.split()
        for path in (ROOT / re.sub("^lightnets", "training", package).replace(".", "/")).glob(
            pattern
        )
    }
    folders = (ROOT / "keras_lightnets", ROOT / "training")
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    code = (".py", ".pyc", ".md")
    assert {path for path in files - installed if path.suffix not in code} == set()


def test_every_public_name_resolves_and_is_documented():
    for name in keras_lightnets.__all__:
        value = getattr(keras_lightnets, name)
        assert name == "__version__" or value.__doc__, name


def test_links_of_the_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("training/*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_extra_named_in_a_message_exists():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = set(setup["options.extras_require"])
    for path in [*ROOT.glob("keras_lightnets/**/*.py"), *ROOT.glob("training/**/*.py")]:
        for names in re.findall(r"keras-lightnets\[([\w,]+)\]", path.read_text()):
            assert set(names.split(",")) <= extras, f"{path.relative_to(ROOT)} names {names}"
