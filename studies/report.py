"""`automate report`: one self-contained HTML file about one study or several.

The storage is read once (`view.look`); all that follows is a pure function of what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies import report_sections as sections
from studies import teacher_sections
from studies import verdict as v
from studies.calibration_sections import calibration
from studies.conclusions import headline, plus_minus
from studies.confirm_sections import confirmation_parts
from studies.experiment_report import experiment_header, experiment_sections
from studies.joint_figures import joint_deployable, joint_envelope, joint_figure
from studies.page import Html, figure, footer, page, paragraph, section, table, tag, write
from studies.states import ENDED
from studies.view import View, look
from trainers.catalog import InputError

if TYPE_CHECKING:
    from studies.record import StudyRecord

PARTS = (
    ("confirmed", "Confirmed", lambda view: confirmation_parts(view.confirmation)),
    ("front", "Front", sections.front),
    ("choice", "Which network to take", sections.choice),
    ("best", "The best", sections.best),
    ("search", "The search", sections.progress),
    ("learning", "Learning curves", sections.learning),
    ("calibration", "When stopping is right", calibration),
    ("parameters", "Parameters", sections.parameters),
    ("mix", "Who composes the teachers", teacher_sections.mix),
    ("facts", "Study facts", sections.facts),
)

# A calibration runs configs again to learn about stopping: it has no best one and none to take.
CALIBRATION_PARTS = tuple(
    part
    for part in sorted(PARTS, key=lambda part: part[0] != "calibration")
    if part[0] not in ("front", "choice", "best", "search")
)


def write_report(records: Sequence[StudyRecord], path: str | Path) -> Path:
    """Writes the report of these studies; an older one at that path is replaced at once.

    Args:
        records: At least one study.
        path: The HTML file; its folder is made if there is none.

    Returns:
        The path.

    Raises:
        InputError: No study, or a path that cannot be written.
    """
    path = Path(path)
    if not records:
        raise InputError("a report needs at least one study")
    write(path, report_page([look(record) for record in records]))
    return path


def experiment_page(views: Sequence[View]) -> str:
    """The document about an experiment of the paper, over one study or several."""
    made = experiment_sections(views)
    links = [(anchor, name) for anchor, name, _ in made]
    bodies = [body for *_, body in made]
    title = f"{views[0].plan.experiment} · automate"
    return page(title, experiment_header(views), links, *bodies, footer())


def report_page(views: Sequence[View]) -> str:
    """The document, from what was read.

    Raises:
        InputError: An experiment of the paper together with something else; a confirmation, which
            is shown with its search.
    """
    for view in views:
        if view.plan.confirms:
            raise InputError(
                f"study {view.plan.study} confirms {view.plan.confirms}: its verdict is in the "
                f"report of that, `automate report {view.plan.confirms}`"
            )
    names = {view.plan.experiment for view in views}
    if len(names) > 1:
        raise InputError(
            "an experiment of the paper is scored on the test split and shares no report with "
            "other studies: give the studies of one experiment"
        )
    if names != {None}:
        return experiment_page(views)
    if len(views) == 1:
        view = views[0]
        made = [(anchor, name, part(view)) for anchor, name, part in _parts(view)]
        made = [(anchor, name, inside) for anchor, name, inside in made if inside]
        links = [(anchor, name) for anchor, name, _ in made]
        bodies = [section(anchor, name, *inside) for anchor, name, inside in made]
        return page(f"{view.plan.study} · automate", _header(view), links, *bodies, footer())
    links = [("all", "All studies")]
    bodies = [_together(views)]
    for i, view in enumerate(views):
        made = [(f"{anchor}-{i}", name, part(view)) for anchor, name, part in _parts(view)]
        inner = [section(anchor, name, *inside) for anchor, name, inside in made if inside]
        anchor = f"study-{i}"
        links.append((anchor, view.plan.study))
        bodies.append(tag("section", _header(view, "h2"), *inner, id=anchor, class_="study"))
    title = f"{len(views)} studies"
    header = tag("header", tag("p", "automate", class_="kicker"), tag("h1", title))
    return page(f"{title} · automate", header, links, *bodies, footer())


def _parts(view: View) -> Sequence[tuple[str, str, Callable[[View], list[Html]]]]:
    return CALIBRATION_PARTS if view.plan.calibrates else PARTS


def _header(view: View, level: str = "h1") -> Html:
    plan, base = view.plan, view.plan.base
    taken = v.recommended(view.outcomes)
    done = sum(outcome.state in ENDED for outcome in view.outcomes)
    spent = sum(outcome.epochs for outcome in view.outcomes)
    tiles = [
        ("runs done" if plan.calibrates else "trials done", f"{done} of {plan.trials}"),
        ("ran their full length", str(len(v.finished(view.outcomes)))),
        ("epochs trained", f"{spent:,}"),
        ("epochs saved", f"{view.saved:,}" if plan.early_stopping else "none"),
    ]
    if taken is not None and taken.value is not None and not plan.calibrates:
        name = v.objective_name(plan.objective)
        made = view.confirmation
        label = f"{name}, best" if made is None else f"{name}, best of one run"
        tiles.insert(0, (label, v.value_text(plan.objective, taken.value)))
        chosen = _confirmed(view)
        if chosen is not None:
            tiles.insert(0, (f"{name}, confirmed: {chosen[0]}", chosen[1]))
    kind = f"calibration of {plan.calibrates}" if plan.calibrates else f"search over {plan.space}"
    kicker = f"{kind} · {base.dataset} · {base.backbone} · {v.count_text(base.epochs, 'epoch')}"
    return tag(
        "header",
        tag("p", kicker, class_="kicker"),
        tag(level, plan.study),
        tag("p", _verdict(view), class_="verdict"),
        *([] if len(view.drawn) == len(view.outcomes) else [paragraph(_drawn_text(view))]),
        tag("dl", *(tag("div", tag("dt", a), tag("dd", b)) for a, b in tiles), class_="tiles"),
    )


def _confirmed(view: View) -> tuple[str, str] | None:
    """What a confirmation that is over says to take, and its mean."""
    made = view.confirmation
    if made is None or made.judged is None:
        return None
    row = made.judged.chosen
    return made.rows[row].name, plus_minus(made, made.judged.means[row])


def _drawn_text(view: View) -> str:
    return (
        f"The figures draw {len(view.drawn):,} of the {len(view.outcomes):,} trials: those that "
        "stand out and an even choice of the others. All numbers count every trial."
    )


def _verdict(view: View) -> str:
    """Of the confirmation, where there is one that is over; else of the search."""
    confirmed = view.confirmation
    if confirmed is not None and confirmed.judged is not None:
        return headline(confirmed)
    if view.plan.calibrates:
        return (
            f"{view.plan.configs} configs of {view.plan.calibrates}, each with several seeds, run "
            "in full: how much of their early order holds at the end, and what stopping some of "
            "them would lose. It looks for no best config."
        )
    return v.verdict(view.outcomes, view.plan)


# Studies that differ in one of these have accuracies that do not compare; in the network they may.
SAME = ("dataset", "limit_train", "validation", "split_seed", "epochs")


def _together(views: Sequence[View]) -> Html:
    """The studies beside each other, on one front where their accuracies compare."""
    rows = []
    anything_confirmed = any(map(_confirmed, views))
    for view in views:
        found = () if view.plan.calibrates else view.outcomes  # whose best run is luck by design
        taken, default = v.recommended(found), v.reference(found)
        value = v.value_text(view.plan.objective, taken.value or 0) if taken else ""
        base = v.value_text(view.plan.objective, default.value or 0) if default else ""
        objective = v.objective_name(view.plan.objective)
        states = v.states_text(view.outcomes)
        network = v.network_text(taken.config if taken and taken.config else view.plan.base)
        name = view.plan.study
        row = [name, view.plan.space, network, objective, value, base, tag("span", states)]
        if anything_confirmed:
            row.insert(-1, ": ".join(_confirmed(view) or ()))
        rows.append(row)
    head = ["study", "space", "network", "objective", "network to take", "default", "trials"]
    if anything_confirmed:
        head[4:6] = ["best of one run", "default, one run", "confirmed"]
    parts: list[object] = [table(head, rows)]
    views = [view for view in views if not view.plan.calibrates]
    if len(views) < 2:
        return section("all", "All studies", *parts)
    differ = [name for name in SAME if len({str(getattr(w.plan.base, name)) for w in views}) > 1]
    caption = "The network to take of each study: one run each, n = 1, unconfirmed."
    if differ:
        text = (
            f"These studies differ in {', '.join(differ)}: their accuracies do not compare, so "
            "there is no front over all of them."
        )
        parts.append(tag("p", text))
    else:
        parts.append(tag("p", _one_front(views)))
        caption += (
            " The dotted envelope joins the best exits of all studies and may need a different "
            "network for each point; what can be deployed is one network, a whole line."
        )
    plot = joint_figure([(view.plan, view.outcomes) for view in views], together=not differ)
    return section("all", "All studies", *parts, figure(plot, caption))


def _one_front(views: Sequence[View]) -> str:
    """Where the envelope of all studies comes from, and whose network to take stays unbeaten."""
    best = joint_envelope([view.outcomes for view in views])
    if not best:
        return "No study has a full-length trial yet, so there is no front over them."
    whole = joint_deployable([view.outcomes for view in views])
    fine: list[str] = []
    beaten: list[str] = []
    for place, view in enumerate(views):
        taken = v.recommended(view.outcomes)
        if taken is not None:
            (fine if (place, taken.number) in whole else beaten).append(view.plan.study)
    count = sum(len(v.finished(view.outcomes)) for view in views)
    shares = ", ".join(
        f"{n} of {view.plan.study}"
        for place, view in enumerate(views)
        if (n := sum(where == place for where, _ in best))
    )
    text = (
        f"All {len(views)} studies share one front of FLOPs and accuracy. What is possible: the "
        f"envelope over {v.count_text(count, 'full-length trial')} has "
        f"{v.count_text(len(best), 'exit')} ({shares}), which may "
        "belong to different networks. What can be deployed is one network as a whole: "
    )
    if fine:
        text += f"no network of any study beats the one to take of {', '.join(fine)}"
        text += f"; that of {', '.join(beaten)} is beaten" if beaten else ""
    else:
        text += f"the one to take of {', '.join(beaten)} is beaten by another one"
    return text + f". One run each: {v.UNCONFIRMED}."
