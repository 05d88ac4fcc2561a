"""What does int8 cost in accuracy, before and after an epoch of training for it?

    python benchmarks/int8.py [--net mobilenet_v2_x0_35] [--seeds 0 1 2]

One small network of each family is trained on the packaged digits for ten epochs, then for one
more with `--quantize int8`; both runs are exported in every int8 format and all files classify the
360 held-out digits. One of them is 0.28 %, so the mean over seeds counts. About five minutes of
processor time a network and seed.
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
EPOCHS = 10
FORMATS = sorted(runtimes.INT8)
ACCURACIES = ["float", *(f"{name} of it" for name in FORMATS)]
ACCURACIES += ["trained for int8", *(f"{name} trained" for name in FORMATS)]
COLUMNS = ["network", "seed", *ACCURACIES, "date", "versions"]


def run(words: str, target: pathlib.Path) -> None:
    """Runs a command of `lightnets` unless an earlier benchmark has written its folder."""
    if target.exists():
        return
    if cli.main(f"{words} --out {target}".split()):
        raise SystemExit(f"`lightnets {words}` failed")


def measure(network: str, seed: int, work: pathlib.Path) -> dict[str, object]:
    """Trains, exports and returns the row of the result."""
    plain, trained = work / f"{network}-{seed}", work / f"{network}-{seed}-int8"
    run(f"train digits --recipe digits --model {network} --epochs {EPOCHS} --seed {seed}", plain)
    run(f"train --quantize int8 --weights {plain} --epochs 1", trained)
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
    return {"network": network, "seed": seed, **row, **about}


def with_means(rows: list[dict]) -> list[dict]:
    """Returns the rows by network, and behind those of each their mean over the seeds."""
    found = []
    for network in sorted({row["network"] for row in rows}):
        own = [row for row in rows if row["network"] == network and row["seed"] != "mean"]
        own.sort(key=lambda row: int(row["seed"]))
        means = {key: statistics.mean(float(row[key]) for row in own) for key in ACCURACIES}
        found += [*own, {**own[-1], "seed": "mean", **means}]
    return [row | {key: f"{float(row[key]):.4f}" for key in ACCURACIES} for row in found]


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes `int8-<machine>.csv`, which keeps older rows of other runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", nargs="+", default=NETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=pathlib.Path, help="where runs stay, and are taken from")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or pathlib.Path(temporary)
        rows = [measure(net, seed, work) for net in args.net for seed in args.seeds]
    path = common.result_file("int8", args.out)
    merged = {(r["network"], str(r["seed"])): r for r in common.load(path)} if path.exists() else {}
    merged |= {(row["network"], str(row["seed"])): row for row in rows}
    written = with_means(list(merged.values()))
    for row in written:
        print({key: row[key] for key in COLUMNS[:-2]})
    common.write(path, COLUMNS, written)


if __name__ == "__main__":
    main()
