"""`SHA256SUMS` of an exported version, as `sha256sum -c` reads it.

It shows damage, not intent: whoever can change a file can change its line, too.
"""

from __future__ import annotations

import hashlib
import pathlib
import re

CHECKSUMS = "SHA256SUMS"


def write(directory: pathlib.Path) -> None:
    """Writes the digests of all files below `directory`; the last thing that is written there."""
    lines = [f"{_digest(path)}  {name}\n" for name, path in _files(directory).items()]
    (directory / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def problems(directory: pathlib.Path) -> list[str]:
    """Compares a version with its `SHA256SUMS`.

    Returns:
        `FILE: what is wrong` for each file that was changed, is missing or was added.

    Raises:
        OSError: A file cannot be read.
    """
    found = _files(directory)
    sums = directory / CHECKSUMS
    if not sums.is_file():
        return [f"{CHECKSUMS}: missing"]
    listed, wrong = {}, []
    for number, line in enumerate(sums.read_text("utf-8", errors="replace").splitlines(), 1):
        if match := re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line):
            listed[match[2]] = match[1]
        else:
            wrong.append(f"{CHECKSUMS}: line {number} is not what sha256sum writes")
    for name in sorted(found.keys() | listed.keys()):
        if name not in found:
            wrong.append(f"{name}: missing")
        elif name not in listed:
            wrong.append(f"{name}: not in {CHECKSUMS}")
        elif not found[name].is_file() or _digest(found[name]) != listed[name]:
            wrong.append(f"{name}: changed")
    return wrong


def _files(directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """Everything below that is no folder, but the list itself, by its name there."""
    paths = (path for path in sorted(directory.rglob("*")) if not path.is_dir())
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    return {name: path for name, path in names.items() if name != CHECKSUMS}


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
