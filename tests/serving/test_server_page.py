"""The embedded server's page for people, in a real browser."""

import re
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from tests import pages
from tests.serving_models import KnowingModel, colour_png, serving, write_version


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("bundle")
    write_version(bundle / "colour", 1, 10.0, KnowingModel)
    with serving(bundle, forked=True) as process:
        yield process


def test_the_page_can_be_read_on_a_phone_and_at_night(browser, server):
    for found in pages.check(browser, server.url, ["/"]):
        assert found["text"]


def test_a_picture_is_classified_on_the_page(browser, server):
    found = pages.tried(browser, server.url, colour_png("green"))
    assert found["models"] == ["colour"]
    assert re.fullmatch(r"green: 0\.9\d+", found["rows"][0])
    assert (found["problem"], found["sideways"]) == ("", False)
    assert found["picture"] > 0
    assert "None of the classes" not in found["answer"]
    assert "< 'it'\\''s.png' |" in found["request"]


def test_a_picture_of_none_of_the_classes_is_said(browser, server):
    grey = tf.io.encode_png(np.full((20, 20, 3), 128, np.uint8)).numpy()
    found = pages.tried(browser, server.url, grey)
    assert found["answer"].startswith("None of the classes: it is unlike all of them.")
    assert len(found["rows"]) == 2


def test_what_is_no_picture_is_said(browser, server):
    found = pages.tried(browser, server.url, b"no picture")
    assert found["rows"] == []
    assert found["problem"]


def test_the_page_asks_nobody_else_and_can_be_left_out(server, tmp_path_factory):
    with urllib.request.urlopen(server.url) as response:
        page = response.read().decode()
    assert "default-src 'none'; connect-src 'self';" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    bundle = tmp_path_factory.mktemp("other")
    write_version(bundle / "colour", 1, scale=10.0)
    with (
        serving(bundle, "--no-page", forked=True) as process,
        pytest.raises(urllib.error.HTTPError, match="404"),
    ):
        urllib.request.urlopen(process.url)
