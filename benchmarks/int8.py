"""What does int8 cost in accuracy, before and after training for it?

    python benchmarks/int8.py [--net mobilenet_v2_x0_35] [--seeds 0 1 2] [--epochs 30]

One small network of each family is trained on the packaged digits, then for a tenth of the epochs
more with `--quantize int8`; both runs are exported in every int8 format and all files classify the
360 held-out digits. One of them is 0.28 %, so the mean over seeds counts. About five minutes of
processor time a network and seed for ten epochs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import statistics
import tempfile

import common

from keras_lightnets.export import runtimes
from lightnets import cli

NETS = (
    *("squeezenet", "mobilenet_v1_x0_25", "mobilenet_v2_x0_35"),
    *("shufflenet_v1_g3_x0_5", "shufflenet_v2_x0_5"),
)
FORMATS = sorted(runtimes.INT8)
ACCURACIES = ["float", *(f"{name} of it" for name in FORMATS)]
ACCURACIES += ["trained for int8", *(f"{name} trained" for name in FORMATS)]
COLUMNS = ["network", "epochs", "seed", *ACCURACIES, "date", "versions"]


def run(words: str, target: pathlib.Path) -> None:
    """Runs a command of `lightnets` unless an earlier benchmark has written its folder."""
    if target.exists():
        return
    if cli.main(f"{words} --out {target}".split()):
        raise SystemExit(f"`lightnets {words}` failed")


def measure(network: str, epochs: int, seed: int, work: pathlib.Path) -> dict[str, object]:
    """Trains, exports and returns the row of the result."""
    plain = work / f"{network}-{epochs}-{seed}"
    trained = work / f"{plain.name}-int8"
    run(f"train digits --recipe digits --model {network} --epochs {epochs} --seed {seed}", plain)
    run(f"train --quantize int8 --weights {plain}", trained)
    found: list[float] = []
    for source in (plain, trained):
        served = source.with_name(f"{source.name}-served")
        formats = ",".join(FORMATS)
        run(f"export {source} --name digits --formats {formats} --max-accuracy-drop 1", served)
        metadata = served / "digits" / "formats" / "1" / "metadata.json"
        rows = json.loads(metadata.read_text(encoding="utf-8"))["formats"]
        found += [rows[FORMATS[0]]["keras_accuracy"], *(rows[name]["accuracy"] for name in FORMATS)]
    row = dict(zip(ACCURACIES, found, strict=True))
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    about = {"date": today, "versions": common.versions()}
    return {"network": network, "epochs": epochs, "seed": seed, **row, **about}


def with_means(rows: list[dict]) -> list[dict]:
    """Returns the rows by network and epochs, and behind those of each the mean over the seeds."""
    found = []
    for kind in sorted({(row["network"], int(row["epochs"])) for row in rows}):
        alike = [row for row in rows if (row["network"], int(row["epochs"])) == kind]
        own = [row for row in alike if row["seed"] != "mean"]
        own.sort(key=lambda row: int(row["seed"]))
        means = {key: statistics.mean(float(row[key]) for row in own) for key in ACCURACIES}
        found += [*own, {**own[-1], "seed": "mean", **means}]
    return [row | {key: f"{float(row[key]):.4f}" for key in ACCURACIES} for row in found]


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes `int8-<machine>.csv`, which keeps older rows of other runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", nargs="+", default=NETS)
    parser.add_argument("--epochs", type=int, default=10, help="in float")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=pathlib.Path, help="where runs stay, and are taken from")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or pathlib.Path(temporary)
        rows = [measure(net, args.epochs, seed, work) for net in args.net for seed in args.seeds]
    path = common.result_file("int8", args.out)
    merged = {}
    for row in [*(common.load(path) if path.exists() else []), *rows]:
        merged[row["network"], int(row["epochs"]), str(row["seed"])] = row
    written = with_means(list(merged.values()))
    for row in written:
        print({key: row[key] for key in COLUMNS[:-2]})
    common.write(path, COLUMNS, written)


if __name__ == "__main__":
    main()
