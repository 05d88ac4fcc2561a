"""The embedded server's page for people, in a real browser."""

import http.server
import json
import re
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tests.serving_models import colour_png, serving, write_version

# Sends the picture that the test serves as if a person had dropped it, and tells what is seen.
PROBE = """<script>
addEventListener("load", async () => {
  while (!document.body.dataset.ready) await new Promise((done) => setTimeout(done, 20));
  const bytes = await (await fetch("/picture")).blob();
  await classify(new File([bytes], "it's.png"));
  await new Promise((done) => setTimeout(done, 200));
  const seen = {
    models: [...document.querySelectorAll("option")].map((option) => option.value),
    rows: [...document.querySelectorAll(".row")].map((row) => row.textContent),
    problem: document.getElementById("problem").textContent,
    request: document.getElementById("request").textContent,
    picture: document.getElementById("shown").naturalWidth,
    sideways: document.documentElement.scrollWidth > innerWidth,
  };
  document.body.textContent = encodeURIComponent(JSON.stringify(seen));
});
</script>"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("bundle")
    write_version(bundle / "colour", 1, scale=10.0)
    with serving(bundle, forked=True) as process:
        yield process


def through(url, picture):
    """Returns a server that adds a probe to the page at `url` and passes all else on."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self, body=None):
            if self.path == "/picture":
                return self.answer(200, picture)
            request = urllib.request.Request(url + self.path, body)
            try:
                with urllib.request.urlopen(request) as response:
                    status, content = response.status, response.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            self.answer(status, content + (PROBE.encode() if self.path == "/" else b""))

        def do_POST(self):
            self.do_GET(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(self, status, content):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=between.serve_forever, daemon=True).start()
    return between


def seen(browser, url, picture, folder):
    between = through(url, picture)
    try:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"]
        command += [f"--user-data-dir={folder / 'profile'}", "--disable-dev-shm-usage"]
        command += ["--timeout=60000", "--virtual-time-budget=20000", "--dump-dom"]
        command += [f"http://127.0.0.1:{between.server_port}/"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    finally:
        between.shutdown()
        between.server_close()
    text = re.search(r"<body[^>]*>(.*?)</body>", shown.stdout, re.DOTALL)[1]
    return json.loads(urllib.parse.unquote(text))


def test_a_picture_is_classified_on_the_page(browser, server, tmp_path):
    found = seen(browser, server.url, colour_png("green"), tmp_path)
    assert found["models"] == ["colour"]
    assert re.fullmatch(r"green: 0\.9\d+", found["rows"][0])
    assert (found["problem"], found["sideways"]) == ("", False)
    assert found["picture"] > 0
    assert "< 'it'\\''s.png' |" in found["request"]


def test_what_is_no_picture_is_said(browser, server, tmp_path):
    found = seen(browser, server.url, b"no picture", tmp_path)
    assert found["rows"] == []
    assert found["problem"]


def test_the_page_asks_nobody_else_and_can_be_left_out(server, tmp_path_factory):
    with urllib.request.urlopen(server.url) as response:
        policy = response.headers["Content-Security-Policy"]
        page = response.read().decode()
    assert policy.startswith("default-src 'none';")
    assert "connect-src 'self'" in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    bundle = tmp_path_factory.mktemp("other")
    write_version(bundle / "colour", 1, scale=10.0)
    with (
        serving(bundle, "--no-page", forked=True) as process,
        pytest.raises(urllib.error.HTTPError, match="404"),
    ):
        urllib.request.urlopen(process.url)
