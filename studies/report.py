"""`automate report`: one self-contained HTML file about one study or several.

The storage is read once (`view.look`); all that follows is a pure function of what was read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from studies import report_sections as sections
from studies import teacher_sections
from studies import verdict as v
from studies.experiment_sections import experiment_header, experiment_sections
from studies.figures import joint_figure
from studies.page import Html, figure, page, section, table, tag
from studies.view import View, look
from trainers.catalog import InputError

if TYPE_CHECKING:
    from studies.record import StudyRecord

PARTS = (
    ("front", "Front", sections.front),
    ("choice", "Which network to take", sections.choice),
    ("best", "The best", sections.best),
    ("search", "The search", sections.progress),
    ("learning", "Learning curves", sections.learning),
    ("parameters", "Parameters", sections.parameters),
    ("mix", "Who composes the teachers", teacher_sections.mix),
    ("facts", "Study facts", sections.facts),
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
    if path.is_dir():
        raise InputError(f"the report needs a file to be written to, {str(path)!r} is a folder")
    return write_page(report_page([look(record) for record in records]), path)


def write_page(text: str, path: Path) -> Path:
    """Writes a document in one go and returns its path. Raises InputError if that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=path.name, suffix=".part", delete=False
        ) as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise InputError(f"the report cannot be written to {str(path)!r}: {error}") from None
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
        InputError: An experiment of the paper together with something else.
    """
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
        made = [(anchor, name, part(view)) for anchor, name, part in PARTS]
        made = [(anchor, name, inside) for anchor, name, inside in made if inside]
        links = [(anchor, name) for anchor, name, _ in made]
        bodies = [section(anchor, name, *inside) for anchor, name, inside in made]
        return page(f"{view.plan.study} · automate", _header(view), links, *bodies, footer())
    links = [("all", "All studies")]
    bodies = [_together(views)]
    for i, view in enumerate(views):
        made = [(f"{anchor}-{i}", name, part(view)) for anchor, name, part in PARTS]
        inner = [section(anchor, name, *inside) for anchor, name, inside in made if inside]
        anchor = f"study-{i}"
        links.append((anchor, view.plan.study))
        bodies.append(tag("section", _header(view, "h2"), *inner, id=anchor, class_="study"))
    title = f"{len(views)} studies"
    header = tag("header", tag("p", "automate", class_="kicker"), tag("h1", title))
    return page(f"{title} · automate", header, links, *bodies, footer())


def _header(view: View, level: str = "h1") -> Html:
    plan, base = view.plan, view.plan.base
    taken = v.recommended(view.outcomes)
    done = sum(outcome.state in ("COMPLETE", "PRUNED", "FAIL") for outcome in view.outcomes)
    spent = sum(outcome.epochs for outcome in view.outcomes)
    tiles = [
        ("trials done", f"{done} of {plan.trials}"),
        ("ran their full length", str(len(v.finished(view.outcomes)))),
        ("epochs trained", f"{spent:,}"),
        ("epochs saved", f"{view.saved:,}" if plan.early_stopping else "none"),
    ]
    if taken is not None and taken.value is not None:
        name = v.objective_name(plan.objective)
        tiles.insert(0, (f"{name}, best", v.value_text(plan.objective, taken.value)))
    kicker = f"search over {plan.space} · {base.dataset} · {base.backbone} · {base.epochs} epochs"
    return tag(
        "header",
        tag("p", kicker, class_="kicker"),
        tag(level, plan.study),
        tag("p", v.verdict(view.outcomes, plan), class_="verdict"),
        tag("dl", *(tag("div", tag("dt", a), tag("dd", b)) for a, b in tiles), class_="tiles"),
    )


def _together(views: Sequence[View]) -> Html:
    """The studies beside each other, with a warning where they do not compare."""
    rows = []
    for view in views:
        taken, default = v.recommended(view.outcomes), v.reference(view.outcomes)
        value = v.value_text(view.plan.objective, taken.value or 0) if taken else ""
        base = v.value_text(view.plan.objective, default.value or 0) if default else ""
        objective = v.objective_name(view.plan.objective)
        states = v.states_text(view.outcomes)
        rows.append([view.plan.study, view.plan.space, objective, value, base, tag("span", states)])
    head = ["study", "space", "objective", "network to take", "default", "trials"]
    fields = ("dataset", "limit_train", "validation", "split_seed", "backbone", "width", "epochs")
    differ = [name for name in fields if len({str(getattr(w.plan.base, name)) for w in views}) > 1]
    parts: list[object] = [table(head, rows)]
    if differ:
        text = f"These studies differ in {', '.join(differ)}: their accuracies do not compare."
        parts.append(tag("p", text))
    plot = joint_figure([(view.plan, view.outcomes) for view in views])
    caption = "The network to take of each study: one run each, n = 1, unconfirmed."
    return section("all", "All studies", *parts, figure(plot, caption))


def footer() -> Html:
    """Who wrote the page, and when."""
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return tag("footer", f"Written by automate, {now}. This file works offline.")
