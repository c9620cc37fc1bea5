"""The report of an experiment as a whole: what has to be known, sections, sentences."""

from __future__ import annotations

from collections.abc import Sequence

from studies import verdict as v
from studies.experiment_sections import SHOWS
from studies.experiments import EXPERIMENTS, settled
from studies.measured import OPEN, Measured, measure, shrunk
from studies.page import Html, paragraph, section, table, tag
from studies.paper import paper
from studies.report_sections import facts
from studies.statements import shown_by, statements_of
from studies.view import View


def notes(measured: Sequence[Measured]) -> list[str]:
    """What has to be known before the figures are read: one sentence each."""
    found = []
    for one in measured:
        plan, base = one.plan, one.plan.base
        named = f"{one.title}: " if len(measured) > 1 else ""
        smaller = shrunk(plan)
        if smaller:
            found.append(
                f"{named}Not trained as the paper's: {'; '.join(smaller)}. So no difference to the "
                "paper is claimed; its figures stand beside ours for reference only."
            )
        if not one.known:
            found.append(f"{named}The paper has no figures of this network on this data set here.")
        seeds = max(map(len, one.runs.values()), default=0)
        if seeds < paper().recipe["seeds"]:
            what = f"n = {seeds}" if seeds > 1 else v.UNCONFIRMED
            found.append(f"{named}The paper has 3 runs of each, ours so far {seeds}: {what}.")
        if one.left:
            found.append(f"{named}{one.left} of {plan.trials} runs have not ended yet.")
        for outcome in one.lost:
            what = f"{outcome.params.get('arm')}, seed {outcome.params.get('seed')}"
            found.append(f"{named}Trial {outcome.number} ({what}) is missing: {outcome.reason}.")
        if plan.rule == "paper":
            found.append(
                f"{named}Selected on the test set: all exits at the epoch of the best last-exit "
                "test accuracy, the paper's rule (Section 4.4.1). Such figures are too good and "
                "only there to stand beside the paper's."
            )
        else:
            read = (
                "The test images were scored after every epoch, as the paper's were; nothing is "
                "selected by them, and what is one figure is of the last epoch"
                if plan.each_epoch
                else "The test images were read once, after the last epoch"
            )
            found.append(
                f"{named}{read}. The paper's figures are of the epoch with the best last-exit test "
                "accuracy, which favours them."
            )
        if plan.purpose == "final-holdout" and base.dataset != "digits":
            found.append(
                f"{named}{100 * base.validation:g} % of the training images were held out for the "
                "thresholds; the paper does not say what it calibrated on."
            )
        found.append(f"{named}The paper leaves open: {_open(one)}.")
    return list(dict.fromkeys(found))


def _open(one: Measured) -> str:
    base = one.plan.base
    given = {name: getattr(base, name) for name in OPEN}
    return ", ".join(f"{name} ({'none' if x is None else x})" for name, x in given.items())


def sentences(measured: Sequence[Measured]) -> list[Html]:
    """The paper's sentences beside what ours shows."""
    names = [name for name in EXPERIMENTS if settled(name) == measured[0].name]
    rows = [
        [
            f"\u201c{s.text}\u201d",
            f"Section {s.section}",
            shown_by(s.check, measured) or "nothing yet",
        ]
        for name in names
        for s in statements_of(name)
    ]
    if not rows:
        return []
    means = (
        "Means over seeds are compared, whatever their spread; with few seeds that proves little."
    )
    return [table(["the paper says", "where", "ours shows"], rows), paragraph(means, kind="note")]


def experiment_header(views: Sequence[View]) -> Html:
    """Name, place in the paper, and how far it is."""
    measured = [measure(view) for view in views]
    row, name = measured[0].experiment, measured[0].name
    others = [f"{n}, {EXPERIMENTS[n].place}" for n in EXPERIMENTS if EXPERIMENTS[n].runs_as == name]
    spent = sum(o.epochs for view in views for o in view.outcomes)
    done = sum(len(runs) for one in measured for runs in one.runs.values())
    tiles = [
        ("runs of full length", f"{done} of {sum(one.plan.trials for one in measured)}"),
        ("epochs trained", f"{spent:,}"),
        ("failed or diverged", str(sum(len(one.lost) for one in measured))),
    ]
    titles = ", ".join(one.title for one in measured)
    return tag(
        "header",
        tag("p", " · ".join(["reproduction", row.place, *others]), class_="kicker"),
        tag("h1", f"{name}: {row.title}"),
        tag("p", titles, class_="verdict"),
        tag("dl", *(tag("div", tag("dt", a), tag("dd", b)) for a, b in tiles), class_="tiles"),
    )


def experiment_sections(views: Sequence[View]) -> list[tuple[str, str, Html]]:
    """(anchor, heading, section) of a report over the studies of one experiment."""
    measured = [measure(view) for view in views]
    made: list[tuple[str, str, list[Html]]] = [
        ("run", "What was run", [paragraph(text) for text in notes(measured)])
    ]
    for anchor in measured[0].experiment.shows:
        heading, make = SHOWS[anchor]
        made.append((anchor, heading, make(measured)))
    made.append(("said", "What the paper says of it", sentences(measured)))
    for i, view in enumerate(views):
        heading = "Study facts" if len(views) == 1 else f"Facts of {view.plan.study}"
        made.append((f"facts-{i}", heading, facts(view)))
    return [(a, name, section(a, name, *parts)) for a, name, parts in made if parts]
