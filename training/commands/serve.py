"""`lightnets serve`: a TensorFlow Serving server, real or embedded, for exported models."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import logging
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from keras_lightnets.serving.server import layout, model_server
from keras_lightnets.serving.server.options import MIB, ServerOptions
from keras_lightnets.serving.transport import ClientError
from lightnets.support import console
from lightnets.support.errors import UsageError, UserError, told
from lightnets.support.words import command

# What the extra `serve` installs, by the names to import.
_EXTRA = ("grpc_health", "orjson", "tornado")

# Flags that set a field of `ServerOptions`.
_ADDRESSES = {
    "--host": ("host", "address to bind"),
    "--rest-port": ("rest_port", "0: any free"),
    "--port": ("grpc_port", "gRPC; 0: any free"),
    "--poll-seconds": ("poll_interval_s", "between looks for new versions"),
}
_LIMITS = {
    "--max-requests": ("max_requests", "at once"),
    "--request-seconds": ("request_timeout_s", "from its arrival to an error"),
    "--client-seconds": (
        "client_timeout_s",
        "for a client to send headers, a body, to take an answer",
    ),
    "--drain-seconds": ("drain_timeout_s", "for requests in flight after SIGTERM"),
    "--threads": ("threads", "inside one TensorFlow op; 0: one per core"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "directory", type=pathlib.Path, help="a model, a bundle, or a folder of bundles"
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "binary", "embedded"),
        default="auto",
        help="auto: tensorflow_model_server if on PATH, else the embedded stand-in",
    )
    parser.add_argument("--model-name", help="serve only this model")
    parser.add_argument(
        "--batching-parameters-file",
        type=pathlib.Path,
        help=f"of the real server; default: {layout.BATCHING_FILE} of the bundle, if there is one",
    )
    parser.add_argument("--no-batching", action="store_true", help="without that file")
    parser.add_argument(
        "--no-page",
        dest="page",
        action="store_false",
        help="the embedded server without its page for people at /",
    )
    limits = parser.add_argument_group("limits of the embedded server")
    for group, flags in ((parser, _ADDRESSES), (limits, _LIMITS)):
        for flag, (name, text) in flags.items():
            default = getattr(ServerOptions, name)
            shown = f"{text} (default: {default})"
            kind = flag.rpartition("-")[2].upper()
            group.add_argument(
                flag, dest=name, type=type(default), default=default, metavar=kind, help=shown
            )
    mib = ServerOptions.max_body_bytes // MIB
    limits.add_argument("--max-body-mib", type=int, default=mib, metavar="MIB", help="of a request")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C."""
    with told(ValueError, kind=UsageError):
        given = {name: vars(args)[name] for name, _ in (_ADDRESSES | _LIMITS).values()}
        options = ServerOptions(page=args.page, max_body_bytes=args.max_body_mib * MIB, **given)
    if (args.directory / "config.yaml").is_file():
        raise UserError(
            f"{args.directory} is a run. Export it first: "
            + command("export", args.directory, "--out", "served")
        )
    with told(ValueError):
        models = layout.served_models(args.directory, args.model_name)
        batching_file = _batching_file(args, models)
    engine = args.engine
    if engine == "auto":
        engine = "binary" if shutil.which(model_server.BINARY) else "embedded"
    if engine == "embedded":
        return _serve_embedded(models, options, asked=args.engine == "embedded")
    return _serve_real(models, options, batching_file)


def _batching_file(
    args: argparse.Namespace, models: list[layout.ServedModel]
) -> pathlib.Path | None:
    if args.no_batching:
        return None
    given = args.batching_parameters_file
    if given is not None and not given.is_file():
        raise ValueError(f"No such file: {given}")
    return given or layout.batching_file(args.directory, models)


def _serve_embedded(models: list[layout.ServedModel], options: ServerOptions, asked: bool) -> int:
    # Both before seconds go into importing TensorFlow.
    for name in _EXTRA:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"Serving needs {name}: pip install 'keras-lightnets[serve]'")
    _with_ports(options)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("keras_lightnets.serving").setLevel(logging.INFO)
    stop = _stop_event()
    from keras_lightnets.serving.server.embedded import EmbeddedServer
    from keras_lightnets.serving.server.errors import ServingError

    reason = "asked for" if asked else f"no {model_server.BINARY} on PATH"
    console.line(f"Embedded stand-in for TensorFlow Serving ({reason}), for development")
    with told(ServingError, OSError, ValueError):
        server = EmbeddedServer(models, options)
        server.start()
    _announce(models, options.host, server.rest_port, server.grpc_port, page=options.page)
    _wait_for(stop)
    return _stop(server.stop)


def _serve_real(
    models: list[layout.ServedModel],
    options: ServerOptions,
    batching_file: pathlib.Path | None,
) -> int:
    binary = shutil.which(model_server.BINARY)
    if binary is None:
        raise UserError(f"{model_server.BINARY} is not on PATH: use --engine embedded")
    options = _with_ports(options)  # the real server takes port 0 for "off"
    stop = _stop_event()
    with told(ClientError), tempfile.TemporaryDirectory(prefix="lightnets-serve-") as work_dir:
        line = model_server.command(binary, models, options, batching_file, pathlib.Path(work_dir))
        console.line(f"Starting {shlex.join(line)}")
        console.line(f"{model_server.BINARY} listens on every address of this machine")
        process = subprocess.Popen(line)
        try:
            model_server.wait_until_available(process, models, options.rest_port)
            console.line(f"Batching: {batching_file or 'off'}")
            _announce(models, options.host, options.rest_port, options.grpc_port)
            while not stop.wait(0.2):
                if process.poll() is not None:
                    raise model_server.ended(process)
            return _stop(lambda: _ends(process, options.drain_timeout_s))
        finally:
            process.kill()
            process.wait()


def _ends(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Tells the real server to end; whether it did in time."""
    process.terminate()
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return False
    return True


def _stop_event() -> threading.Event:
    """Set by the first SIGTERM or SIGINT; one that comes a second later ends the process."""
    stop = threading.Event()
    first = 0.0

    def handle(number: int, frame: Any) -> None:
        nonlocal first
        # A group of processes that is told to stop often gets the signal twice at once.
        if stop.is_set() and time.monotonic() > first + 1:
            os._exit(128 + number)
        first = first or time.monotonic()
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop


def _wait_for(stop: threading.Event) -> None:
    """Waits in short turns.

    Python runs the signal's handler in this thread, which a signal that another thread has
    received does not wake, nor one that came just before the wait: it would sleep on.
    """
    while not stop.wait(0.2):
        pass


def _stop(stop: Callable[[], bool]) -> int:
    console.line("Stopping: finishing the requests in flight")
    if not stop():
        console.line(
            "lightnets: Requests were still running when the drain time was over", error=True
        )
        os._exit(1)  # an orderly exit would wait for the threads that run them
    console.line("Stopped")
    return 0


def _with_ports(options: ServerOptions) -> ServerOptions:
    """Returns free ports in place of 0, after checking that all can be listened on."""
    return dataclasses.replace(
        options,
        rest_port=_bindable(options.host, options.rest_port, "REST"),
        grpc_port=_bindable(options.host, options.grpc_port, "gRPC"),
    )


def _bindable(host: str, port: int, api: str) -> int:
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = places[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        message = f"Cannot listen on {host}:{port} ({api}): {error.strerror}"
        raise UserError(message) from error


def _announce(
    models: list[layout.ServedModel],
    host: str,
    rest_port: int,
    grpc_port: int,
    *,
    page: bool = False,
) -> None:
    if ":" in host:
        host = f"[{host}]"
    for model in models:
        name = model.name
        console.line(f"Model {name} from {model.base_path}")
        console.line(f"  REST http://{host}:{rest_port}/v1/models/{name}")
        console.line(f"  gRPC grpc://{host}:{grpc_port}/{name}")
    if page:
        console.line(f"To try pictures in a browser: http://{host}:{rest_port}")
    address = f"http://{host}:{rest_port}"
    one = address if len(models) == 1 else f"{address}/v1/models/{models[0].name}"
    console.line(f"To classify one: {command('predict', one, 'IMAGE')}")
    console.line(f"Ready at {address}")
