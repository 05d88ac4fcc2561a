"""What a configuration may give to the builder of a network."""

import pytest

from lightnets.config import keys as configs
from lightnets.run import build
from lightnets.support.errors import UsageError


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "squeezenet", "alpha": 0.5},
            r"squeezenet takes no model\.alpha\. It takes: .*squeeze_ratio",
        ),
        ({"name": "mobilenet_v2", "args": {"groups": 3}}, r"takes no model\.args\.groups\."),
        ({"name": "shufflenet_v1", "args": {"group": 3}}, "Did you mean 'groups'"),
        ({"name": "mobilenet_v1", "args": {"classes": 3}}, r"classes cannot be set"),
    ],
)
def test_what_a_builder_does_not_take_is_named_with_what_it_takes(model, message):
    with pytest.raises(UsageError, match=message):
        build.check_arguments(configs.from_dict({"model": model}).model)


def test_what_a_builder_takes_passes():
    model = {"name": "shufflenet_v1", "alpha": 0.5, "args": {"groups": 8, "bn_epsilon": 1e-3}}
    build.check_arguments(configs.from_dict({"model": model}).model)
