"""`docs/networks.md`: its drawings are those of its script, its numbers those of the catalogue."""

import re
import runpy

from keras_lightnets.catalogue.registry import model_info
from lightnets.commands.list import FIRST
from tests.checkout import ROOT

DOCS = ROOT / "docs"


def test_the_drawings_are_those_of_the_script():
    drawn = dict(runpy.run_path(str(DOCS / "networks" / "draw.py"))["drawings"]())
    files = {path.name: path.read_text() for path in (DOCS / "networks").glob("*.svg")}
    assert files == drawn
    shown = re.findall(r"\(networks/(\w+\.svg)\)", (DOCS / "networks.md").read_text())
    assert sorted(shown) == sorted(drawn)


def test_the_plot_is_that_of_its_script():
    script = runpy.run_path(str(DOCS / "choosing" / "draw.py"))
    drawn = script["drawing"](script["measured"]())
    assert (DOCS / "choosing" / "networks.svg").read_text() == drawn
    assert set(script["measured"]()) == set(FIRST), "the first table of `lightnets list`"


def test_the_table_is_that_of_the_catalogue():
    rows = re.findall(
        r"\| `(\w+)` \|[^|]*\| (\d+) M \| ([\d.]+) M \| ([^|]*) \|",
        (DOCS / "networks.md").read_text(),
    )
    assert len(rows) == 5
    for name, macs, parameters, top1 in rows:
        info = model_info(name)
        assert round(info.macs / 1e6) == int(macs)
        assert f"{info.parameters / 1e6:.2f}" == parameters
        printed = "none printed" if info.paper_top1 is None else f"{info.paper_top1} %"
        assert top1.startswith(printed)
