"""A confirmation in words and tables: who raced, how far, and the verdict."""

from collections.abc import Sequence

from automate.plan_text import machine_text
from automate.printing import say, say_table
from studies import verdict as v
from studies.conclusions import (
    NOTE,
    cell,
    ordered,
    p_cell,
    points,
    readings,
    said_cell,
    sentences,
    signed,
    unit,
    value_cell,
)
from studies.confirmation import Confirmation
from studies.plan import StudyPlan


def race_pairs(plan: StudyPlan, storage: str, read: Sequence[int] = ()) -> dict[str, object]:
    """A plan in words, before the race begins; its test images were read after so many seeds."""
    seeds = len(plan.race or ())
    after = read if not read or seeds in read else (*read, seeds)
    rows, race, base = plan.finalists or (), plan.race or (), plan.base
    last = base.seed + len(race) - 1
    return {
        "study": plan.study,
        "stored in": storage,
        "confirms": plan.confirms,
        "candidates": ", ".join(row.name for row in rows[1:]),
        "compared with": rows[0].name,
        "seeds": f"{len(race)}, from {base.seed} to {last}, each with a hold-out of its own; none "
        "was used by the search",
        "race": f"{_round_sizes(race)}, and {rows[0].name}",
        "training": f"{v.count_text(base.epochs, 'epoch')}, nothing is stopped early",
        "test images": readings(after),
        "runs on": machine_text(plan),
    }


def _round_sizes(race: Sequence[int]) -> str:
    """`8 then 4 then 1 candidate a round`, or `1 candidate in each of 2 rounds`."""
    if len(race) > 1 and len(set(race)) == 1:
        return f"{v.count_text(race[0], 'candidate')} in each of {len(race)} rounds"
    last = [v.count_text(number, "candidate") for number in race[-1:]]
    return f"{' then '.join([*map(str, race[:-1]), *last])} a round"


def say_confirmation(c: Confirmation | None) -> None:
    """The table and the sentences; nothing without a confirmation."""
    if c is None:
        return
    if c.judged is not None:
        _say_table(c)
    for text in sentences(c):
        say(text)
    if c.judged is not None:
        say(NOTE)


def _say_table(c: Confirmation) -> None:
    judged = c.judged
    assert judged is not None
    exits = c.exits.shape[2]
    head = ["config", "runs", f"{v.objective_name(c.plan.objective)}{' (%)' if unit(c) else ''}"]
    head += [f"exit {k + 1} (%)" for k in range(exits)]
    head += [f"difference{points(c)}", "p", f"search said{' (%)' if unit(c) else ''}"]
    rows = []
    for row in ordered(c, judged):
        found = judged.difference(row)
        rows.append(
            [
                c.rows[row].name + (" *" if row == judged.chosen else ""),
                str(c.rounds[row]),
                value_cell(c, judged.means[row]),
                *(cell(mean) for mean in c.points.means[row]),
                "" if found is None else signed(c, found.difference),
                p_cell(found),
                said_cell(c, row),
            ]
        )
    title = (
        f"Confirmed on fresh seeds and hold-outs (mean ± 95 % interval; difference to "
        f"{c.rows[0].name}; * is the one to take)"
    )
    say_table(head, rows, title=title)
