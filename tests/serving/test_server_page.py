"""The embedded server's page for people, in a real browser."""

import base64
import json
import re
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tests import pages
from tests.serving_models import colour_png, serving, write_version

# Sends a picture as if a person had dropped it, and tells what is seen.
PROBE = """<script>
addEventListener("load", async () => {
  while (!document.body.dataset.ready) await new Promise((done) => setTimeout(done, 20));
  const bytes = Uint8Array.from(atob("PICTURE"), (letter) => letter.charCodeAt(0));
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


def seen(browser, url, picture):
    probe = PROBE.replace("PICTURE", base64.b64encode(picture).decode())
    with pages.between(url, probe) as address:
        text, errors = pages.dump(browser, f"{address}/", "--window-size=500,900")
    return json.loads(urllib.parse.unquote(text)) | {"errors": errors}


def test_the_page_can_be_read_on_a_phone_and_at_night(browser, server):
    for found in pages.check(browser, server.url, ["/"]):
        assert found["text"]


def test_a_picture_is_classified_on_the_page(browser, server):
    found = seen(browser, server.url, colour_png("green"))
    assert found["models"] == ["colour"]
    assert re.fullmatch(r"green: 0\.9\d+", found["rows"][0])
    assert (found["problem"], found["sideways"], found["errors"]) == ("", False, [])
    assert found["picture"] > 0
    assert "< 'it'\\''s.png' |" in found["request"]


def test_what_is_no_picture_is_said(browser, server):
    found = seen(browser, server.url, b"no picture")
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
