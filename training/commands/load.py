"""`lightnets load`: put a bounded load on a server and measure it."""

from __future__ import annotations

import argparse
import json
import pathlib

from keras_lightnets.serving.client import Client
from keras_lightnets.serving.load import LoadReport, noise_png, run_load
from keras_lightnets.serving.transport import ClientError
from training.errors import UsageError, UserError

HELP = "put a bounded load on a server and measure it"

# One process cannot keep more connections busy, and more looks like an attack.
_MAX_CLIENTS = 256
_MAX_SECONDS = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("url", help="http://HOST:PORT or grpc://HOST:PORT, with /v1/models/NAME")
    parser.add_argument("--model", help="its name, if not in the URL")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long")
    parser.add_argument("--clients", type=int, default=4, help="connections, one request each")
    parser.add_argument("--batch", type=int, default=1, help="images in a request")
    parser.add_argument(
        "--image",
        action="append",
        type=pathlib.Path,
        help="file to send, may be repeated; a 224-pixel noise PNG by default",
    )
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one request")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Prints throughput, latencies and errors; fails if any request did."""
    if not 1 <= args.clients <= _MAX_CLIENTS:
        raise UsageError(f"--clients must be 1 to {_MAX_CLIENTS}. Received: {args.clients}")
    if not 0 < args.seconds <= _MAX_SECONDS:
        raise UsageError(f"--seconds must be above 0, to {_MAX_SECONDS:g}. Got: {args.seconds:g}")
    if args.batch < 1:
        raise UsageError(f"--batch must be at least 1. Received: {args.batch}")

    def connect() -> Client:
        return Client(args.url, args.model, timeout_s=args.timeout, retries=0)

    try:
        images = [path.read_bytes() for path in args.image] if args.image else [noise_png()]
        with connect() as client:
            args.model = client.model
            client.predict({"image_bytes": images[:1]}, "serve_bytes")
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UserError(f"Cannot read {error.filename}: {error.strerror}") from error
    except ClientError as error:
        raise UserError(str(error)) from error
    report = run_load(connect, images, clients=args.clients, seconds=args.seconds, batch=args.batch)
    print(_as_json(report) if args.json else _as_text(report))
    failed = sum(report.errors.values())
    if failed:
        raise UserError(f"{failed} of {failed + len(report.latencies_ms)} requests failed")
    return 0


def _as_text(report: LoadReport) -> str:
    lines = [
        f"{len(report.latencies_ms)} requests, {sum(report.errors.values())} failed, "
        f"in {report.seconds:.1f} s",
        f"throughput  {report.images_per_second:.1f} images/s",
    ]
    if report.latencies_ms:
        times = "  ".join(f"p{p} {report.percentile_ms(p):.1f} ms" for p in (50, 95, 99))
        lines.append(f"latency     {times}")
    worst = sorted(report.errors.items(), key=lambda item: -item[1])[:5]
    return "\n".join(lines + [f"error       {count} x {message}" for message, count in worst])


def _as_json(report: LoadReport) -> str:
    return json.dumps(
        {
            "seconds": round(report.seconds, 3),
            "requests": len(report.latencies_ms),
            "images_per_second": round(report.images_per_second, 2),
            **{f"p{p}_ms": _milliseconds(report, p) for p in (50, 95, 99)},
            "errors": report.errors,
        }
    )


def _milliseconds(report: LoadReport, percent: float) -> float | None:
    """None where nothing was answered: JSON has no NaN."""
    return round(report.percentile_ms(percent), 3) if report.latencies_ms else None
