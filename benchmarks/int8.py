"""What does int8 cost in accuracy, before and after training for it?

    python benchmarks/int8.py [--data colours] [--net mobilenet_v2_x0_35] [--seeds 0 1 2]
                              [--epochs 30]

One small network of each family is trained on the packaged digits, or on pictures of the tests that
are mostly red, green or blue, then for a tenth of the epochs more with `--quantize int8`; both runs
are exported as int8 LiteRT files, which classify the 360 held-out digits or 300 pictures.
One of them is 0.28 %, so the mean over seeds counts. About two minutes of processor time a network
and seed for ten epochs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import statistics
import tempfile

import common
import keras
import numpy as np

from keras_lightnets.export import runtimes
from lightnets import cli, data
from lightnets.config import keys as configs
from tests import colour_run

NETS = (
    *("squeezenet", "mobilenet_v1_x0_25", "mobilenet_v2_x0_35"),
    *("shufflenet_v1_g3_x0_5", "shufflenet_v2_x0_5"),
)
FORMAT = "litert-int8"
SHARES = ["float", "LiteRT of it", "trained for int8", "LiteRT trained", "LiteRT within 1/256"]
COLUMNS = ["data", "network", "epochs", "seed", *SHARES, "date", "versions"]


def run(words: str, target: pathlib.Path) -> None:
    """Runs a command of `lightnets` unless an earlier benchmark has written its folder."""
    if target.exists():
        return
    if cli.main(f"{words} --out {target}".split()):
        raise SystemExit(f"`lightnets {words}` failed")


def pictures(dataset: str, work: pathlib.Path) -> str:
    """Returns what `lightnets train` calls the data set, written if it is not packaged."""
    if dataset == "digits":
        return dataset
    folder = work / dataset
    if not folder.exists():
        colour_run.write_pictures(folder, "train", 200, 1.0)
        colour_run.write_pictures(folder, "val", 100, 1.0)
    return str(folder)


def agreement(trained: pathlib.Path, file: pathlib.Path) -> float:
    """Returns which share of a file's probabilities are within 1/256 of the trained network's."""
    splits = data.load(configs.from_dict(configs.load(trained / "config.yaml")))
    batches = [np.asarray(images) for images, *_ in splits.evaluation(60)]
    images = np.concatenate(batches)[: splits.eval_examples]
    network = keras.saving.load_model(trained / "weights" / "best.keras", compile=False)
    expected = network.predict(images, verbose=0)
    return float(
        np.mean(np.abs(runtimes.load_litert(file)(images).probabilities - expected) <= 1 / 256)
    )


def measure(
    dataset: str, network: str, epochs: int, seed: int, work: pathlib.Path
) -> dict[str, object]:
    """Trains, exports and returns the row of the result."""
    plain = work / f"{dataset}-{network}-{epochs}-{seed}"
    trained = work / f"{plain.name}-int8"
    asked = f"--recipe digits --model {network} --epochs {epochs} --seed {seed}"
    run(f"train {pictures(dataset, work)} {asked}", plain)
    run(f"train --quantize int8 --weights {plain}", trained)
    found: list[float] = []
    for source in (plain, trained):
        served = source.with_name(f"{source.name}-served")
        run(f"export {source} --name network --formats {FORMAT} --max-accuracy-drop 1", served)
        metadata = served / "network" / "formats" / "1" / "metadata.json"
        about = json.loads(metadata.read_text(encoding="utf-8"))["formats"][FORMAT]
        found += [about["keras_accuracy"], about["accuracy"]]
    found.append(agreement(trained, metadata.with_name(about["file"])))
    row = dict(zip(SHARES, found, strict=True))
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    about = {"date": today, "versions": common.versions()}
    return {"data": dataset, "network": network, "epochs": epochs, "seed": seed, **row, **about}


def with_means(rows: list[dict]) -> list[dict]:
    """Returns the rows in order, and behind those that differ in the seed alone their mean."""
    found = []
    for kind in sorted({_kind(row) for row in rows}):
        alike = [row for row in rows if _kind(row) == kind]
        own = [row for row in alike if row["seed"] != "mean"]
        own.sort(key=lambda row: int(row["seed"]))
        known = [key for key in SHARES if all(row[key] for row in own)]
        means = {key: statistics.mean(float(row[key]) for row in own) for key in known}
        found += [*own, {**own[-1], "seed": "mean", **means}]
    return [row | {key: row[key] and f"{float(row[key]):.4f}" for key in SHARES} for row in found]


def _kind(row: dict) -> tuple[str, str, int]:
    return row["data"], row["network"], int(row["epochs"])


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes `int8-<machine>.csv`, which keeps older rows of other runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=("digits", "colours"), default="digits")
    parser.add_argument("--net", nargs="+", default=NETS)
    parser.add_argument("--epochs", type=int, default=10, help="in float")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=pathlib.Path, help="where runs stay, and are taken from")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or pathlib.Path(temporary)
        rows = [
            measure(args.data, net, args.epochs, seed, work)
            for net in args.net
            for seed in args.seeds
        ]
    path = common.result_file("int8", args.out)
    merged = {}
    for row in [*(common.load(path) if path.exists() else []), *rows]:
        merged[*_kind(row), str(row["seed"])] = row
    written = with_means(list(merged.values()))
    for row in written:
        print({key: row[key] for key in COLUMNS[:-2]})
    common.write(path, COLUMNS, written)


if __name__ == "__main__":
    main()
