"""Compiles, times and checks what `gpu_step.py` wrote; needs JAX and no TensorFlow.

    python gpu_run.py FOLDER [--seconds 420] [--out FILE.csv]

This file and FOLDER are all that the machine with the GPU needs. The most telling networks come
first; what the time does not suffice for is named. Without a GPU it runs on the CPU, which shows
that it works and nothing else.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import pathlib
import re
import time

import jax
import numpy as np
from jax._src import xla_bridge
from jax._src.lib import xla_client
from jaxlib import _hlo

jax.config.update("jax_enable_x64", True)
TYPES = {"f32": "float32", "u8": "uint8", "s32": "int32", "u32": "uint32", "s64": "int64"}
FIRST = ("mobilenet_v2-mixed_bfloat16", "shufflenet_v2-mixed_bfloat16")
LAUNCHED = r" (fusion|custom-call|dot|convolution|reduce|copy|transpose|scatter|sort)\("
FIELDS = ("step", "device", "ms", "images_per_second", "compile_s", "temporary_gib", "kernels")


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=420, help="after which none is begun")
    parser.add_argument("--out", type=pathlib.Path, help="a CSV file")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    device = xla_bridge.get_backend().local_devices()[0]
    print(f"{device.device_kind}, JAX {jax.__version__}", flush=True)
    compare_numbers(args.folder, device)
    rows = []
    steps = sorted(args.folder.glob("*-b*.hlo.gz"), key=lambda p: (not p.name.startswith(FIRST), p))
    for path in steps:
        if time.monotonic() > end:
            print(f"no time left for {path.name}")
            continue
        rows.append(measure(path, device))
        print(*(f"{name} {value}" for name, value in rows[-1].items()), sep=", ", flush=True)
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)


def compiled(path: pathlib.Path, device):
    """Returns the text of an HLO file and its program."""
    text = gzip.decompress(path.read_bytes()).decode()
    module = _hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()
    computation = _hlo.XlaComputation(module)
    program = xla_bridge.get_backend().compile_and_load(
        xla_client._xla.mlir.xla_computation_to_mlir_module(computation),
        xla_client._xla.DeviceList((device,)),
        xla_client.CompileOptions(),
    )
    return text, program


def run(program, arguments) -> list:
    """Returns the outputs of a program."""
    return program.execute_sharded(arguments).disassemble_into_single_device_arrays()


def compare_numbers(folder: pathlib.Path, device) -> None:
    """Prints how far loss and gradients are from those of a CPU."""
    held = np.load(folder / "numbers.npz")
    given = [jax.device_put(held[name], device) for name in held.files if name[0] == "g"]
    answers = [held[name] for name in held.files if name[0] == "a"]
    _, program = compiled(folder / "numbers.hlo.gz", device)
    received = [np.asarray(parts[0]) for parts in run(program, given)]
    ours, theirs = (
        np.concatenate([np.ravel(value).astype("float64") for value in values])
        for values in (received, answers)
    )
    difference = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    print(f"a step in float32: {difference:.1e} of its length from that of a CPU", flush=True)


def measure(path: pathlib.Path, device) -> dict[str, object]:
    """Compiles and times a step."""
    began = time.monotonic()
    text, program = compiled(path, device)
    compile_s = time.monotonic() - began
    arguments = [jax.device_put(value, device) for value in made_up(text)]
    jax.block_until_ready(run(program, arguments)[0])
    times = []
    while len(times) < 20 and sum(times) < 8:
        began = time.monotonic()
        jax.block_until_ready(run(program, arguments)[0])
        times.append(time.monotonic() - began)
    step = float(np.median(times))
    batch = int(re.search(r"-b(\d+)", path.name)[1])
    entry = program.hlo_modules()[0].to_string().partition("\nENTRY")[2]
    memory = program.get_compiled_memory_stats().temp_size_in_bytes
    values = (step * 1e3, batch / step, compile_s, memory / 2**30)
    return dict(
        zip(
            FIELDS,
            (
                path.name.removesuffix(".hlo.gz"),
                device.device_kind,
                *(f"{value:.2f}" for value in values),
                len(re.findall(LAUNCHED, entry)),
            ),
            strict=True,
        )
    )


def made_up(text: str) -> list[np.ndarray]:
    """Returns arguments of the shapes that a step takes: pixels, labels, weights, variables."""
    random, entry, found = np.random.default_rng(0), text.partition("\nENTRY")[2], {}
    for kind, dims, number in re.findall(r"= (\w+)\[([\d,]*)\]\S* parameter\((\d+)\)", entry):
        shape = tuple(int(length) for length in dims.split(",") if length)
        if kind == "u8":
            value = random.integers(0, 256, shape)
        elif int(number) == 1:
            value = np.eye(shape[1])[random.integers(0, shape[1], shape[0])]
        elif len(shape) > 1:
            value = random.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)
        else:
            value = np.full(shape, kind == "f32")
        found[int(number)] = value.astype(TYPES[kind])
    return [found[number] for number in sorted(found)]


if __name__ == "__main__":
    main()
