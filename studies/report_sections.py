"""The sections of the report: each a pure function of a `View`, each with words to its figures."""

from __future__ import annotations

import shlex

from studies import verdict as v
from studies.conclusions import choice as say_choice
from studies.confirm_sections import add_finalists
from studies.export import CONFIRMED
from studies.figures import (
    epochs_figure,
    front_figure,
    front_frame,
    importance_figure,
    kind,
    progress_figure,
)
from studies.front import deployable
from studies.learning_figures import chosen_trials, exits_figure, learning_figure
from studies.page import Html, definitions, figure, paragraph, table, tag
from studies.parameter_figures import parameter_figure, parameter_names
from studies.plan import is_front, ranked_by
from studies.stopping import stopping_text
from studies.teacher_sections import strength
from studies.view import View
from trainers.catalog import is_path, last_part
from trainers.schemes import scheme_named

MOST_BEST, MOST_STOPPED, MOST_COLUMNS = 10, 60, 6


def front(view: View) -> list[Html]:
    """The front, and how to read it."""
    if not v.finished(view.outcomes):
        return [paragraph("No trial has run its full length yet, so there is no front.")]
    caption = (
        "Each point is one exit of one full-length trial; up and left is better. The green lines "
        "are networks that can be deployed: no other network is as good at every exit and better "
        "at one. The dotted envelope joins the best exits of all trials and may need a different "
        "network for each point. Faint points are beaten by others. Stopped trials are not here: "
        "their accuracy is of an earlier epoch."
    )
    low, _ = front_frame(view.drawn)
    drawn = [point for points in v.curves(view.drawn).values() for point in points]
    below = sum(100 * point.accuracy < low for point in drawn)
    if below:
        caption += f" Points below the frame: {below}; a double click shows all."
    plot = front_figure(view.drawn)
    if view.confirmation is not None and view.confirmation.judged is not None:
        add_finalists(plot, view.confirmation)
        caption += (
            " The bars are the confirmed finalists: means over fresh seeds and hold-outs with "
            "their 95 % intervals; all other points are of one run each."
        )
    return [figure(plot, caption, wide=True)]


def choice(view: View) -> list[Html]:
    """Which one network to take, and its learning curve."""
    parts = [paragraph(v.recommendation(view.outcomes, view.plan), kind="lead")]
    if view.confirmation is not None and (text := say_choice(view.confirmation)):
        before = paragraph("Before it was confirmed: ", v.recommendation(view.outcomes, view.plan))
        parts = [paragraph(text, kind="lead"), before]
    taken = v.recommended(view.outcomes)
    if taken is not None:
        caption = (
            f"Trial {taken.number}: accuracy of each exit on validation over its epochs. In the "
            "paper's Fig. 3 the deepest exit is the worst early on; where curves cross late, "
            "stopping early would have judged wrongly."
        )
        parts.append(figure(exits_figure(view.reports.get(taken.number, ())), caption))
    return parts


def best(view: View) -> list[Html]:
    """The table of the best, and the commands that go on from it."""
    ranks = {o.number: i + 1 for i, o in enumerate(v.recommended_first(view.outcomes))}
    order = v.recommended_first(view.outcomes)[:MOST_BEST]
    if not order:
        return [paragraph("No trial has run its full length yet.")]
    default, taken = v.reference(view.outcomes), v.recommended(view.outcomes)
    whole = set(deployable(v.curves(view.outcomes)))
    names = parameter_names(order)
    spread = len(names) <= MOST_COLUMNS
    exits = max(len(o.report.exits) for o in order if o.report is not None)
    objective = view.plan.objective
    unit = "hundredths" if ranked_by(objective) == "hypervolume" else "points"
    head = ["rank", "trial", *(names if spread else ["setting"]), v.objective_name(objective)]
    head += [
        f"over {_default(view)}, {unit}",
        *(f"exit\u00a0{i + 1}" for i in range(exits)),
        "deployable",
    ]
    shown = list(order)
    if default is not None and ranks[default.number] > len(order):
        shown.append(default)
    rows = []
    for o in shown:
        given = [v.number_text(o.params[name]) if name in o.params else "" for name in names]
        value = o.value or 0.0
        over = "" if default is None or default.value is None else _gain(value - default.value)
        if default is not None and o.number == default.number:
            over = "itself"
        accuracies = o.report.accuracies if o.report is not None else ()
        rows.append(
            [
                str(ranks[o.number]),
                str(o.number),
                *(given if spread else [v.setting(o.params)]),
                v.value_text(objective, value),
                over,
                *(f"{100 * accuracy:.2f}" for accuracy in accuracies),
                *([""] * (exits - len(accuracies))),
                "yes" if o.number in whole else "",
            ]
        )
    marked = [i for i, o in enumerate(shown) if taken is not None and o.number == taken.number]
    name, folder = shlex.quote(view.plan.study), view.folder
    confirmed = view.confirmation is not None and view.confirmation.judged is not None
    which, what, found, choice = "the best", "--top 3", "1.yaml", "the network to take"
    if confirmed:
        which, what, found = "what was confirmed", "--confirmed", CONFIRMED
        choice = "what the search alone would take"
    file = shlex.quote(str(folder / "best" / found))
    return [
        table(head, rows, marked),
        paragraph(
            "In the order of the export: networks that no other beats as a whole (deployable) "
            f"come first, then the rest, each by {v.objective_name(objective)}. Accuracies in % on "
            "the validation split; one run each, so the order of close ones means little. The "
            f"marked row is {choice}.",
            kind="note",
        ),
        paragraph(f"Export {which} as complete configurations and train them at full length:"),
        tag(
            "pre",
            tag("code", f"automate export {name} {what}\nautomate train {file} --seeds 3"),
        ),
        paragraph(
            "Training on fresh seeds is what turns n = 1 into a mean with a spread; the test split "
            "is read there, once, and never by the search.",
            kind="note",
        ),
    ]


def _default(view: View) -> str:
    default = v.reference(view.outcomes)
    return v.reference_name(default) if default is not None else "the default"


def _gain(gain: float) -> str:
    return v.signed(100 * gain)


def progress(view: View) -> list[Html]:
    """The search itself, and early stopping."""
    parts = [
        figure(
            progress_figure(view.drawn, view.plan),
            f"The {v.objective_name(view.plan.objective)} of each full-length trial in the order "
            "of the search. A best line that still climbs at the end asks for more trials."
            f"{_apart(view)}",
        )
    ]
    spent = sum(outcome.epochs for outcome in view.outcomes)
    if view.plan.early_stopping:
        text = f"{spent} epochs were trained and {view.saved} saved by early stopping"
        share = view.saved / (spent + view.saved) if spent + view.saved else 0
        text += f" ({100 * share:.0f} % of the whole)." if view.saved else "."
        if not view.rungs:
            text += " No rung lies before the last epoch, so no trial could be stopped."
    else:
        text = f"{spent} epochs were trained; early stopping was off."
    caption = "Epochs that each trial took."
    if view.rungs:
        near = ""
        if view.plan.tolerance:
            near = f", or less than {v.tolerance_text(view.plan)} below"
        caption += (
            f" Dotted: the rungs, where a trial is stopped unless {_passes(view)}{near}. The "
            "starting points are never stopped."
        )
    cost = stopping_text(view.outcomes)
    parts += [
        tag("h3", "What early stopping stopped and saved"),
        paragraph(text),
        *([paragraph(cost)] if cost else []),
        figure(epochs_figure(view.drawn, view.rungs), caption),
    ]
    rows = []
    for rung in view.rungs:
        there = [o for o in view.outcomes if o.state == "PRUNED" and (o.run_on or o.epochs) == rung]
        there = [o for o in there if not o.diverged]
        reached = sum((outcome.run_on or outcome.epochs) >= rung for outcome in view.outcomes)
        kept = sum(max(view.plan.base.epochs - o.epochs, 0) for o in there)
        rows.append([f"epoch {rung}", str(reached), str(len(there)), str(kept)])
    if rows:
        parts.append(
            table(["rung", "trials that reached it", "stopped there", "epochs saved"], rows)
        )
    return parts + _ended(view)


def _apart(view: View) -> str:
    """That a search for the front looked at more than this one number."""
    if not is_front(view.plan.objective):
        return ""
    return " The search itself compared each exit by itself; this number only orders its trials."


def _passes(view: View) -> str:
    best = f"it is among the best 1 in {view.plan.eta} seen there"
    if not is_front(view.plan.objective):
        return best
    return f"no other trial beats it as a whole there, or {best} at some exit"


def _ended(view: View) -> list[Html]:
    """The trials that were stopped, diverged or failed, in a table that folds."""
    ended = [o for o in view.outcomes if o.state in ("PRUNED", "FAIL")]
    if not ended:
        return []
    rows = []
    for o in ended[:MOST_STOPPED]:
        shown = o.report.accuracies if o.report is not None else ()
        rows.append(
            [
                str(o.number),
                kind(o),
                str(o.epochs),
                v.setting(o.params),
                ", ".join(f"{100 * accuracy:.2f}" for accuracy in shown),
                o.reason or "",
            ]
        )
    head = ["trial", "what became of it", "epochs", "setting", "accuracies there (%)", "reason"]
    title = f"{v.count_text(len(ended), 'trial')} that did not run to full length"
    if len(ended) > MOST_STOPPED:
        title += f" (the first {MOST_STOPPED})"
    return [tag("details", tag("summary", title), table(head, rows))]


def learning(view: View) -> list[Html]:
    """Each exit over epochs, all trials."""
    shown, begun = len(chosen_trials(view.drawn)), sum(o.epochs > 0 for o in view.outcomes)
    caption = (
        f"Thick: the network to take; dashed: {_default(view)}; crosses: where trials were "
        "stopped. Strong distillation starts slowly, so curves may cross late."
    )
    if shown < begun:
        caption += f" {shown} of {begun} trials are drawn: the best ones and an even choice."
    caption += _averaged(view)
    return [figure(learning_figure(view.drawn, view.reports, view.rungs), caption, wide=True)]


def _averaged(view: View) -> str:
    """Whose accuracies these are, where that is not the plain network."""
    if not view.plan.base.ema:
        return ""
    ema = f"ema {view.plan.base.ema:g}"
    return f" Accuracies are of a moving average of the weights ({ema}), which is what is scored."


def parameters(view: View) -> list[Html]:
    """Each parameter against accuracy, their importance, and what α is in part: strength."""
    names = parameter_names(view.outcomes)
    if not names:
        return [paragraph("This study's space has no parameter.")]
    lower = (
        "The upper row has the trials of full length. The lower row has all trials at the first "
        "rung: they compare with each other, but early, and strong distillation starts slowly. "
    )
    parts = [
        paragraph(
            "Each parameter against the accuracy of each exit, as in the paper's Figs. 8 to 10. "
            f"The dashed line is {_default(view)}, the ring the network to take, the curve a "
            "running mean (from 10 trials on); the other parameters vary too, so read trends, not "
            f"points. {lower if view.rungs else ''}In the paper accuracy falls where α is too "
            "small or far too large, and the best α differs by exit."
            f"{_averaged(view)}"
        )
    ]
    for name in names:
        caption = f"{name} against accuracy, a panel per exit, each with a range of its own."
        rung = next(iter(view.rungs), None)
        plot = parameter_figure(view.drawn, view.reports, name, name in view.log, rung)
        parts.append(figure(plot, caption, wide=True))
    count = len(v.finished(view.outcomes))
    shares: Html = paragraph("There are too few full-length trials or parameters to tell.")
    if view.importances:
        shares = figure(
            importance_figure(view.importances),
            f"Importance for the {v.objective_name(view.plan.objective)} over {count} full-length "
            "trials (fANOVA). With few "
            "trials, or where only good regions were visited, it says little.",
        )
    return [*parts, tag("h3", "Which parameters matter"), shares, *strength(view)]


def facts(view: View) -> list[Html]:
    """The plan, the states, the base configuration, and what it was made with."""
    plan = view.plan.model_dump(exclude={"base"})
    base = view.plan.base.model_dump()
    every = [report for reports in view.reports.values() for report in reports]
    seconds = sum(report.seconds for report in every)
    read, spent = len(every), sum(o.epochs for o in view.outcomes)
    about = "" if read >= spent else f" (estimated from {read:,} of {spent:,} epochs)"
    seconds *= spent / read if about and read else 1
    ways = sorted({report.path for report in every if report.path})
    held = max((report.memory for report in every if report.memory is not None), default=None)
    named = view.plan.base.scheme
    scheme = [("own scheme", f"{last_part(named)}: {scheme_named(named).title}")]
    own: list[tuple[object, object]] = [
        *(scheme if is_path(named) else []),
        ("states", v.states_text(view.outcomes)),
        ("training time of all epochs", f"{seconds:.0f} s{about}"),
        *([("way through a training step", "; ".join(ways))] if ways else []),
        *([("most memory that a trial's process held", f"{held / 1e6:,.0f} MB")] if held else []),
        *((name, _shown(value)) for name, value in plan.items()),
        *((f"{name}, now", number) for name, number in view.versions.items()),
    ]
    fixed = definitions([(name, _shown(value)) for name, value in base.items()])
    title = "What every trial has in common (a trial's own parameters replace these)"
    return [definitions(own), tag("details", tag("summary", title), fixed)]


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
