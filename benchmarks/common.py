"""What the benchmark scripts share: interleaved timing, ratios, result files and pictures.

Absolute times on a shared machine swing by tens of percent from minute to minute. So both sides
of a comparison run in turns, A B A B ..., and what counts is the median of the ratios of
neighbouring turns, with the range of its middle half.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

# Also where the packages are not installed: run from the checkout these scripts stand in.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from lightnets.support import quiet
from lightnets.support.writing import replacing

quiet.quieten()


def _in_one_line(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Says what ended a script, without a traceback where that tells nothing more."""
    if issubclass(kind, KeyboardInterrupt):
        _show_progress("")
    elif issubclass(kind, ModuleNotFoundError):
        print(
            f"The package {error.name} is not installed. Of a checkout, "
            "pip install -e '.[serve,convert,bench]' installs what benchmarks need.",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _in_one_line

RESULTS = pathlib.Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Turns:
    """What `interleave` measured: for each side one number per turn.

    Attributes:
        seconds: Wall time.
        processor: Processor time of all threads of this process, which other programs on the
            machine hardly change; only for sides that run in this process.
    """

    seconds: dict[str, list[float]]
    processor: dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison. `ratio` above 1 means that ours is better (faster, smaller)."""

    case: str
    ours: str
    peer: str
    ratio: float
    low: float  # first quartile of the ratios of neighbouring turns
    high: float  # third quartile
    best: float  # ratio of the fastest turns of both sides
    processor: float | None  # ratio of the processor times, where both ran in one process
    ours_value: float  # median, in `unit`
    peer_value: float
    unit: str
    turns: int
    target: float | None = None
    note: str = ""


def interleave(
    sides: dict[str, Callable[[], float | None]],
    *,
    seconds: float = 20.0,
    warm_up: int = 2,
    min_turns: int = 5,
) -> Turns:
    """Calls every side in turns for about `seconds` and times each call.

    A side may return its own duration, if the call does more than what is to be timed.
    The first side goes first in even turns and last in odd ones, so that none of them always
    runs in the other's wake.
    """
    for name, side in sides.items():
        for _ in range(warm_up):
            _show_progress(f"warm-up: {name}")
            side()
    turns = Turns({name: [] for name in sides}, {name: [] for name in sides})
    end = time.perf_counter() + seconds
    turn = 0
    while time.perf_counter() < end or turn < min_turns:
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            left = max(0.0, end - time.perf_counter())
            _show_progress(f"turn {turn + 1}: {name}, {left:.0f} s left")
            start, processor_start = time.perf_counter(), time.process_time()
            own = sides[name]()
            turns.processor[name].append(time.process_time() - processor_start)
            turns.seconds[name].append(time.perf_counter() - start if own is None else own)
        turn += 1
    _show_progress("")
    return turns


def _show_progress(text: str) -> None:
    """Replaces the last line of a terminal; elsewhere only results are printed."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def compare(
    turns: Turns,
    ours: str,
    peer: str,
    *,
    case: str,
    target: float | None = None,
    unit: str = "ms",
    scale: float = 1e3,
    one_process: bool = True,
    note: str = "",
) -> Row:
    """The row that says how much faster `ours` is than `peer`; prints it as well."""
    mine, theirs = turns.seconds[ours], turns.seconds[peer]
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    processor = [statistics.median(turns.processor[side]) for side in (ours, peer)]
    row = Row(
        case=case,
        ours=ours,
        peer=peer,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        best=min(theirs) / min(mine),
        processor=processor[1] / processor[0] if one_process else None,
        ours_value=statistics.median(mine) * scale,
        peer_value=statistics.median(theirs) * scale,
        unit=unit,
        turns=len(ratios),
        target=target,
        note=note,
    )
    print_row(row)
    return row


def print_row(row: Row) -> None:
    """One line per comparison, for whoever watches."""
    target = "" if row.target is None else f", target {row.target:g}"
    print(
        f"{row.case}: {row.ours} {row.ours_value:.4g} {row.unit}, {row.peer} "
        f"{row.peer_value:.4g} {row.unit}: ratio {row.ratio:.2f} "
        f"({row.low:.2f} to {row.high:.2f}, {row.turns} turns{target}), "
        f"fastest turns {row.best:.2f}"
        + ("" if row.processor is None else f", processor time {row.processor:.2f}"),
        flush=True,
    )


NETS = ("mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "squeezenet")


def network_main(
    what: str,
    question: str | None,
    measure: Callable[[str, int, float], list[Row]],
    nets: Iterable[str],
    arguments: list[str] | None,
) -> None:
    """The command line of a benchmark of networks at several batch sizes.

    Each network runs in a process of its own: after two others, folded MobileNet v2 took 1.2
    times as long at 16 images.

    Args:
        what: Name of the result file.
        question: For `--help`; its first line counts.
        measure: Called with network, batch size and seconds.
        nets: Those measured unless `--net` names others.
    """
    parser = argparse.ArgumentParser(description=(question or what).splitlines()[0])
    parser.add_argument("--net", nargs="+", choices=NETS, default=list(nets))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--seconds", type=float, default=20.0, help="per case")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args(arguments)
    if len(args.net) > 1:
        script = str(pathlib.Path(__file__).with_name(f"{what}.py"))
        rest = ["--batch", *args.batch, "--seconds", args.seconds, "--out", args.out]
        for net in args.net:
            words = [sys.executable, script, "--net", net, *map(str, rest)]
            ended = subprocess.run(words, check=False)
            if ended.returncode:
                sys.exit(ended.returncode)
        return
    for batch in args.batch:
        save(what, measure(args.net[0], batch, args.seconds), args.out)


def machine() -> str:
    """Short name of this machine for file names, such as `amd-epyc-2core`."""
    cpu = re.sub(r"[^a-z0-9]+", "-", _cpu_model().lower()).strip("-") or platform.machine()
    return f"{cpu}-{_cores()}core"


def peak_mib() -> int:
    """Peak resident memory of this process so far, with both sides of what it compared."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def versions() -> str:
    """Versions, cores, memory and GPUs that the numbers depend on."""
    found = []
    for package in ("tensorflow", "keras", "torch", "torchvision"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = platform.python_version()
    machine_parts = [f"{_cores()} cores", f"{memory:.0f} GiB", _gpus()]
    return ", ".join([f"Python {python}", *found, *machine_parts])


def _gpus() -> str:
    """The GPUs that TensorFlow sees; a script that never imported it has used none."""
    if "tensorflow" not in sys.modules:
        return "no GPU used"
    config = sys.modules["tensorflow"].config
    names = [
        config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in config.list_physical_devices("GPU")
    ]
    return " + ".join(names) or "no GPU"


def _cpu_model() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*:\s*(.*)$", info.read_text(), re.MULTILINE)
        if match:
            return match.group(1)
    return platform.processor()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def result_file(what: str, folder: pathlib.Path = RESULTS) -> pathlib.Path:
    """`<folder>/<what>-<machine>.csv`."""
    return folder / f"{what}-{machine()}.csv"


def save(what: str, rows: Iterable[Row], folder: pathlib.Path = RESULTS) -> pathlib.Path:
    """Writes the rows, and a picture of them, and keeps older rows of other cases."""
    path = result_file(what, folder)
    columns = [field.name for field in dataclasses.fields(Row)]
    merged = {(r["case"], r["peer"]): r for r in load(path)} if path.exists() else {}
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    for row in rows:
        values = {
            key: f"{value:.4g}" if isinstance(value, float) else value
            for key, value in dataclasses.asdict(row).items()
        }
        merged[row.case, row.peer] = values | {
            "date": today,
            "versions": versions(),
            "peak_mib": peak_mib(),
        }
    write(path, [*columns, "date", "versions", "peak_mib"], merged.values())
    draw(what, list(merged.values()), path.with_suffix(".png"))
    print(f"Wrote {path}")
    return path


def write(path: pathlib.Path, columns: list[str], rows: Iterable[dict]) -> None:
    """Writes a result file; it is never half written, however the script ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def load(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a result file, as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw(what: str, rows: list[dict], path: pathlib.Path) -> None:
    """One bar per comparison, its middle half as a line, its target as a mark."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.42 * len(rows)), layout="constrained")
    for y, row in enumerate(rows):
        ratio, low, high = (float(row[key]) for key in ("ratio", "low", "high"))
        axes.barh(y, ratio, color="#4878a8", height=0.6)
        axes.plot([low, high], [y, y], color="black", linewidth=2)
        if row["target"] not in ("", None):
            axes.plot([float(row["target"])] * 2, [y - 0.4, y + 0.4], color="#c44e52", linewidth=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row['case']}\nagainst {row['peer']}" for row in rows])
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("ratio, higher is better; line: middle half of the turns; red: target")
    axes.set_title(f"{what} on {machine()}", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
