"""What a server of a version must answer: a few images with the trained network's answers.

assets.extra/selftest.py               asks a server, with Python's standard library
assets.extra/selftest/answers.json     probabilities, scores or values by image and signature
assets.extra/selftest/0.jpg, 0.ppm     an image file, and the pixels that are made of it
"""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np

from keras_lightnets.export import selftest
from keras_lightnets.export.parity import Reference
from keras_lightnets.export.signatures import IMAGE_BYTES
from keras_lightnets.export.tasks import CLASSIFICATION, Classification

# Between servers: other processors sum in other orders, GPUs since Ampere round to 11 bits.
_TOLERANCE, _OF_ROUNDED = 0.01, 0.1

_ENDINGS = {b"\xff\xd8": "jpg", b"\x89P": "png", b"BM": "bmp", b"GI": "gif", b"RI": "webp"}


def write(
    extra: pathlib.Path,
    expected: Reference,
    labels: Sequence[str],
    rounded: bool,
    count: int,
    task: Classification = CLASSIFICATION,
) -> None:
    """Writes `selftest.py` and what it compares with into `assets.extra` of a version.

    Args:
        extra: The folder; it is made if it is not there.
        expected: Of the parity gate.
        labels: Class names in the order of the output.
        rounded: Whether the exported network computes in bfloat16 or is trained for int8.
        count: At most so many images; 0: the script only, which then compares no answers.
        task: What the numbers mean.
    """
    folder = extra / selftest.ANSWERS.parent.name
    extra.mkdir(exist_ok=True)
    shutil.copyfile(selftest.__file__, extra / "selftest.py")
    if count == 0:
        return
    folder.mkdir()
    images = []
    for number, place in enumerate(_choose(expected, count)):
        file, pixels = expected.files[place], expected.held_out.images[place]
        name = f"{number}.{_ENDINGS.get(file[:2], 'image')}"
        (folder / name).write_bytes(file)
        header = b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0])
        (folder / f"{number}.ppm").write_bytes(header + pixels.tobytes())
        image = {"file": name, task.output: {}}
        for signature, answer in expected.answers.items():
            shares = answer.probabilities[place].tolist()
            image[task.output][signature] = [round(each, 7) for each in shares]
            if answer.known is not None:
                image.setdefault("known", {})[signature] = bool(answer.known[place])
        images.append(image)
    tolerance = task.tolerance(_OF_ROUNDED if rounded else _TOLERANCE)
    known = {"labels": list(labels), "tolerance": tolerance, "images": images}
    (folder / selftest.ANSWERS.name).write_text(json.dumps(known) + "\n", encoding="utf-8")


def _choose(expected: Reference, count: int) -> list[int]:
    """Places of small files of which the network is sure, of as many classes as possible."""
    probabilities = expected.answers[IMAGE_BYTES].probabilities
    by_size = np.argsort([len(file) for file in expected.files], kind="stable")
    small = by_size[: max(count, len(by_size) // 2)]
    ranked = small[np.argsort(-probabilities[small].max(-1), kind="stable")]
    firsts = np.sort(np.unique(probabilities[ranked].argmax(-1), return_index=True)[1])
    return [*ranked[firsts].tolist(), *np.delete(ranked, firsts).tolist()][:count]
