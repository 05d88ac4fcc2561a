"""`models.config`, a `tensorflow.serving.ModelServerConfig` as text: read, written, extended."""

from __future__ import annotations

import contextlib
import difflib
import pathlib
import re
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

MODELS_FILE = "models.config"

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


def _parse(config: str) -> Any:
    try:
        return text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from None
