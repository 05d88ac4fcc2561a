"""Does `--reject` find images of classes that a network was not trained on, in every format?

    python benchmarks/rejection.py

The packaged digits 0 to 7 are the classes, 8 and 9 are unknown. For each seed a network is trained
by `lightnets train`, exported with `--reject 0.95`, and every held-out and unknown image is sent as
a PNG file through the Keras model, each exported file and the embedded server: the share of
images that all of them judge alike. About eight minutes of processor time a seed.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import tempfile

import common
import numpy as np
from PIL import Image

from lightnets import cli
from lightnets.demo import server
from lightnets.run import artifacts, directory

NAME, CLASSES, COVERAGE = "digits", 8, 0.95
FORMATS = ("tf_serving", "litert", "litert-float16", "onnx", "openvino", "keras")
COLUMNS = [
    *("network", "seed", "accuracy", "held_out_images", "unknown_images", "auroc"),
    *("known_held_out", "unknown_rejected", "error_before", "error", "same", "differing"),
    *("date", "versions"),
]


def write_digits(folder: pathlib.Path) -> None:
    """Writes `known/train`, `known/val` with a folder a class, and `unknown`, as PNG files."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    parts = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    for split, places in zip(("train", "val"), parts, strict=True):
        for place in places:
            digit = labels[place]
            own = folder / "known" / split / str(digit) if digit < CLASSES else folder / "unknown"
            own.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[place]).save(own / f"{place}.png")


def measure(network: str, seed: int, epochs: int, folder: pathlib.Path) -> dict[str, object]:
    """Trains and exports one network; returns the row of the result."""
    run, served = folder / f"run-{network}-{seed}", folder / f"served-{network}-{seed}"
    unknown = folder / "unknown"
    words = f"train {folder / 'known'} --recipe digits --model {network} --epochs {epochs}"
    reject = f"--reject {COVERAGE} --unknown {unknown}"
    for line in (
        f"{words} --seed {seed} --out {run}",
        f"export {run} --out {served} --name {NAME} {reject} --formats {','.join(FORMATS)}",
    ):
        if cli.main(line.split()):
            raise SystemExit(f"`lightnets {line}` failed")
    about, known = _decisions(run, served, unknown)
    rejection = about["rejection"]
    held_out = rejection["held_out_images"]
    differing = {name: int((each != known["keras"]).sum()) for name, each in known.items()}
    same = np.mean(np.all([each == known["keras"] for each in known.values()], axis=0))
    return {
        "network": network,
        "seed": seed,
        "accuracy": about["held_out_accuracy"],
        "held_out_images": held_out,
        "unknown_images": rejection["unknown_images"],
        "auroc": rejection["auroc"],
        "known_held_out": float(known["keras"][:held_out].mean()),
        "unknown_rejected": rejection["unknown_rejected"],
        "error_before": rejection["calibration_error_before"],
        "error": rejection["calibration_error"],
        "same": float(same),
        "differing": " ".join(f"{name}={number}" for name, number in differing.items()),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "versions": common.versions(),
    }


def _decisions(run, served, unknown):
    """Returns `metadata.json` and by format which held-out and then unknown images are known."""
    import json

    from keras_lightnets.export import parity
    from keras_lightnets.preprocessing import evaluation_image
    from keras_lightnets.serving import Client
    from lightnets.evaluation import rejection

    version = served / NAME / "1"
    about = json.loads((version / "assets.extra" / "metadata.json").read_text())
    source = directory.Run.open(run)
    splits = source.splits()
    held_out = [splits.eval_source.contents(n).numpy() for n in range(splits.eval_source.count)]
    files = [*held_out, *(path.read_bytes() for path in sorted(unknown.iterdir()))]
    images = np.stack([evaluation_image(file, source.transform).numpy() for file in files])
    rule = rejection.fit(source.model(), splits, COVERAGE)
    known = {"keras": parity.ask(source.model(), images, rule).known}
    paths = {"SavedModel": version}
    for name, row in about["formats"].items():
        paths[f"{name} file"] = version / "formats" / row["file"]
    for name, path in paths.items():
        answer = artifacts.open(path).answer
        parts = [answer(images[start : start + 16]).known for start in range(0, len(images), 16)]
        known[name] = np.concatenate(parts)
    with server(f"serve {served} --rest-port 0 --port 0", served / "server.log") as url:
        known["server"] = np.array([found.known for found in Client(url).classify(files)])
    return about, known


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes `rejection-<machine>.csv`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", nargs="+", default=["shufflenet_v1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_digits(folder)
        for network in args.net:
            for seed in args.seeds:
                rows.append(measure(network, seed, args.epochs, folder))
                print({key: rows[-1][key] for key in COLUMNS[2:-2]}, flush=True)
    shown = [
        {key: f"{v:.4g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows
    ]
    common.write(common.result_file("rejection", args.out), COLUMNS, shown)


if __name__ == "__main__":
    main()
