"""Finished runs side by side: what each reached, whether it differs, and what was set otherwise."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from keras_lightnets.intervals import interval
from lightnets.config import keys as configs
from lightnets.config import tasks
from lightnets.evaluation import report
from lightnets.support import markup
from lightnets.support.errors import UserError
from lightnets.support.words import command
from lightnets.support.writing import csv_text

_COLUMNS = "run", "accuracy", "95 % interval", "p", "parameters (M)", "MACs (M)", "size (MB)"
EXPLAINED = (
    "p: how often chance alone makes equally good runs differ this much from the best one "
    "(McNemar's exact test, on the same held-out images). Below 0.05 the difference is likely "
    "real. A dash stands where a run judged other images or keeps no predictions.csv."
)


class Ran(NamedTuple):
    """What a finished run left.

    Attributes:
        path: Its folder.
        settings: Value by `section.key`.
        results: Of `results.json`.
        history: Of `history.json`, a row an epoch.
        answers: Whether the answer was right by `(image, true class)`; empty if it was not kept.
        size: Of its weights, in bytes.
        milliseconds: Of one image on this machine; None: not measured.
    """

    path: pathlib.Path
    settings: dict[str, Any]
    results: Mapping[str, Any]
    history: list[Mapping[str, float]]
    answers: dict[tuple[str, str], bool]
    size: int
    milliseconds: float | None = None


def read(path: pathlib.Path) -> Ran:
    """Reads the folder of a run.

    Raises:
        UserError: It is not finished, or damaged.
    """
    with _named(path):
        config = configs.from_dict(configs.load(path / "config.yaml"), where="config.yaml")
    tasks.check(config.train.task, "lightnets compare")
    if config.data.every_fold:
        raise UserError(f"{path} holds a run for each fold. Name one of them: {path}/fold-1")
    with _named(path):
        results, history = (
            json.loads((path / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("results", "history")
        )
        size = (path / "weights" / "best.keras").stat().st_size
        kept = path / report.PREDICTIONS
        with kept.open(encoding="utf-8", newline="") if kept.is_file() else io.StringIO() as file:
            rows = csv.DictReader(file)
            answers = {(row["image"], row["true"]): row["true"] == row["predicted"] for row in rows}
        _ = results["accuracy"], results["images"]
    return Ran(path, _flat(configs.to_dict(config)), results, history, answers, size)


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Raises UserError, which names the run, in place of what is wrong with one of its files."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"The run {path} lacks {pathlib.Path(error.filename).name}. "
            f"Finish it first: {command('train', '--resume', path)}"
        ) from None
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"A file of the run {path} is damaged: {error}") from None


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `section.key` in place of sections."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            flat[name] = value
    return flat


def mcnemar(one: Ran, other: Ran) -> float | None:
    """Returns the two-sided p of McNemar's exact test; None if not the same images were judged."""
    from scipy.stats import binomtest

    if not one.answers or one.answers.keys() != other.answers.keys():
        return None
    better = sum(right and not other.answers[image] for image, right in one.answers.items())
    worse = sum(other.answers[image] and not right for image, right in one.answers.items())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def best(runs: Sequence[Ran]) -> Ran:
    """Returns the most accurate run, the first one of equals."""
    return max(runs, key=lambda run: run.results["accuracy"])


def numbers(runs: Sequence[Ran]) -> list[dict[str, Any]]:
    """Returns the numbers of each run; None for what it did not keep."""
    rows = []
    for run in runs:
        accuracy, images = run.results["accuracy"], run.results["images"]
        low, high = interval(round(accuracy * images), images)
        row = {"run": str(run.path), "accuracy": accuracy, "low": low, "high": high}
        row |= {"images": images, "p": mcnemar(best(runs), run)}
        row |= {key: run.results.get(key) for key in ("parameters", "macs")}
        row |= {"bytes": run.size}
        rows.append(row | ({"milliseconds": run.milliseconds} if run.milliseconds else {}))
    return rows


def header(runs: Sequence[Ran]) -> tuple[str, ...]:
    """Returns the titles above `cells`."""
    return (*_COLUMNS, "ms") if runs[0].milliseconds else _COLUMNS


def cells(runs: Sequence[Ran]) -> list[list[str]]:
    """Returns the rows below `header`."""

    def millions(number: int | None, places: int) -> str:
        return "-" if number is None else f"{number / 1e6:.{places}f}"

    first = best(runs)
    rows = []
    for run, row in zip(runs, numbers(runs), strict=True):
        p = "best" if run is first else "-" if row["p"] is None else f"{row['p']:.2g}"
        between = f"{row['low']:.3f}-{row['high']:.3f}"
        sizes = (millions(row["parameters"], 2), millions(row["macs"], 1))
        rows.append([row["run"], f"{row['accuracy']:.4f}", between, p, *sizes])
        rows[-1].append(millions(row["bytes"], 1))
        rows[-1] += [f"{run.milliseconds:.1f}"] if run.milliseconds else []
    return rows


def differences(runs: Sequence[Ran]) -> list[list[str]]:
    """Returns the keys that are not set alike, each with its value in each run."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = [[key, *(str(run.settings.get(key)) for run in runs)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def table_text(runs: Sequence[Ran]) -> str:
    """Returns CSV: a row a run, its numbers, then what was set otherwise."""
    different = differences(runs)
    rows = [
        [*row.values(), *(values[place + 1] for values in different)]
        for place, row in enumerate(numbers(runs))
    ]
    return csv_text([*numbers(runs)[0], *(key for key, *_ in different)], rows)


def write_page(runs: Sequence[Ran], path: pathlib.Path) -> None:
    """Writes one page that needs no other file."""
    histories = {f"{n} {run.path.name}": run.history for n, run in enumerate(runs, 1)}
    what = "Held-out accuracy by epoch"
    parts = [
        markup.table(header(runs), cells(runs)),
        f"<p>{markup.text(EXPLAINED)}</p>",
        markup.section(what, markup.drawn(report.accuracies(histories), what)),
        markup.section(
            "Set otherwise",
            markup.table(("key", *histories), rows) if (rows := differences(runs)) else "",
        ),
    ]
    markup.write(path, "Runs compared", parts)
