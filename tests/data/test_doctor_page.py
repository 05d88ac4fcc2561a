"""The data doctor's page in a real browser."""

import numpy as np
from PIL import Image

from lightnets.cli import main
from tests import pages


def test_every_picture_shows_and_no_file_name_becomes_markup(browser, tmp_path, capsys):
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    hostile = "<img src=x onerror=document.body.remove()>"
    for label in ("cat", "dog & <b>cow"):
        folder = pictures / label
        folder.mkdir(parents=True)
        for name in ("a", "b", hostile):
            pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png".replace("/", ""), "PNG")
    (pictures / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    page = tmp_path / "page.html"
    assert main(["data", "check", str(pictures), "--page", str(page)]) == 1
    capsys.readouterr()
    text = page.read_text()
    assert "<script" not in text
    assert text.count("data:image/") == 6
    for found in pages.check(browser, page):
        assert found["images"] == 6
        assert "1 finding" in found["text"]
