"""The site of `make docs`, in a real browser."""

import re
import runpy
import subprocess
import sys

import pytest

from keras_lightnets.networks.options import NetworkOptions
from tests import pages
from tests.checkout import ROOT

# What a reader would look for in the page of the builders.
MORE = """(() => {
  const all = (query) => [...document.querySelectorAll(query)].map((part) => part.textContent);
  return {
    members: all("main section[id]").length,
    torn: all(".docstring ul + ul").length,
    signature: all("#ShuffleNetV1 .signature").join(""),
    arguments: all("#ShuffleNetV1 .docstring ul:first-of-type > li"),
  };
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "docs/site/build.py", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warn" not in done.stderr.replace("WARNING: All log messages before absl", "")
    return folder


@pytest.fixture(scope="module")
def seen(site, browser):
    """What a browser saw of each page, in a window of 1300 pixels."""
    names = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    found = pages.examine(browser, site, names, width=1300, more=MORE)
    return dict(zip(names, found, strict=True))


@pytest.mark.slow
def test_the_pages_are_the_guides_and_what_is_public(seen):
    guides = {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    names = ["keras_lightnets", "layers", "preprocessing", "serving"]
    api = {f"keras_lightnets/{name}.html" for name in names[1:]} | {"keras_lightnets.html"}
    others = {"index.html", "CHANGELOG.html", "CONTRIBUTING.html", "training/README.html"}
    api |= {"lightnets/fit.html"}
    assert seen.keys() == guides | api | others
    assert {page for page, facts in seen.items() if facts["more"]["members"]} == api


@pytest.mark.slow
def test_every_page_can_be_read_on_a_phone_and_at_night(browser, site, seen):
    pages.check(browser, site, list(seen))
    for page, facts in seen.items():
        assert facts["wide"] <= 1300, page
        assert not facts["more"]["torn"], f"{page}: a list of a docstring falls apart"


def test_a_link_that_leads_nowhere_and_a_guide_that_none_leads_to_are_errors(tmp_path):
    # Mutations: any place of another page counts; links without a place are not followed.
    build = runpy.run_path(str(ROOT / "docs" / "site" / "build.py"))
    (tmp_path / "in").mkdir()
    (tmp_path / "a.html").write_text(
        '<h1 id="ü">x</h1><a href="in/b.html#c"></a><a href="in/b.html#d"></a><img src="e.png">'
    )
    (tmp_path / "in" / "b.html").write_text(
        '<p id="c"><a href="../a.html#%C3%BC"></a><a href="f.html"><a href="https://f/g.html"></a>'
    )
    assert build["dead_links"](tmp_path) == [
        "a.html links to in/b.html#d",
        "a.html links to e.png",
        "in/b.html links to f.html",
    ]
    guides, root = build["guides"], tmp_path / "checkout"
    (root / "docs").mkdir(parents=True)
    (root / "README.md").write_text("[a](docs/a.md)")
    (root / "docs" / "a.md").write_text("[b](b.md#place), [back](../README.md)")
    (root / "docs" / "b.md").write_text("")
    guides.__globals__["ROOT"] = root
    assert guides() == ("README.md", "docs/a.md", "docs/b.md")
    (root / "docs" / "c.md").write_text("[a](a.md)")
    with pytest.raises(ValueError, match=r"No guide links to docs/c\.md\."):
        guides()


@pytest.mark.slow
def test_a_builder_shows_all_its_arguments_with_types_and_defaults(seen):
    # Mutations: pdoc's default style of docstrings; `**options` not written out.
    facts = seen["keras_lightnets.html"]["more"]
    signature = " ".join(facts["signature"].split())
    for part in ("groups: int = 3", "stem_filters: int | None = None", ") -> keras.Model"):
        assert part in signature
    listed = [re.match(r"\w+", text)[0] for text in facts["arguments"]]
    assert listed == [
        "input_shape",
        "groups",
        "alpha",
        "stem_filters",
        "se",
        *NetworkOptions.__annotations__,
    ]
    classes = facts["arguments"][listed.index("classes")]
    assert " ".join(classes.split()).startswith(
        "classes (int | list[str] | tuple[str, ...]): Number"
    )
