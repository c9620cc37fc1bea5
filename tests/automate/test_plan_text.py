"""A plan in words."""

import pytest

from automate.confirm_text import race_pairs
from automate.plan_text import network_text, plan_pairs
from tests.studies import made_up, made_up_confirmations


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("exit:4", "exit:4: accuracy of exit 4"),
        ("budget:150M", "budget:150M: accuracy of dynamic inference at 150.00 MFLOPs"),
        ("last", "last: accuracy of the deepest exit"),
    ],
)
def test_an_objective_is_named_without_its_template(objective: str, said: str) -> None:
    assert plan_pairs(made_up.plan(objective=objective), "", "", None, None)["objective"] == said


def test_one_is_not_said_as_several() -> None:
    plan = made_up.plan(trials=1, base={"epochs": 1}, grace=1)
    pairs = plan_pairs(plan, "", "", None, None)
    assert pairs["search"].startswith("1 trial, tpe") and "(default)" not in pairs["search"]
    assert pairs["training"].startswith("1 epoch, batches")
    race = race_pairs(made_up_confirmations.plan(candidates=1, seeds=1), "")["race"]
    assert race == "1 candidate a round, and the paper's default"


def test_a_data_set_lies_in_the_data_folder_unless_it_is_a_folder() -> None:
    named = made_up.plan(data_root="/data")
    assert network_text(named).endswith(" on cifar100 in /data")
    for place in ("/tree", "./tree"):
        folder = named.model_copy(update={"base": named.base.model_copy(update={"dataset": place})})
        assert network_text(folder).endswith(f" on {place}")


def test_images_that_are_resized_are_said_to_be() -> None:
    base = made_up.plan().base.with_(
        dataset="./tree", classes=3, backbone="resnet18", image_size=224, resize=224
    )
    said = plan_pairs(made_up.plan().model_copy(update={"base": base}), "", "", None, None)["data"]
    assert said.startswith("./tree: 3 classes, made 224x224 pixels, cut from 256x256; scored on")
    plain = base.with_(resize=None)
    said = plan_pairs(made_up.plan().model_copy(update={"base": plain}), "", "", None, None)["data"]
    assert said.startswith("./tree: 3 classes, 224x224 pixels; scored on")
