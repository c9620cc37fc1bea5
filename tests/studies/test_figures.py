"""The figures show the trials they should, with names that cannot break out."""

from math import log

import numpy as np
import plotly.graph_objects as go
import pytest

from studies import figures, learning_figures, mix_figures, parameter_figures
from studies import verdict as v
from studies.drawing import exit_colours, frame, plot_text
from studies.front import deployable, envelope
from studies.joint_figures import joint_figure
from studies.view import View
from tests.studies import made_up
from trainers.config import TrialConfig
from trainers.schemes import SCHEMES

NASTY = "<img src=x onerror=alert(1)></script>"


@pytest.fixture(scope="module")
def view() -> View:
    return made_up.view(made_up.plan(trials=16, base={"epochs": 8}, grace=2))


def named(figure: go.Figure, start: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if (trace.name or "").startswith(start)]


def test_the_front_shows_full_length_trials_alone(view: View) -> None:
    figure = figures.front_figure(view.outcomes)
    done = v.finished(view.outcomes)
    assert 1 < len(done) < len(view.outcomes)
    for exit_index in range(4):
        (column,) = named(figure, f"exit {exit_index + 1}")
        expected = sorted(100 * o.report.accuracies[exit_index] for o in done if o.report)
        assert sorted(column.y) == pytest.approx(expected)
        assert set(column.x) == {made_up.FLOPS[exit_index]}
    assert figure.layout.xaxis.type == "log"


def test_the_front_tells_envelope_network_and_default_apart(view: View) -> None:
    figure = figures.front_figure(view.outcomes)
    curves = v.curves(view.outcomes)
    (dotted,) = named(figure, "envelope")
    assert "may need a different network for each point" in dotted.name
    assert list(dotted.y) == [100 * point.accuracy for point in envelope(curves)]
    taken = v.recommended(view.outcomes)
    assert taken is not None
    (line,) = named(figure, f"deployable: trial {taken.number}")
    assert line.y[:4] == tuple(100 * point.accuracy for point in curves[taken.number])
    (more,) = named(figure, f"deployable: {len(deployable(curves)) - 1} more")
    assert len(more.x) == 5 * (len(deployable(curves)) - 1)
    (default,) = named(figure, "the paper's default: trial 0")
    assert default.y[:4] == tuple(100 * point.accuracy for point in curves[0])


def test_beaten_points_are_faint(view: View) -> None:
    figure = figures.front_figure(view.outcomes)
    on_front = {(p.trial, p.exit) for p in envelope(v.curves(view.outcomes))}
    for exit_index in range(4):
        (column,) = named(figure, f"exit {exit_index + 1}")
        for text, colour in zip(column.text, column.marker.color, strict=True):
            number = int(text.split("trial ")[1].split(",")[0])
            strong = colour.endswith(",1)")
            assert strong == ((number, exit_index + 1) in on_front)


def test_hovers_name_trial_exit_and_setting(view: View) -> None:
    figure = figures.front_figure(view.outcomes)
    (column,) = named(figure, "exit 2")
    assert all("exit 2</b>" in text and "alpha_4 = " in text for text in column.text)


@pytest.mark.parametrize("outcomes", [[], [made_up.outcome(0, "WAITING")]])
def test_figures_without_a_finished_trial_say_so(outcomes) -> None:
    plan = made_up.plan()
    for figure in (
        figures.front_figure(outcomes),
        figures.front_figure(outcomes, "Front"),
        joint_figure([(plan, outcomes)]),
        figures.progress_figure(outcomes, plan),
        learning_figures.learning_figure(outcomes, {}, []),
        learning_figures.exits_figure([]),
        parameter_figures.parameter_figure(outcomes, {}, "alpha"),
        figures.importance_figure({}),
        mix_figures.heat_figure([], plan.base),
        mix_figures.entropy_figure([], plan.base),
    ):
        assert len(figure.data) == 0
        assert figure.layout.annotations[0].text


def test_progress_rises_and_marks_the_default(view: View) -> None:
    figure = figures.progress_figure(view.outcomes, view.plan)
    (best,) = named(figure, "best so far")
    assert list(best.y) == sorted(best.y)
    default = v.reference(view.outcomes)
    assert default is not None
    assert figure.layout.shapes[0].y0 == pytest.approx(100 * default.value)


def test_epochs_are_drawn_by_what_became_of_the_trial() -> None:
    report = made_up.report(made_up.plan().base, 3, [0.1, 0.2, 0.3, 0.4])
    outcomes = [
        made_up.outcome(0, "COMPLETE", epochs=9, value=0.2, report=report),
        made_up.outcome(1, "PRUNED", epochs=3, value=0.2, report=report),
        made_up.outcome(2, "PRUNED", epochs=2, value=0.1, report=report, diverged=True),
        made_up.outcome(3, "FAIL", epochs=1, reason="broke"),
        made_up.outcome(4, "RUNNING", epochs=4),
    ]
    figure = figures.epochs_figure(outcomes, [3, 6])
    drawn = {bar.name: (bar.x, bar.y) for bar in figure.data}
    assert drawn == {
        "full length": ((0,), (9,)),
        "stopped early": ((1,), (3,)),
        "diverged": ((2,), (2,)),
        "failed": ((3,), (1,)),
        "not finished": ((4,), (4,)),
    }
    assert [shape.y0 for shape in figure.layout.shapes] == [3, 6]


def test_learning_curves_are_thinned_sensibly() -> None:
    outcomes = [
        made_up.outcome(n, "PRUNED", epochs=300, config=made_up.plan().base) for n in range(200)
    ]
    shown = learning_figures.chosen_trials(outcomes)
    assert len(shown) == len(set(shown)) == learning_figures.MOST_CURVES
    assert {0, 199} <= set(shown)
    config = made_up.plan(base={"epochs": 300}).base
    reports = [made_up.report(config, epoch, [0.1] * 4) for epoch in range(1, 301)]
    few = learning_figures.thinned(reports)
    assert len(few) == learning_figures.MOST_EPOCHS
    assert (few[0].epoch, few[-1].epoch) == (1, 300)


def test_thinning_keeps_the_best_the_default_and_the_deployable() -> None:
    big = made_up.view(made_up.plan(trials=80, base={"epochs": 2}, early_stopping=False))
    shown = learning_figures.chosen_trials(big.outcomes)
    taken = v.recommended(big.outcomes)
    assert taken is not None
    whole = deployable(v.curves(big.outcomes))[:15]
    assert {0, taken.number, *whole} <= set(shown)
    assert len(shown) == learning_figures.MOST_CURVES


def test_learning_curves_have_a_panel_per_exit(view: View) -> None:
    figure = learning_figures.learning_figure(view.outcomes, view.reports, view.rungs)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["exit 1", "exit 2", "exit 3", "exit 4"]
    stopped = [o for o in view.outcomes if o.state == "PRUNED"]
    crosses = [trace for trace in figure.data if trace.marker.symbol == "x-thin"]
    assert len(crosses) == 4
    assert sorted(crosses[2].y) == pytest.approx(
        sorted(100 * o.report.accuracies[2] for o in stopped if o.report), abs=1e-3
    )
    assert len(figure.layout.shapes) == 4 * len(view.rungs)


def test_a_parameter_has_a_log_axis_where_its_distribution_has(view: View) -> None:
    for is_log, expected in ((True, "log"), (False, None)):
        figure = parameter_figures.parameter_figure(
            view.outcomes, view.reports, "alpha_2", is_log, rung=2
        )
        assert figure.layout.xaxis.type == expected


def test_parameters_show_full_length_above_and_all_at_the_first_rung_below(view: View) -> None:
    figure = parameter_figures.parameter_figure(view.outcomes, view.reports, "alpha_1", rung=2)
    points = [trace for trace in figure.data if trace.hovertemplate]
    assert len(points) == 8
    done = v.finished(view.outcomes)
    assert [len(trace.x) for trace in points] == [len(done)] * 4 + [len(view.outcomes)] * 4
    assert sorted(points[1].x) == sorted(o.params["alpha_1"] for o in done)
    early = [100 * view.reports[o.number][1].accuracies[3] for o in view.outcomes]
    assert sorted(points[7].y) == pytest.approx(sorted(early), abs=1e-3)


def test_a_choice_of_two_is_told_apart_by_symbol() -> None:
    plan = made_up.plan("weight_network", 12, base={"epochs": 2}, early_stopping=False)
    view = made_up.view(
        plan,
        params=lambda rng, m: {
            "scheme": ("mate", "mate_gate")[int(rng.integers(2))],
            "alpha": float(rng.uniform(1, 9)),
        },
    )
    figure = parameter_figures.parameter_figure(view.outcomes, view.reports, "alpha")
    in_legend = {trace.name: trace.marker.symbol for trace in figure.data if trace.showlegend}
    assert in_legend == {"scheme = mate": "circle", "scheme = mate_gate": "square"}
    strips = parameter_figures.parameter_figure(view.outcomes, view.reports, "scheme")
    assert list(strips.layout.xaxis.ticktext) == ["mate", "mate_gate"]
    for x, text in zip(strips.data[0].x, strips.data[0].text, strict=True):
        assert ("mate_gate" in text) == (round(x) == 1)


def test_parameters_that_only_some_trials_have_are_drawn_for_those() -> None:
    plan = made_up.plan("teacher_scheme", 9, base={"epochs": 2}, early_stopping=False)
    turns = iter(range(9))

    def params(rng, m):
        i = next(turns)
        return {"scheme": "mate", "alpha": 1.0 + i} if i % 3 else {"scheme": "branchynet"}

    view = made_up.view(plan, params=params)
    figure = parameter_figures.parameter_figure(view.outcomes, view.reports, "alpha", log=True)
    assert sum(len(trace.x) for trace in figure.data if trace.hovertemplate) == 4 * 6


def test_the_kernel_mean_keeps_a_constant_and_lies_within_its_data() -> None:
    x = np.linspace(0, 1, 20)
    at = np.linspace(0, 1, 7)
    assert parameter_figures.kernel_mean(x, np.full(20, 0.7), at) == pytest.approx(np.full(7, 0.7))
    smooth = parameter_figures.kernel_mean(x, x**2, at)
    assert (np.diff(smooth) > 0).all()
    assert smooth.min() > 0
    assert smooth.max() < 1


def test_the_fixed_optimum_is_the_scheme_of_that_name() -> None:
    config = TrialConfig(dataset="cifar100", alpha=(1.0, 3.0, 10.0, 30.0), alpha_teacher=None)
    optimum = mix_figures.fixed_optimum(config)
    fixed = SCHEMES["mate_fixed"].mix
    assert callable(fixed)
    assert optimum == pytest.approx(np.array(fixed(config.alpha_teacher_per_exit())))
    assert mix_figures.distance(optimum.tolist(), optimum) == pytest.approx(np.zeros(4))
    uniform = mix_figures.fixed_optimum(config.with_(scheme="one"))
    assert uniform == pytest.approx(np.full((1, 4), 0.25))
    peers = mix_figures.fixed_optimum(config.with_(scheme="okddip"))
    assert peers == pytest.approx(np.array([*np.eye(4)[:3].tolist(), [1 / 3, 1 / 3, 1 / 3, 0]]))
    assert mix_figures.fixed_optimum(config.with_(scheme="mate_primary")) == pytest.approx(optimum)


def test_the_distance_is_a_share_from_0_to_1() -> None:
    optimum = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert mix_figures.distance([[0.0, 1.0], [0.75, 0.25]], optimum) == pytest.approx([1, 0.25])


def test_strengths_are_those_of_the_schemes() -> None:
    config = TrialConfig(dataset="cifar100", alpha=3.0)
    sums = {
        name: mix_figures.row_sums(config.with_(scheme=name))
        for name in ("byot", "eed", "dks", "mate")
    }
    assert sums["byot"] == [1, 1, 1, 0]
    assert sums["eed"] == [1, 1, 1, 1]
    assert sums["dks"] == [3, 3, 3, 3]
    assert sums["mate"] == [7, 7, 7, 7]
    assert mix_figures.row_sums(config.with_(kd_weight=0.5)) == [3.5] * 4


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(300, [1, 11, 51, 300]), (30, [1, 5, 30]), (1, [1]), (2, [1, 2])],
)
def test_the_mix_is_shown_at_the_epochs_of_fig_7(epochs: int, expected: list[int]) -> None:
    assert mix_figures.mix_epochs(epochs) == expected


def test_heat_maps_show_the_mix_and_its_optimum() -> None:
    config = made_up.plan(base={"epochs": 30}).base
    reports = list(made_up.trained(config, 0))
    figure = mix_figures.heat_figure(reports, config)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["epoch 1", "epoch 5", "epoch 30", "fixed optimum"]
    assert np.array(figure.data[2].z) == pytest.approx(np.array(reports[29].mix), abs=1e-4)
    assert np.array(figure.data[3].z) == pytest.approx(mix_figures.fixed_optimum(config), abs=1e-4)
    assert mix_figures.entropy([[1.0, 0.0], [0.5, 0.5]]) == pytest.approx([0, log(2)])
    lines = mix_figures.entropy_figure(reports, config)
    entropy = [trace for trace in lines.data if trace.name == "teacher 1"]
    assert entropy[0].y[-1] == pytest.approx(reports[-1].mix_entropy[0], abs=1e-4)
    levels = [shape.y0 for shape in lines.layout.shapes]
    assert levels[0] == pytest.approx(log(4))
    assert levels[1:] == pytest.approx(mix_figures.entropy(mix_figures.fixed_optimum(config)))


def test_a_saturated_mix_is_called_so() -> None:
    config = made_up.plan().base
    (report,) = list(made_up.trained(config.with_(epochs=1), 0))
    low = report.model_copy(update={"mix_entropy": (0.02,) * 4})
    assert "saturated" in mix_figures.mix_sentence([low], config)
    # at a large α the optimum itself is one exit a teacher: no sign of saturation
    assert "saturated" not in mix_figures.mix_sentence([low], config.with_(alpha=1e4))
    even = report.model_copy(update={"mix_entropy": (log(4),) * 4})
    text = mix_figures.mix_sentence([even], config)
    assert "100 % of the entropy" in text
    assert "saturated" not in text
    assert mix_figures.mix_sentence([], config) == "No mix has been reported yet."


def test_one_is_told_to_tend_to_eed() -> None:
    config = made_up.plan(base={"scheme": "one"}).base
    assert "which is EED" in mix_figures.optimum_sentence(config)
    assert "nothing to learn" in mix_figures.optimum_sentence(config.with_(scheme="okddip"))
    assert "own shares here: 0.57" in mix_figures.optimum_sentence(config.with_(scheme="mate"))


def test_importances_are_sorted_largest_on_top() -> None:
    figure = figures.importance_figure({"a": 0.2, "b": 0.7, "c": 0.1})
    assert list(figure.data[0].y) == ["c", "a", "b"]


@pytest.mark.parametrize("exits", [1, 2, 4, 7])
def test_each_exit_has_a_colour(exits: int) -> None:
    colours = exit_colours(exits)
    assert len(set(colours)) == exits
    assert exit_colours(4)[0] == "rgb(230,165,38)"


def test_the_frame_shows_what_matters() -> None:
    values = [0.05] + [0.70 + 0.001 * i for i in range(20)]
    low, high = frame(values)
    assert 60 < low < 70
    assert high > 71.9
    assert frame(values, important=[0.3])[0] < 30
    low, high = frame([0.5])
    assert low < 50 < high


def test_names_are_escaped_in_every_figure() -> None:
    plan = made_up.plan(trials=6, base={"epochs": 3}, grace=1)
    view = made_up.view(plan, params=lambda rng, m: {NASTY: NASTY, f"{NASTY}n": rng.uniform(1, 9)})
    for figure in (
        figures.front_figure(view.outcomes, NASTY),
        joint_figure([(plan, view.outcomes)]),
        figures.progress_figure(view.outcomes, plan),
        figures.epochs_figure(view.outcomes, view.rungs),
        learning_figures.learning_figure(view.outcomes, view.reports, view.rungs),
        parameter_figures.parameter_figure(view.outcomes, view.reports, NASTY, rung=1),
        parameter_figures.parameter_figure(view.outcomes, view.reports, f"{NASTY}n", True, 1),
        figures.importance_figure({NASTY: 0.5}),
    ):
        text = figure.to_json()
        assert "<img" not in text.replace("\\u003c", "<")
        assert "&lt;img" in text.replace("\\u0026", "&")


def test_plot_text_is_cut_before_it_is_escaped() -> None:
    assert plot_text("<" * 100) == "&lt;" * 57 + "..."
