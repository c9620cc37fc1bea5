"""A flag for every field of the config, made from the field."""

from typing import Any

import pytest
from cyclopts import App, CycloptsError

from automate import config_flags
from trainers.config import TrialConfig

FIELDS = [name for name in TrialConfig.model_fields if name not in config_flags.NO_FLAGS]


def parsed(words: str) -> dict[str, Any]:
    """What the config flags of a command line come to."""
    app = App(result_action="return_value")

    @app.default
    def command(*, config: config_flags.Config = None) -> dict[str, Any]:
        return dict(config or {})

    found = app(words.split(), exit_on_error=False, print_error=False)
    assert isinstance(found, dict)
    return found


def words_for(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    if isinstance(value, tuple):
        return f"--{flag} {' '.join(map(str, value))}"
    return f"--{flag} {value}"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_flag_that_gives_its_value_back(name):
    several = {"alpha_teacher": (1.0, 2.0, 3.0, 4.0), "exit_weights": (1.0, 0.5, 0.5, 2.0)}
    config = TrialConfig(
        dataset="./tree", classes=10, resize=8, limit_train=50, mix_scale=0.5,
        temperatures=(1.0, 4.0), **several,
    )  # fmt: skip
    value = getattr(config, name)
    found = parsed(words_for(name, value))
    assert found == {name: value}
    assert type(found[name]) is type(value)


def test_what_is_not_given_is_not_there():
    assert parsed("") == {}


def test_all_together_make_the_same_config():
    config = TrialConfig(dataset="cifar100", alpha=(30, 5, 10, 10), t_squared=True, limit_train=9)
    words = " ".join(
        words_for(name, getattr(config, name))
        for name in FIELDS
        if getattr(config, name) is not None
    )
    assert TrialConfig(**parsed(words)) == config


@pytest.mark.parametrize(
    ("words", "alpha"),
    [
        ("--alpha 3", (3.0,)),
        ("--alpha 30 5 10 10", (30.0, 5.0, 10.0, 10.0)),
        ("--alpha 30,5,10,10", (30.0, 5.0, 10.0, 10.0)),
        ("--alpha=30,5,10,10", (30.0, 5.0, 10.0, 10.0)),
        ("--alpha 1e-1 -2", (0.1, -2.0)),
    ],
)
def test_alpha_is_one_or_several_values(words, alpha):
    assert parsed(words + " --epochs 2") == {"alpha": alpha, "epochs": 2}


@pytest.mark.parametrize(
    "words",
    [
        "--epochs 1.5",
        "--epochs none",
        "--epochs 1e3",
        "--alpha none",
        "--alpha 1;2",
        "--alpha 1,,2",
        "--lr fast",
        "--kl sideways",
        "--t-squared=perhaps",
        "--classes 3",
        "--image-size 8",
        "--schema-version 1",
    ],
)
def test_what_is_no_such_value_is_refused(words):
    with pytest.raises(CycloptsError):
        parsed(words)


def test_help_tells_the_default_that_holds():
    fields = TrialConfig.model_fields
    assert config_flags._help("epochs", fields["epochs"]).endswith(
        "30 for digits, 300 for cifar100 and tinyimagenet, "
        "200 for cub200 and stanford_dogs and fgvc_aircraft, else 30]"
    )
    assert config_flags._help("augmentation", fields["augmentation"]).endswith(
        "[default: none for digits, else crop_flip]"
    )
    assert config_flags._help("alpha", fields["alpha"]).endswith("[default: 3]")
    assert "default" not in config_flags._help("limit_train", fields["limit_train"])


def test_every_field_is_described():
    assert not [name for name in FIELDS if not TrialConfig.model_fields[name].description]
