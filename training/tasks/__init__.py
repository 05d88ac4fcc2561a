"""What a network is to answer: one object a task, which everything else asks.

`lightnets.config.tasks` has what the configuration knows of each, `keras_lightnets.export.tasks`
what a served model says of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lightnets.serving.client import Classes
from lightnets.tasks.classification import Classification
from lightnets.tasks.multi_label import MultiLabel
from lightnets.tasks.regression import Regression
from lightnets.tasks.task import Task

if TYPE_CHECKING:
    from lightnets.config.keys import Config
    from lightnets.data import Splits

_KINDS: dict[str, type[Task]] = {
    kind.name: kind for kind in (Classification, MultiLabel, Regression)
}


def of_run(config: Config, splits: Splits) -> Task:
    """Returns the task of a run that is about to begin."""
    labels = lambda: np.asarray(splits.train_source.read_labels())  # noqa: E731
    return _KINDS[config.train.task].begin(config, labels, len(splits.labels))


def of(about: Mapping[str, Any] | None) -> Task:
    """Returns the task that `about` describes, as `notes` and `metadata.json` hold it."""
    values = dict(about or {"name": Classification.name})
    return _KINDS[values.pop("name")](**values)


def of_answer(answer: Any) -> Task:
    """Returns the task of an answer to an image, good for showing it alone."""
    if isinstance(answer, Classes):
        return Classification()
    return Regression((), ()) if "values" in answer else MultiLabel(())
