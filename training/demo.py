"""The main job on real data, step by step: train, evaluate, export, serve, classify.

    python -m lightnets.demo [--seed 0] [--folder .]

Every step is a command of its own and is shown as it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from lightnets.support import quiet
from lightnets.support.errors import UserError

# The held-out accuracy that the README promises.
LEAST_ACCURACY = 0.975


def main(argv: list[str] | None = None) -> int:
    """Runs the demo below `--folder` and returns 0 if all of it worked."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path())
    args = parser.parse_args(argv)
    quiet.quieten()
    run, served = args.folder / "runs" / "demo", args.folder / "served"
    predictions = run / "predictions.csv"
    start = time.monotonic()
    try:
        train = f"train --model shufflenet_v1 --dataset digits --out {run} --overwrite"
        lightnets(train + (f" --seed {args.seed}" if args.seed else ""))
        lightnets(f"evaluate {run} --predictions {predictions}")
        lightnets(f"export {run} --out {served / 'digits'}")
        log = run / "server.log"
        with server(f"serve {served} --rest-port 0 --port 0", log) as url:
            classify(url, run, predictions)
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"\nAll steps took {time.monotonic() - start:.0f} s.")
    return 0


def command(arguments: str) -> list[str]:
    """Shows a `lightnets` command as one would type it and returns how to run it."""
    print(f"\n$ lightnets {arguments}", flush=True)
    return [sys.executable, "-m", "lightnets.cli", *shlex.split(arguments)]


def lightnets(arguments: str) -> None:
    """Runs one command; its output goes to the terminal."""
    code = subprocess.run(command(arguments), check=False).returncode
    if code:
        raise UserError(f"`lightnets {arguments}` ended with exit code {code}.")


@contextlib.contextmanager
def server(arguments: str, log: pathlib.Path) -> Iterator[str]:
    """Starts a server, yields its URL when it is ready, and stops it.

    Its output is shown up to then; its line for each request goes to `log`.
    """
    with log.open("w") as errors:
        process = subprocess.Popen(
            command(arguments), stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        url = None
        for line in process.stdout or ():
            print(line, end="", flush=True)
            match = re.search(r"http://[\w.:]+", line)
            url = match.group() if match else url
            if line.startswith("Ready"):
                break
        if url is None:
            raise UserError(f"The server did not start: {log.read_text().strip()}")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
    print(f"The server has stopped; it logged each request in {log}.")


def classify(url: str, run: pathlib.Path, predictions: pathlib.Path) -> None:
    """Sends every held-out image as PNG bytes and compares the answers with `evaluate`'s."""
    from keras_lightnets.serving import Client
    from lightnets.run.directory import Run

    with predictions.open(encoding="utf-8", newline="") as file:
        expected = list(csv.DictReader(file))
    source = Run.open(run).splits().eval_source
    images: list[Any] = [source.contents(number).numpy() for number in range(source.count)]
    answers = Client(url).classify(images, top=1)
    right = differ = 0
    for number, (row, ((label, probability),)) in enumerate(zip(expected, answers, strict=True)):
        if number % max(1, len(images) // 5) == 0:
            print(f"  {row['image']}: {label} ({probability:.4f}), truly {row['true']}")
        right += label == row["true"]
        differ += label != row["predicted"] or abs(probability - float(row["probability"])) > 1e-4
    accuracy = right / len(images)
    print(f"The server classified {len(images)} PNG files, accuracy {accuracy:.4f}.")
    if differ:
        raise UserError(f"{differ} answers of the server differ from those of `evaluate`.")
    print("Every answer agrees with step 2.")
    if accuracy < LEAST_ACCURACY:
        raise UserError(f"The accuracy is below {LEAST_ACCURACY}.")


if __name__ == "__main__":
    sys.exit(main())
