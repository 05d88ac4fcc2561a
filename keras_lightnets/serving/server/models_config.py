"""Reads `models.config`, the text proto `tensorflow.serving.ModelServerConfig`."""

from __future__ import annotations

import pathlib
from typing import Any

from google.protobuf import text_format

from keras_lightnets.serving.server.layout import ServedModel


def read(path: pathlib.Path) -> list[Any]:
    """The `ModelConfig` entries of a file.

    Raises:
        ValueError: The file is no valid `models.config`.
    """
    from tensorflow_serving.config import model_server_config_pb2

    try:
        config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid models.config: {error}") from error
    return list(config.model_config_list.config)


def served_model(entry: Any, base_path: pathlib.Path) -> ServedModel:
    """A `ModelConfig` entry with the path where the model really lies."""
    policy = entry.model_version_policy
    choice = policy.WhichOneof("policy_choice") or "latest"
    return ServedModel(
        name=entry.name,
        base_path=base_path,
        policy=choice,
        latest=max(policy.latest.num_versions, 1),
        versions=tuple(policy.specific.versions),
        labels=tuple(sorted(entry.version_labels.items())),
    )
