"""The front in words, where networks cost differently."""

import pytest

from automate.front_text import front_rows, say_front
from tests.studies.test_joint_figures import BEATEN, SMALL, study


def test_a_default_without_an_exit_so_cheap_has_no_accuracy_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    default = BEATEN.outcomes[0]  # its cheapest exit costs 12
    better = SMALL.outcomes[0].model_copy(update={"number": 1, "start": False})
    rows = front_rows([default, better])
    assert [(row.flops, row.reference) for row in rows] == [
        (10, None),
        (20, 0.3),
        (30, 0.4),
        (40, 0.5),
    ]
    say_front([default, better], SMALL.plan)
    said = capsys.readouterr().out
    assert said.count("no exit so cheap") == 1
    assert " 0.00 %" not in said and "network to take" in said
    say_front([default, better], SMALL.plan, confirmed=True)
    assert "network to take" not in capsys.readouterr().out  # that says the confirmation


def test_all_columns_have_the_best_exit_that_the_cost_allows() -> None:
    falling = study("vgg16", [[(10, 0.5), (20, 0.7), (30, 0.6), (40, 0.8)], [(10, 0.4)] * 4])
    rows = front_rows(falling.outcomes)
    assert [row.accuracy for row in rows] == [0.5, 0.7, 0.7, 0.8], "exit 3 is worse than exit 2"
    for row in rows:
        assert (row.best, row.best_trial, row.reference) == (row.accuracy, 0, row.accuracy)
