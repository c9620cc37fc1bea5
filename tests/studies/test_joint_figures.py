"""Several studies, of several networks, on one front."""

from dataclasses import replace

import pytest

from studies import verdict as v
from studies.joint_figures import joint_deployable, joint_envelope, joint_figure
from studies.report import report_page
from studies.view import View
from tests.studies import made_up
from tests.studies.test_report import Parts


def study(backbone: str, curves: list[list[tuple[int, float]]], **base) -> View:
    """A study of one network whose full-length trials have these (FLOPs, accuracy)."""
    base = {"backbone": backbone, "epochs": 3, **base}
    plan = made_up.plan("single_alpha", len(curves), study=f"of-{backbone}", base=base)
    outcomes, reports = [], {}
    for number, points in enumerate(curves):
        report = made_up.report(plan.base, 3, [accuracy for _, accuracy in points])
        exits = tuple(
            point.model_copy(update={"flops": flops, "flops_cascade": flops})
            for point, (flops, _) in zip(report.exits, points, strict=True)
        )
        report = report.model_copy(update={"exits": exits})
        fields = {"config": plan.base, "params": {"alpha": 3.0}, "epochs": 3, "report": report}
        value = sum(accuracy for _, accuracy in points) / len(points)
        outcomes.append(
            made_up.outcome(number, "COMPLETE", value=value, start=number == 0, **fields)
        )
        reports[number] = [report]
    return replace(made_up.view(plan), outcomes=tuple(outcomes), reports=reports)


SMALL = study("vgg16", [[(10, 0.5), (20, 0.6), (30, 0.7), (40, 0.75)], [(10, 0.4)] * 4])
LARGE = study("msdnet", [[(15, 0.55), (25, 0.58), (50, 0.8), (60, 0.85), (70, 0.9)]])
BEATEN = study("resnet18", [[(12, 0.3), (22, 0.4), (32, 0.5), (80, 0.6)]])
ALL = [view.outcomes for view in (SMALL, LARGE, BEATEN)]


def test_the_envelope_is_of_all_studies() -> None:
    found = [(place, point.flops, point.accuracy) for place, point in joint_envelope(ALL)]
    assert found == [
        (0, 10, 0.5),
        (1, 15, 0.55),
        (0, 20, 0.6),
        (0, 30, 0.7),
        (0, 40, 0.75),
        (1, 50, 0.8),
        (1, 60, 0.85),
        (1, 70, 0.9),
    ]


def test_what_is_deployable_is_one_network_of_any_study() -> None:
    assert joint_deployable(ALL) == {(0, 0), (1, 0)}
    assert joint_deployable([BEATEN.outcomes]) == {(0, 0)}, "alone it is beaten by none"


def test_equal_points_of_two_studies_are_counted_once() -> None:
    assert [place for place, _ in joint_envelope([SMALL.outcomes, SMALL.outcomes])] == [0] * 4


def test_the_figure_draws_one_envelope_and_a_line_a_study() -> None:
    figure = joint_figure([(view.plan, view.outcomes) for view in (SMALL, LARGE, BEATEN)])
    names = [trace.name for trace in figure.data]
    assert names == [
        "envelope of all studies: may need a different network for each point",
        "exits of all full-length trials",
        "of-vgg16: trial 0",
        "of-msdnet: trial 0",
        "of-resnet18: trial 0, beaten by another study's network",
    ]
    assert list(figure.data[0].x) == [10, 15, 20, 30, 40, 50, 60, 70]
    assert len(figure.data[1].x) == 4 + 4 + 5 + 4
    assert list(figure.data[3].x)[:5] == [15, 25, 50, 60, 70]


def test_studies_that_do_not_compare_have_no_front_together() -> None:
    pairs = [(view.plan, view.outcomes) for view in (SMALL, BEATEN)]
    figure = joint_figure(pairs, together=False)
    assert [trace.name for trace in figure.data] == ["of-vgg16: trial 0", "of-resnet18: trial 0"]


def test_the_report_says_what_is_possible_and_what_can_be_deployed() -> None:
    parts = Parts(report_page([SMALL, LARGE, BEATEN]))
    assert (
        "All 3 studies share one front of FLOPs and accuracy. What is possible: the envelope over "
        "4 full-length trials has 8 exits (4 of of-vgg16, 4 of of-msdnet), which may belong to "
        "different networks. What can be deployed is one network as a whole: no network of any "
        "study beats the one to take of of-vgg16, of-msdnet; that of of-resnet18 is beaten. One "
        "run each: n = 1, unconfirmed."
    ) in parts.text
    assert "do not compare" not in parts.text
    assert "differ in" not in parts.text, "another backbone is no reason not to compare"


@pytest.mark.parametrize("change", [{"epochs": 4}, {"limit_train": 500}, {"split_seed": 1}])
def test_the_report_draws_no_front_over_what_does_not_compare(change) -> None:
    plan = made_up.plan("single_alpha", 2, base={"epochs": 3, **change}, grace=1)
    parts = Parts(report_page([SMALL, made_up.view(plan)]))
    (name,) = change
    assert f"These studies differ in {name}: their accuracies do not compare" in parts.text
    assert "envelope of all studies" not in str(parts.figures[0])


def test_studies_without_a_full_length_trial_say_so() -> None:
    empty = replace(SMALL, outcomes=(made_up.outcome(0, "WAITING"),), reports={})
    parts = Parts(report_page([empty, empty]))
    assert "No study has a full-length trial yet" in parts.text
    assert v.finished(empty.outcomes) == []
