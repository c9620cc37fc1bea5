"""`automate replay`: policies of searching, compared on recorded learning curves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from automate import flags
from automate.printing import duration, say, say_json, say_table
from studies.plan import SAMPLERS
from trainers.catalog import unknown

if TYPE_CHECKING:
    from studies.curve_tables import CurveTable
    from studies.policies import Comparison, Row


def replay(
    table: str,
    /,
    *,
    trials: flags.WholeOrNone = None,
    sampler: Annotated[str, Parameter(help=f"One of {', '.join(SAMPLERS)}.")] = "tpe",
    early_stopping: bool = True,
    eta: flags.Whole = 2,
    grace: flags.WholeOrNone = None,
    rungs: flags.WholesOrNone = None,
    tolerance: float = 0.0,
    objective: str = "anytime",
    budgets: flags.Numbers = None,
    workers: Annotated[
        flags.Wholes,
        Parameter(
            help="Virtual workers, a row each, e.g. 1,8,64,1000 [default: 1].", show_default=False
        ),
    ] = (1,),
    repetitions: flags.Whole = 100,
    search_seed: flags.Whole = 0,
    save: Path | None = None,
    storage: flags.Storage = None,
    runs: flags.Runs = Path("runs"),
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Compare policies of searching on recorded curves.

    Nothing is trained: many searches run in virtual time against a table of learning curves,
    through the same record, rungs and samplers as `automate search`. Printed are the regret (how
    far what a search picks is, in truth, below the table's best) and the epochs, beside the same
    sampler without stopping and random search at full length, both with the first number of
    workers. A sampler's proposal becomes the nearest config of the table that its search has not
    tried.

    Args:
        table: A table that comes with automate (digits, vgg16-cifar100), a .npz file, or a study
            whose trials all ran to their end (search with --no-early-stopping).
        trials: Of each search [default: the data set's, at most half of the table's configs].
        early_stopping: Stop trials at rungs.
        eta: A rung keeps 1 in eta.
        grace: Epochs before the first rung [default: as in a search].
        rungs: The epochs after which trials are judged, e.g. 16,23 [default: grace, grace times
            eta, ...].
        tolerance: A trial that is less than this below a rung's threshold is not stopped, a
            fraction, e.g. 0.005 for half a point.
        objective: anytime, mean, last, exit:K or front (each exit by itself; judged by anytime).
        budgets: Weight of each exit in the anytime objective [default: equal].
        repetitions: Searches of each row, each with another seed of the sampler and the next seed
            of the table.
        search_seed: Seed of the first search's sampler.
        save: Write the table to this .npz file too, to give it to others.
    """
    from studies import policies
    from studies.machine import cores
    from studies.replay import Policy, default_trials

    found = _table(table, storage, runs, quiet=quiet)
    if save is not None:
        found.write(save)
    compared = policies.compare(
        found,
        Policy(sampler, early_stopping, eta, grace, rungs, tolerance, objective, budgets),
        trials=default_trials(found) if trials is None else trials,
        workers=workers,
        repetitions=repetitions,
        seed=search_seed,
        processes=cores(),
        on_row=lambda name: None if quiet else say(f"replaying {name}", stderr=True),
    )
    if json:
        say_json(policies.as_json(compared))
        return
    say_comparison(compared)
    if save is not None:
        say(f"Table: {save}")


def _table(name: str, storage: str | None, runs: Path, *, quiet: bool) -> "CurveTable":
    """A shipped table, a file, or a study; says how many of its trials are left out."""
    from contextlib import closing

    from studies.curve_tables import ENDING, read_table, shipped
    from studies.listing import is_begun
    from studies.record import StudyRecord, list_studies
    from studies.recorded import table_of

    if name in shipped() or name.endswith(ENDING):
        return read_table(name)
    if not is_begun(name, runs, storage):
        known = [*shipped(), *(summary.name for summary in list_studies(runs, storage))]
        raise unknown("table or study", name, known, f"or a {ENDING} file")
    with closing(StudyRecord.open(name, storage, runs)) as record:
        made = table_of(record)
        left = record.plan.trials - made.configs * made.seeds
    if left > 0 and not quiet:
        say(
            f"{left} of {name}'s trials are left out: they failed or repeat another, or their "
            "config or seed lacks more runs than the others'",
            stderr=True,
        )
    return made


def say_comparison(found: "Comparison") -> None:
    """The table of policies, and what it says in words."""
    from studies.policies import points_text, policy_text, sentences
    from studies.verdict import count_text

    table = found.table
    base = table.base

    def cells(row: "Row") -> list[str]:
        epochs, seconds = row.middle("epochs"), row.middle("seconds")
        return [
            policy_text(row.policy, table.epochs),
            f"{row.workers:,}",
            points_text(row.middle("regret")),
            f"{epochs.median:,.0f} ({epochs.low:,.0f} to {epochs.high:,.0f})",
            f"{epochs.median / found.full:.2f}",
            duration(seconds.median),
            f"{100 * row.middle('busy').median:.0f} %",
        ]

    say(
        f"{table.name}: {table.configs} configs of {table.space}, "
        f"{count_text(table.seeds, 'seed')}, {table.epochs} epochs "
        f"({base.backbone} on {Path(base.dataset).name}; "
        f"{table.images:,} images scored)"
    )
    say_table(
        ("policy", "workers", "regret, points", "epochs", "of all", "virtual time", "busy"),
        [cells(row) for row in found.all_rows],
        title=f"{found.trials} trials a search, medians of {len(found.rows[0].runs)} searches "
        "(95 % interval)",
    )
    say(sentences(found))
