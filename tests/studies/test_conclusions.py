"""What a confirmation says, in words and for machines."""

import json
import math
import re
from dataclasses import replace
from html import escape

import numpy as np
import pytest

from studies.conclusions import NOTE, choice, headline, on_front, optimism, probability, sentences
from studies.conclusions import test as on_test
from studies.confirm_json import as_json
from studies.confirm_sections import add_finalists, confirmation_parts, confirmed_figure
from studies.confirmation import confirmed
from studies.figures import front_figure
from studies.plan import StudyPlan
from studies.report import report_page
from studies.states import Outcome
from tests.studies import made_up
from tests.studies.made_up_confirmations import confirmation, plan


def test_a_better_config_is_called_so_with_all_that_belongs_to_it():
    made = confirmation([2.0, 0.0, -0.5, -1.0])
    text = headline(made)
    assert text.startswith("Trial 11 is better than the paper's default on 5 fresh seeds and hold")
    assert "points of anytime accuracy (95 % interval +" in text
    assert "p < 0.001, corrected for 4 comparisons" in text
    assert choice(made).startswith("Take trial 11: it has the best mean")
    assert "not proven" not in choice(made)


def test_no_difference_says_what_would_be_needed():
    made = confirmation([0.15, 0.1, 0.1, 0.0], rng=3)
    text = headline(made)
    assert text.startswith("No difference at this budget: on 5 fresh seeds and hold-outs no cand")
    assert "seeds a config would show it (4 times in 5)" in text or "behind" in text
    assert "5 seeds find a difference of" in text
    judged = made.judged
    assert judged is not None and not judged.separated


def test_a_lead_that_is_no_proof_may_be_taken_and_is_called_so():
    for rng in range(60):
        made = confirmation([0.35, 0.0, 0.0], rng=rng)
        judged = made.judged
        if judged is not None and judged.chosen and not judged.separated:
            break
    assert f"Take {made.rows[judged.chosen].name}: " in choice(made)
    assert "That it is better than the paper's default is not proven." in choice(made)
    assert headline(made).startswith("No difference at this budget")


def test_the_default_is_taken_where_nothing_beats_it_clearly():
    made = confirmation([-1.0, -1.5, -2.0])
    assert choice(made).startswith("Take the paper's default: it has the best mean, and nothing")
    assert "Worse than the paper's default: trial" in headline(made)
    assert "None of those that ran every round is ahead of it" in headline(made)


def test_the_simplest_within_one_standard_error():
    for rng in range(60):
        made = confirmation([0.05, 0.0], rng=rng)
        judged = made.judged
        if judged is not None and judged.best and judged.chosen == 0:
            break
    assert "it is the simplest config whose mean lies within one standard error" in choice(made)
    assert f"({made.rows[judged.best].name})" in choice(made)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (-0.3, "0.30 points less, as the best of several is partly luck."),
        (0.3, "0.30 points more, as part of what sets it below the others is chance."),
    ],
)
def test_what_to_expect_of_new_runs_has_its_own_reason_in_each_direction(drawn, said):
    made = confirmation([1.0, 0.0, -1.0])
    judged = made.judged
    mean = judged.means[judged.chosen].mean
    expected = tuple(mean + drawn for _ in judged.expected)
    text = choice(replace(made, judged=replace(judged, expected=expected)))
    assert text.endswith(f"; of new runs expect {mean + drawn:.2f} %, {said}")


def test_what_is_equal_is_called_equal():
    made = confirmation([0.0, 0.0], spread=0.0, hits=False)
    text = headline(made)
    assert re.search(r"The nearest, trial 1[12], is equal to it\.", text)
    assert "0.00" not in text
    assert "exit 1 the paper's default and 2 others, each (> 99 %);" in on_front(made)


def test_optimism_of_the_search():
    text = optimism(confirmation([0.0, 0.0, 0.0], said=0.78))
    assert text.startswith(
        "The search's best, trial 11: it promised 77.90 % (one run), on fresh seeds"
    )
    assert "points too much (95 % interval +" in text and "which chance explains" not in text
    assert "Over all 3 candidates it promised" in text
    assert "Of the paper's default, which nobody chose for its value, it promised" in text
    assert "too little (95 % interval +" in optimism(confirmation([0.0, 0.0], said=0.60))
    assert "which chance explains" in optimism(confirmation([0.0] * 4, said=0.731, rng=1))


def test_the_test_split_is_named_with_its_rule():
    made = confirmation([1.0, 0.0, -1.0, -1.0])
    text = on_test(made)
    assert "read once, after the race, for the finalists alone, and nothing was chosen" in text
    judged = made.judged
    assert judged is not None
    assert all(made.rows[row].name in text for row in judged.finalists)
    assert "Against the paper's default: trial 11 +" in text
    assert "bear out" not in text
    assert on_test(confirmation([1.0, 0.0], tested=False)) == ""


def test_test_images_that_contradict_the_verdict_are_said_to():
    made = confirmation([2.0, 0.0])
    assert made.judged is not None and made.judged.separated[0].difference > 0
    row = made.judged.separated[0].config
    below = made.test_values.copy()
    below[row] = made.test_values[0] - np.linspace(0.1, 0.4, below.shape[1])
    other = replace(made, test_values=below)
    assert on_test(other).endswith(f"They do not bear out that {made.rows[row].name} is better.")


@pytest.mark.parametrize("hits", [True, False])
def test_the_front_is_named_with_how_it_is_known(hits):
    made = confirmation([1.0, 0.0, -1.0, -1.0], hits=hits)
    text = on_front(made)
    likely = probability(float(made.points.on_front[1, 0]))
    assert text.startswith(f"Most probably on the front: exit 1 trial 11 ({likely}); exit 2 trial")
    assert ("2,000 draws of other seeds and other images" in text) == hits
    assert (
        "Other images were not drawn: which ones each run had right was not kept" in text
    ) != hits
    assert text in sentences(made)
    assert as_json(made)["exits_drawn"] == {"draws": 2000, "seeds": True, "images": hits}
    (entry,) = (c for c in as_json(made)["candidates"] if c["name"] == "trial 11")
    assert entry["exit_means"][0]["low"] == made.points.means[1][0].low
    page = "".join(confirmation_parts(made))
    assert escape(text) in page and page.count("Most probably on the front") == 1


def test_runs_without_hits_leave_the_front_to_the_seeds():
    """One run of an older version is enough: what is not known of one is not half known."""
    made = confirmation([1.0, 0.0, -1.0])
    key = next(iter(made.hits))
    damaged = replace(made, hits={**made.hits, key: "4 5 6 no bits"})
    assert made.points.images and not damaged.points.images
    assert damaged.points.means[0][0].half < made.points.means[0][0].half


def test_nothing_is_said_before_the_end():
    made = confirmation([1.0, 0.0, 0.0], seeds=4, finish=6)
    assert sentences(made) == [
        "The confirmation is not finished (6 runs so far, 1 of 4 rounds): nothing can be said yet."
    ]
    assert as_json(made)["verdict"] is None
    (part,) = confirmation_parts(made)
    assert "not finished" in part


def test_one_seed_proves_nothing_and_says_so():
    made = confirmation([3.0, 0.0], seeds=1)
    text = " ".join(sentences(made))
    assert "With one seed a config nothing can be told apart" in text
    assert "on 1 fresh seed and hold-out" in text
    assert "with one seed nothing can be told apart, so the simplest" in choice(made)
    assert optimism(made).count("which may be chance") == 1
    assert " p = " not in " ".join(sentences(made)) and "standard error" not in choice(made)
    assert "(n = 1, unconfirmed)" in text and "nan" not in text and "inf" not in text
    json.dumps(as_json(made), allow_nan=False)
    assert math.isnan(made.points.on_front[0][0])
    assert "nan" not in "".join(confirmation_parts(made)).lower().replace("finance", "")


def test_runs_that_broke_are_said():
    gap = confirmation([1.0, 0.0], broken=(1,))
    assert headline(gap).endswith(" 1 run broke and left a gap.")
    assert gap.judged is not None and gap.judged.finalists == (0, 2)
    lost = confirmation([0.0, 1.5, 0.0, 0.0], broken=(1,))
    assert headline(lost).startswith("Trial 12 is better")
    assert headline(lost).endswith("1 run broke; nothing is known of trial 11.")
    assert [row.name for row in lost.rows] == [
        "the paper's default",
        *(f"trial {n}" for n in (12, 13, 14)),
    ]
    assert "Take trial 12" in choice(lost) and "trial 12 +" in on_test(lost)
    nothing = confirmation([1.0, 0.0], broken=tuple(range(0, 15, 3)))
    assert headline(nothing) == ("5 runs broke and left a gap: nothing can be compared.")
    assert choice(nothing) == optimism(nothing) == on_test(nothing) == ""


def runs(states: str) -> tuple[StudyPlan, list[Outcome]]:
    """A race of the default and a candidate: a round is two letters, of a run that Came through,
    Broke or Diverged; those that came through end at 0.80 and 0.81 (the mean of their exits)."""
    asked = plan(1, len(states) // 2)
    made = []
    for number, state in enumerate(states):
        config = (asked.finalists or ())[number % 2].config
        report = made_up.report(config, config.epochs, [0.80 + 0.01 * (number % 2)] * config.exits)
        fields = {"config": config, "epochs": config.epochs}
        if state == "C":
            value = report.accuracies[0]
            made.append(made_up.outcome(number, "COMPLETE", value=value, report=report, **fields))
        elif state == "D":
            chance = 1 / config.classes
            made.append(made_up.outcome(number, "PRUNED", value=chance, diverged=True, **fields))
        else:
            made.append(made_up.outcome(number, "FAIL", reason="broke"))
    return asked, made


def test_rows_that_share_no_seed_are_not_compared():
    made = confirmed(*runs("CBBC"), {})
    assert made.judged is None and made.over
    assert headline(made) == "2 runs broke and left a gap: nothing can be compared."
    assert choice(made) == on_test(made) == ""


def test_a_network_that_diverged_guesses_on_the_test_images_too():
    asked, outcomes = runs("CCCDCC")
    tests = {o.number: o.report for o in outcomes if o.report is not None}
    made = confirmed(asked, outcomes, tests)
    assert made.tested is not None and [mean.n for mean in made.tested.means] == [3, 3]
    exits = 100 / asked.base.classes
    assert made.test_exits[1, 1].tolist() == made.exits[1, 1].tolist() == [exits] * asked.base.exits
    assert made.tested.means[1].mean == pytest.approx((81 + 81 + exits) / 3)
    unread = confirmed(asked, outcomes, {})
    assert np.isnan(unread.test_values).all() and unread.tested is None


def test_the_hypervolume_is_no_percentage():
    made = confirmation([1.0, 0.0, 0.0], objective="hypervolume", box=(1e6, 1e9, 0.01))
    text = " ".join(sentences(made))
    assert "of hypervolume" in text
    assert " points" not in text.partition("Test images")[0]
    assert as_json(made)["unit"] == "share of the box"


def test_machines_get_the_same():
    made = confirmation([1.0, 0.0, -1.0, -1.0], seeds=4)
    found = json.loads(json.dumps(as_json(made), allow_nan=False))
    assert found["sentences"] == sentences(made) and found["how_to_read"] == NOTE
    assert found["chosen"] == made.rows[made.judged.chosen].name
    assert [c["name"] for c in found["candidates"]] == [row.name for row in made.rows]
    assert found["seeds"] == found["split_seeds"] == [1, 2, 3, 4]
    for row, entry in enumerate(found["candidates"]):
        assert entry["rounds"] == made.rounds[row]
        assert entry["finalist"] == (row in made.judged.finalists) == ("test" in entry)
        assert sum(value is not None for value in entry["values"]) == entry["rounds"]
        assert all(0 <= share <= 1 for share in entry["on_front"])
    best = found["candidates"][made.judged.best]
    assert best["difference"]["low"] < best["difference"]["difference"] < best["difference"]["high"]


def test_the_report_shows_the_verdict_and_the_intervals():
    made = confirmation([1.5, 0.0, -1.0, -1.0])
    view = made_up.view(made_up.plan(trials=8))
    page = report_page([type(view)(**{**vars(view), "confirmation": made})])
    for text in (headline(made), choice(made), "On the test images", "error_y", 'id="confirmed"'):
        assert escape(text) in page or text in page, text
    assert "Before it was confirmed" in page
    assert "anytime accuracy, confirmed: trial 11" in page.partition("best of one run")[0]
    assert 'id="confirmed"' not in report_page([view])


@pytest.mark.parametrize("seeds", [1, 5])
def test_the_figures_have_bars_where_there_are_intervals(seeds):
    made = confirmation([1.5, 0.0, -1.0, -1.0], seeds=seeds)
    plot = confirmed_figure(made)
    bars = [trace for trace in plot.data if trace.error_y.array is not None]
    assert len(bars) == (5 if seeds > 1 else 0)
    view = made_up.view(made_up.plan(trials=8))
    front = front_figure(view.outcomes)
    count = len(front.data)
    low, high = front.layout.yaxis.range
    add_finalists(front, made)
    assert len(front.data) == count + len(made.judged.finalists)
    assert front.layout.yaxis.range[0] <= low and front.layout.yaxis.range[1] >= high
