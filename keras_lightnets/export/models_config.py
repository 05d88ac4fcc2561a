"""`models.config`, a `tensorflow.serving.ModelServerConfig` as text: read, written, extended."""

from __future__ import annotations

import contextlib
import difflib
import pathlib
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

MODELS_FILE = "models.config"

# The labels of `lightnets release`. All others are somebody else's.
STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"

# What a closing brace must not be looked for in, and the brace itself.
_TOKENS = re.compile(r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*|\}""")


def entry(name: str, base_path: str, like: Any = None) -> str:
    """Returns the entry of one model, with the other fields of the message `like`, if given."""
    config = model_server_config_pb2.ModelServerConfig()
    message = config.model_config_list.config.add(model_platform="tensorflow")
    if like is not None:
        message.MergeFrom(like)
    message.name, message.base_path = name, base_path
    printed = text_format.MessageToString(config.model_config_list, as_utf8=True)
    return textwrap.indent(printed, "  ")


def text(entries: Iterable[str]) -> str:
    """Returns a whole `models.config` of what `entry` gives."""
    return f"model_config_list {{\n{''.join(entries)}}}\n"


def read(path: pathlib.Path) -> list[Any]:
    """Returns the `ModelConfig` entries of a file.

    Raises:
        ValueError: The file is no valid `models.config`.
    """
    try:
        return entries(path.read_bytes().decode())
    except ValueError as error:
        raise ValueError(f"{path} is no valid models.config: {error}") from error


def entries(config: str) -> list[Any]:
    """As `read`, of a text."""
    return list(_parse(config).model_config_list.config)


def folder_of(entry: Any) -> str:
    """Returns the model's directory without its parents: those are of a container."""
    return pathlib.PurePosixPath(entry.base_path).name


def problems(entries: Sequence[Any], folders: Collection[str]) -> list[str]:
    """Says what keeps entries from serving what lies in `folders`, the models' directories."""
    found = []
    for key, values in (
        ("name", [each.name for each in entries]),
        ("base_path", [each.base_path.rstrip("/") for each in entries]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        found += [f"two entries have the {key} {value!r}" for value in twice]
    for each in entries:
        folder = folder_of(each)
        if folder not in folders:
            near = difflib.get_close_matches(folder, folders, 1)
            hint = f": is it {near[0]}?" if near else ""
            found.append(
                f"no folder {folder!r} is here, which base_path of {each.name!r} names{hint}"
            )
    return found


def with_model(config: str, name: str, base_path: str) -> str:
    """Adds a model to the text of a `models.config`, whose comments and other entries stay.

    Returns:
        `config` itself where an entry has this name or directory.

    Raises:
        ValueError: It cannot be parsed, or there is no place for another entry.
    """
    message = _parse(config)
    if any(name in (each.name, folder_of(each)) for each in message.model_config_list.config):
        return config
    new = entry(name, base_path)
    message.MergeFrom(_parse(text([new])))
    for brace in [match.start() for match in _TOKENS.finditer(config) if match[0] == "}"][-1:]:
        head = config[:brace].rstrip(" \t")
        extended = head + ("" if head.endswith("\n") else "\n") + new + config[brace:]
        with contextlib.suppress(ValueError):
            if _parse(extended) == message:
                return extended
    raise ValueError("no brace at its end closes `model_config_list`")


def entry_for(path: pathlib.Path) -> Any:
    """Returns the entry of a model's directory in the `models.config` beside it, if there is one.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no valid `models.config`.
    """
    config = path.parent / MODELS_FILE
    found = read(config) if config.is_file() else []
    return next((each for each in found if folder_of(each) == path.name), None)


def released(entry: Any) -> dict[str, int]:
    """Returns label -> version, of those labels that `with_release` sets."""
    return {k: v for k, v in entry.version_labels.items() if k in (STABLE, CANARY, PREVIOUS)}


def with_release(config: str, name: str, labels: Mapping[str, int]) -> str:
    """Sets the labels of a model in the text of a `models.config`, and serves their versions alone.

    Other labels stay, with their versions; so do comments, other fields and other models.

    Raises:
        ValueError: It cannot be parsed, has not one entry of this name, or is written so that the
            entry cannot be changed in its place.
    """
    message = _parse(config)
    every = message.model_config_list.config
    places = [place for place, each in enumerate(every) if each.name == name]
    if len(places) != 1:
        raise ValueError(f"{len(places) or 'no'} entries have the name {name!r}")
    entry, new = every[places[0]], model_server_config_pb2.ModelConfig()
    for label in released(entry):
        del entry.version_labels[label]
    versions = sorted({*labels.values(), *entry.version_labels.values()})
    new.model_version_policy.specific.versions.extend(versions)
    new.version_labels.update(labels)
    entry.ClearField("model_version_policy")
    entry.MergeFrom(new)
    printed = textwrap.indent(text_format.MessageToString(new), "    ")
    with contextlib.suppress(ValueError, IndexError):
        changed = _replaced(config, places[0], printed)
        if _parse(changed) == message:
            return changed
    raise ValueError(
        f"the entry of {name!r} cannot be changed in its place; write into it\n{printed}"
    )


def _replaced(config: str, place: int, printed: str) -> str:
    """Puts `printed` in place of the policy and the labels of `with_release` in an entry."""
    # Braces and words that stand in comments and strings are none; all others keep their places.
    bare = _TOKENS.sub(lambda m: m[0] if m[0] == "}" else " " * len(m[0]), config)
    _, end, _ = _field(bare, "model_config_list", 0)
    first = end
    for _ in range(place + 1):
        _, first, end = _field(bare, "config", end)
    cuts = []
    owned = re.compile(r"\b(?:model_version_policy|version_labels)\b")
    for match in owned.finditer(bare, first, end):
        start, _, stop = _field(bare, match[0], match.start())
        part = text_format.Parse(config[start:stop], model_server_config_pb2.ModelConfig())
        if match[0] == "version_labels" and not released(part):
            continue
        line = config.rfind("\n", 0, start) + 1
        if not config[line:start].strip() and config[stop : stop + 1] == "\n":
            start, stop = line, stop + 1
        cuts.append((start, stop))
    if not cuts:
        before = len(config[: end - 1].rstrip(" \t"))
        cuts = [(before, before)]
    for start, stop in reversed(cuts[1:]):
        config = config[:start] + config[stop:]
    start, stop = cuts[0]
    head = config[:start] + ("" if config[:start].endswith("\n") else "\n")
    return head + printed + config[stop:]


def _field(bare: str, name: str, start: int) -> tuple[int, int, int]:
    """Where the next message of this name begins, its inside begins, and it ends."""
    match = re.compile(rf"\b{name}\s*:?\s*\{{").search(bare, start)
    if match is None:
        raise ValueError(f"no {name}")
    depth, end = 1, match.end()
    while depth:
        depth += {"{": 1, "}": -1}.get(bare[end], 0)
        end += 1
    return match.start(), match.end(), end


def _parse(config: str) -> Any:
    try:
        return text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from None
