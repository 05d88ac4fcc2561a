"""Writes `transform.npz`: what torchvision's evaluation transform makes of photographs.

    python tests/goldens/transform/make.py china.jpg flower.jpg

Needs torchvision. The photographs are those that scikit-learn ships. Only every 14th row and
column is kept, which is 12 kB.
"""

import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

EVERY = 14


def main(paths):
    found = {}
    for path in map(pathlib.Path, paths):
        whole = Image.open(path).convert("RGB")
        for shape, image in {"whole": whole, "tall": whole.crop((100, 0, 311, 427))}.items():
            for name in ("bilinear", "bicubic"):
                crop = v2.CenterCrop(224)
                resize = v2.Resize(256, InterpolationMode(name))
                tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
                results = {"antialias": np.asarray(crop(resize(image)))}
                if name == "bilinear":
                    # Without antialias torch's bicubic is another one (a = -0.75).
                    plain = v2.Resize(256, InterpolationMode(name), antialias=False)
                    results["plain"] = crop(plain(tensor)).permute(1, 2, 0).numpy()
                for kind, pixels in results.items():
                    found[f"{path.stem} {shape} {name} {kind}"] = pixels[::EVERY, ::EVERY]
    np.savez_compressed(pathlib.Path(__file__).with_name("torchvision.npz"), **found)


if __name__ == "__main__":
    main(sys.argv[1:])
