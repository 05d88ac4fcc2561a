"""Every key that a guide tells to set is one, and takes the value that is shown."""

import re

import pytest

from lightnets.config import keys as configs
from tests.checkout import ROOT

SHOWN = sorted(
    {
        (path.name, text)
        for path in (ROOT / "README.md", ROOT / "training" / "README.md", *ROOT.glob("docs/*.md"))
        for text in re.findall(r"--set (?:\\\n\s*)?'?([\w.]+=[^\s`']+)", path.read_text())
    }
)


@pytest.mark.parametrize(("guide", "text"), SHOWN)
def test_a_key_that_a_guide_shows_can_be_set(guide, text):
    # N and X stand for numbers.
    text = re.sub(r"=(N|X)$", "=1", text.rstrip(".,;:)"))
    configs.from_dict(configs.parse_assignment(text), where=guide)


def test_guides_show_some():
    assert len(SHOWN) > 10
