"""The site of `make docs`, in a real browser."""

import functools
import http.server
import json
import re
import subprocess
import sys
import threading
import urllib.parse

import pytest

from keras_lightnets.networks.options import NetworkOptions
from tests.checkout import ROOT

# Opens every page in a frame and says what a reader would notice.
PROBE = """<!doctype html><title>probe</title><body><iframe width=1300 height=900></iframe><script>
const look = (page) => new Promise((done) => {
  const frame = document.querySelector("iframe");
  frame.onload = () => {
    const all = (query) => [...frame.contentDocument.querySelectorAll(query)];
    const root = frame.contentDocument.documentElement;
    const builder = "#ShuffleNetV1";
    done({
      links: all("a[href]").map((a) => a.href),
      ids: all("[id]").map((element) => element.id),
      broken: all("img").filter((image) => !image.naturalWidth).map((image) => image.src),
      sideways: root.scrollWidth > root.clientWidth,
      members: all("main section[id]").length,
      torn: all(".docstring ul + ul").length,
      signature: all(`${builder} .signature`).map((part) => part.textContent).join(""),
      arguments: all(`${builder} .docstring ul:first-of-type > li`).map((li) => li.textContent),
    });
  };
  frame.src = page;
});
(async () => {
  const seen = {};
  for (const page of PAGES) seen[page] = await look(page);
  document.body.textContent = encodeURIComponent(JSON.stringify(seen));
})();
</script>"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "docs/site/build.py", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warn" not in done.stderr.replace("WARNING: All log messages before absl", "")
    return folder


@pytest.fixture(scope="module")
def seen(site, browser, tmp_path_factory):
    """What the browser saw of each page."""
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    (site / "probe.html").write_text(PROBE.replace("PAGES", json.dumps(pages)))
    handler = functools.partial(_Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
        ]
        command += ["--disable-dev-shm-usage", f"--user-data-dir={tmp_path_factory.mktemp('user')}"]
        command += ["--window-size=1400,1000", "--virtual-time-budget=60000", "--dump-dom"]
        command.append(f"http://127.0.0.1:{server.server_port}/probe.html")
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        finally:
            server.shutdown()
    (site / "probe.html").unlink()
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    text = re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)[1].strip()
    found = json.loads(urllib.parse.unquote(text))
    assert found.keys() == set(pages)
    return found


@pytest.mark.slow
def test_the_pages_are_the_guides_and_what_is_public(seen):
    guides = {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    names = ["keras_lightnets", "layers", "preprocessing", "serving"]
    api = {f"keras_lightnets/{name}.html" for name in names[1:]} | {"keras_lightnets.html"}
    others = {"index.html", "CHANGELOG.html", "CONTRIBUTING.html", "training/README.html"}
    api |= {"lightnets/fit.html"}
    assert seen.keys() == guides | api | others
    assert {page for page, facts in seen.items() if facts["members"]} == api


@pytest.mark.slow
def test_no_link_is_dead_and_no_page_breaks_its_frame(site, seen):
    for page, facts in seen.items():
        assert not facts["broken"], page
        assert not facts["sideways"], page
        assert not facts["torn"], f"{page}: a list of a docstring falls apart"
        for link in facts["links"]:
            url = urllib.parse.urlsplit(link)
            if url.hostname != "127.0.0.1":
                continue
            target = urllib.parse.unquote(url.path).lstrip("/")
            assert (site / target).is_file(), f"{page} links to {link}"
            if url.fragment and target in seen:
                ids = seen[target]["ids"]
                assert urllib.parse.unquote(url.fragment) in ids, f"{page} links to {link}"


@pytest.mark.slow
def test_a_builder_shows_all_its_arguments_with_types_and_defaults(seen):
    # Mutations: pdoc's default style of docstrings; `**options` not written out.
    facts = seen["keras_lightnets.html"]
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
    assert " ".join(classes.split()).startswith("classes (int): Number of classes")
