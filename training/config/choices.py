"""What a run needs and nobody has named: chosen from the data, each choice with its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_lightnets.catalogue.registry import model_info
from lightnets.config import recipes
from lightnets.config.keys import Config, declared
from lightnets.support.words import count, shell_word

if TYPE_CHECKING:
    from lightnets.data.facts import Facts

# The network to begin with, and the one for pictures that published weights see nothing in.
PRETRAINED, SCRATCH = "mobilenet_v2", "shufflenet_v1"
# Pixels that published weights need, and those that they were trained with.
LEAST_SIZE, FULL_SIZE = 96, 224
# From random weights larger images cost more than they give.
SCRATCH_SIZE = 96
SMALL_INPUT_SIZE = 64
# A batch shrinks until an epoch has so many steps, but not below so many images.
STEPS, LEAST_BATCH = 8, 8
# Images of a class up to which only the classifier learns: the features of published weights are
# then better than what so few can teach them, and steps take a third of the time.
FEW = 20
# Share of most pictures from which on it is said that the centre crop cuts it off.
MUCH = 0.6
# Keys of the network with which no published weights are sure to fit.
_SHAPES = frozenset({"args", "alpha", "small_input"})


class Choice(NamedTuple):
    """A value of the configuration that nobody has named.

    Attributes:
        section: Of the key; empty for the recipe.
        key: In the section.
        value: What was chosen.
        why: The reason, for a person.
    """

    section: str
    key: str
    value: Any
    why: str

    @property
    def flag(self) -> str:
        """The choice as one would type it."""
        flags = {one.name: one.flag for one in declared() if one.flag}
        flag = flags.get(f"{self.section}.{self.key}") if self.section else f"--{self.key}"
        if flag is None:
            value = json.dumps(self.value)
            return f"--set {shell_word(f'{self.section}.{self.key}={value}')}"
        return flag if self.value is True else f"{flag} {self.value or 'none'}"


def nested(choices: list[Choice]) -> dict[str, Any]:
    """Returns the choices as nested keys of a configuration."""
    values: dict[str, Any] = {}
    for one in choices:
        section = values.setdefault(one.section, {}) if one.section else values
        section[one.key] = one.value
    return values


def choose(config: Config, named: Mapping[str, Any], facts: Facts) -> list[Choice]:
    """Chooses weights, network, image size, recipe and batch for a data set.

    Args:
        config: With what is `named`; the rest of it does not matter.
        named: Nested keys that the user has set, no recipe among them. They stay.
        facts: Of the data set.
    """
    model, train, data = (named.get(section, {}) for section in ("model", "train", "data"))
    crops = config.data.resize == "crop"
    known = facts.side if crops else facts.longer
    side = known or FULL_SIZE
    size = min(config.model.sides) if "image_size" in model else min(side, FULL_SIZE)
    network = config.model.name if "name" in model else PRETRAINED
    foreign, obstacle = config.model.foreign, None
    if foreign or not model_info(network).weights or _SHAPES & set(model):
        obstacle = "none are published for this network"
    elif size < LEAST_SIZE:
        obstacle = f"published ones need images of {LEAST_SIZE} pixels"
    begun = obstacle is None or config.model.is_file  # which has weights
    pretrained = bool(model["weights"]) if "weights" in model else begun
    if "image_size" not in model:
        size = max(32, min(size, FULL_SIZE if pretrained else SCRATCH_SIZE) // 32 * 32)
    network = PRETRAINED if pretrained else SCRATCH
    recipe = "finetune" if pretrained else "scratch-small"
    which = "shorter" if crops else "longer"
    sides = f"the {which} side of the pictures: {known or 'unknown'}"
    choices = [
        Choice("model", "name", network, "lightnets list has the others"),
        Choice("model", "weights", "imagenet", "published; or none: random")
        if pretrained
        else Choice("model", "weights", None, f"random ones: {obstacle}"),
        Choice("model", "image_size", size, sides),
        Choice("", "recipe", recipe, "docs/recipes.md has the others"),
    ]
    if facts.cut_off >= MUCH and isinstance(config.model.image_size, int):
        why = f"cuts off {facts.cut_off:.0%} of a picture; all of it is seen with --resize pad"
        choices.append(Choice("data", "resize", "crop", why))
    each = facts.images // facts.classes
    if pretrained and each <= FEW and not {"head_warmup_epochs", "unfreeze_epochs"} & set(model):
        why = f"{count(each, 'image')} a class: only the classifier learns"
        choices.append(Choice("model", "freeze", "backbone", why))
    if size <= SMALL_INPUT_SIZE and not pretrained and "image_size" not in model and not foreign:
        why = f"for images of up to {SMALL_INPUT_SIZE} pixels"
        choices.append(Choice("model", "small_input", True, why))
    batch = usual = recipes.RECIPES[recipe].config["train"]["batch_size"]
    while batch > LEAST_BATCH and facts.images < STEPS * batch:
        batch //= 2
    if batch < usual:
        why = f"{count(facts.images, 'image')} to train on"
        choices.append(Choice("train", "batch_size", batch, why))
    if foreign:
        model = {"weights": None, **model}  # it says itself what it begins with
    taken = {"model": model, "train": train, "data": data}
    return [one for one in choices if one.key not in taken.get(one.section, {})]
