"""What a browser knows of pages of ours: on a phone and on a desk, in light and in dark."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import mimetypes
import pathlib
import queue
import re
import subprocess
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

from keras_lightnets.export.browser import FLAGS, opened

# Runs in every page: tells the page around it what it found.
_PROBE = """
<script>
addEventListener("load", () => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const mixed = (color, back) => {
    const share = color[3] ?? 1;
    return back.map((part, k) => share * color[k] + (1 - share) * part);
  };
  const light = (color) => color.map((part, k) => {
    const share = part / 255, weight = [0.2126, 0.7152, 0.0722][k];
    return weight * (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  }).reduce((sum, part) => sum + part);
  const background = (node) => {
    if (!node) return [255, 255, 255];
    const color = channels(getComputedStyle(node).backgroundColor);
    return mixed(color, background(node.parentElement));
  };
  let contrast = 21, worst = "";
  for (const node of document.body.querySelectorAll("*")) {
    if (![...node.childNodes].some((part) => part.nodeType === 3 && part.data.trim())) continue;
    if (["SCRIPT", "STYLE"].includes(node.tagName) || !node.getClientRects().length) continue;
    const behind = background(node);
    const one = light(mixed(channels(getComputedStyle(node).color), behind)), two = light(behind);
    const found = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (found < contrast) [contrast, worst] = [found, node.outerHTML.slice(0, 200)];
  }
  const own = (link) => link.hash && link.pathname === location.pathname;
  const here = [...document.links].filter(own);
  parent.postMessage({
    contrast, worst,
    images: document.images.length,
    broken: [...document.images].filter((image) => image.src && !image.naturalWidth).map(
      (image) => image.src),
    wide: document.documentElement.scrollWidth,
    dangling: here.map((link) => link.hash).filter(
      (place) => !document.getElementById(decodeURIComponent(place.slice(1)))),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    text: document.body.innerText,
    more: MORE,
  }, "*");
});
</script>
"""
# A window of less than 500 pixels cannot be had; a frame can.
_FRAME = """<!DOCTYPE html><body><iframe width="WIDTH" height="800"></iframe><script>
const pages = PAGES, found = [], frame = document.querySelector("iframe");
const next = () => {
  if (found.length < pages.length) frame.src = pages[found.length];
  else document.body.textContent = encodeURIComponent(JSON.stringify(found));
};
addEventListener("message", (event) => { found.push(event.data); next(); });
next();
</script>"""


def _fetch(source, path, body=None):
    """Returns status, kind and content of what a folder, or the server at a URL, has at a path."""
    if isinstance(source, pathlib.Path):
        file = source / (urllib.parse.unquote(path.lstrip("/")) or "index.html")
        if not file.is_file():
            return 404, "text/plain", b""
        return 200, mimetypes.guess_type(file.name)[0] or "text/plain", file.read_bytes()
    try:
        with urllib.request.urlopen(urllib.request.Request(source + path, body)) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, "text/plain", error.read()


@contextlib.contextmanager
def between(source, probe, frame="", seen=None):
    """Yields the address of a server that adds a probe to each page of a folder or server.

    Args:
        source: The folder, or the URL of the server.
        probe: HTML that is added to every page.
        frame: The page at `/frame`.
        seen: A queue for what pages send to `/seen`.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self, body=None):
            path = urllib.parse.urlsplit(self.path).path
            status, kind, content = 200, "text/html", frame.encode()
            if path != "/frame":
                status, kind, content = _fetch(source, path, body)
                content += probe.encode() * (kind == "text/html")
            self.send_response(status)
            coded = "; charset=utf-8" if kind.startswith("text/") else ""
            self.send_header("Content-Type", kind + coded)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/seen":
                seen.put(json.loads(body))
            self.do_GET(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def dump(browser, url, *flags):
    """Returns the text of a page after its scripts have run, and the errors that they had."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *FLAGS, "--dump-dom", "--enable-logging=stderr"]
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=60000", *flags, url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return re.search(r"<body[^>]*>(.*?)</body>", done.stdout, re.DOTALL)[1].strip(), errors


def examine(browser, source, names, *, width=360, dark=False, more="null"):
    """Returns what a browser found in each page, in their order.

    Args:
        browser: Its program.
        source: The folder of the pages, or the URL of their server.
        names: Of the pages, below the source.
        width: Of the window, in pixels.
        dark: Whether the reader prefers it.
        more: An expression of JavaScript; its value in a page comes as `more`.

    Returns:
        For each page a dict. `contrast` is the lowest of any text with what is behind it, as WCAG 2
        defines it.
    """
    pages = [urllib.parse.quote(name) for name in names]
    frame = _FRAME.replace("WIDTH", str(width)).replace("PAGES", json.dumps(pages))
    with between(source, _PROBE.replace("MORE", more), frame) as address:
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        text, errors = dump(browser, f"{address}/frame", scheme, "--window-size=1400,1000")
    assert not errors, errors
    found = json.loads(urllib.parse.unquote(text))
    assert len(found) == len(names)
    return found


def check(browser, source, names=None):
    """Asserts what every page of ours keeps, on a phone, in light and in dark; returns both.

    Args:
        browser: Its program.
        source: A page; with names the folder of the pages, or the URL of their server.
        names: Of the pages.
    """
    if names is None:
        source, names = source.parent, [source.name]
    both = []
    for dark in (False, True):
        both += examine(browser, source, names, dark=dark)
        for name, found in zip(names, both[-len(names) :], strict=True):
            assert found["dark"] == dark
            assert found["contrast"] >= 4.5, (name, found["worst"])  # WCAG 2, AA
            assert found["wide"] <= 360, f"{name} must not scroll sideways"
            assert (found["broken"], found["dangling"]) == ([], []), name
    return both


# Sends a picture as if a person had dropped it, and tells what is seen.
_TRY = """<script>
addEventListener("load", async () => {
  while (!document.body.dataset.ready) await new Promise((done) => setTimeout(done, 20));
  const bytes = Uint8Array.from(atob("PICTURE"), (letter) => letter.charCodeAt(0));
  await classify(new File([bytes], "it's.png"));
  while (at("shown").naturalWidth === 0 && !at("shown").hidden)
    await new Promise((done) => setTimeout(done, 20));
  const seen = {
    models: [...document.querySelectorAll("option")].map((option) => option.value),
    answer: document.getElementById("answer").textContent,
    rows: [...document.querySelectorAll(".row")].map((row) => row.textContent),
    problem: document.getElementById("problem").textContent,
    request: document.getElementById("request")?.textContent,
    about: document.getElementById("about").textContent,
    picture: document.getElementById("shown").naturalWidth,
    sideways: document.documentElement.scrollWidth > innerWidth,
  };
  await fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
});
</script>"""


def tried(browser, source, picture):
    """Returns what a person sees who drops a picture on the page of a folder or server."""
    seen = queue.Queue()
    probe = _TRY.replace("PICTURE", base64.b64encode(picture).decode())
    # Not `dump`: its clock runs on while a network is compiled.
    with (
        between(source, probe, seen=seen) as address,
        opened(browser, f"{address}/", "--window-size=500,900"),
    ):
        return seen.get(timeout=120)
