"""A search confirmed: its best and the paper's default on fresh seeds and hold-outs, then on test.

with closing(StudyRecord.open("digits-cnn4-diverse_alpha")) as found:
    plan = make_plan(found, top=8, seeds=5)
    record = StudyRecord.create_or_open(plan)
drive(record)
read_test(record)
print(headline(confirmation(record)))

The runs are a study of their own, `<study>-confirm`, in the search's storage: the same record, the
same drivers, and whatever is killed goes on. The test split is read after the race is over, for
the runs of the finalists alone, each network once, and nothing is chosen by it. Where seeds are
added to a race that was over, it is read again, for the new runs: the verdict says how often.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from studies import machine, racing, trial
from studies.confirm_json import as_json
from studies.confirmation import Confirmation, confirmed
from studies.finalists import finalists, same
from studies.listing import is_begun
from studies.plan import CONFIRM, MOST_SEEDS, StudyPlan, checked_study_name, ranked_by
from studies.reading import StudyReader
from studies.record import StudyRecord
from studies.search import Estimate, estimate, machine_at
from studies.states import ENDED, Outcome
from trainers import checkpoints
from trainers.catalog import InputError
from trainers.devices import usable_device
from trainers.reports import EpochReport
from trainers.sources import check

ENDING = "-confirm"
VERDICT = "confirmation.json"
READINGS = "readings"  # a note: after how many seeds the test split was read
TEST = "test:"  # notes of a confirmation's study: what the network of a trial reached on test


def confirm_name(study: str) -> str:
    """Of the study that confirms another."""
    return checked_study_name(f"{study[: 100 - len(ENDING)]}{ENDING}")


def make_plan(
    found: StudyRecord,
    *,
    top: int | None = None,
    seeds: int | None = None,
    fresh: bool = False,
    data_root: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    gpus_per_trial: float | None = None,
    device: str | None = None,
    ray_address: str | None = None,
) -> StudyPlan:
    """The race of a search's best, with everything settled; of one that is there, as it goes on.

    Args:
        found: The search.
        top: Candidates beside the default; 8 if not given, or what there is.
        seeds: Rounds; 5 if not given, or as the one that is there has.
        fresh: Whether one that is there is to be forgotten.
        data_root: Where the data lies; as the search had it if not given.
        workers, threads, gpus_per_trial, device: As the search had them if not given.
        ray_address: The Ray cluster that it is for.

    Raises:
        InputError: No search, no candidate, or another race than is stored.
    """
    search = found.plan
    if search.experiment or search.confirms or search.calibrates:
        # A calibration runs each config with several seeds: its best run is luck by design.
        what = "is a confirmation" if search.confirms else "is a calibration"
        what = f"reproduces {search.experiment}" if search.experiment else what
        raise InputError(f"study {search.study} {what}: only a search can be confirmed")
    for name, value in (("top", top), ("seeds", seeds)):
        if value is not None and value < 1:
            raise InputError(f"{name} needs to be at least 1, got {value}")
    if seeds is not None and seeds > MOST_SEEDS:
        raise InputError(f"seeds needs to be at most {MOST_SEEDS}, got {seeds}")
    outcomes = found.outcomes()
    stored = None if fresh else _stored(found, outcomes)
    if stored is not None:
        if top is not None:
            now = finalists(outcomes, search.base, top)  # fewer than `top` where there are no more
            top = None if len(now) == len(stored.finalists or ()) else top
        plan = _going_on(stored, top, seeds)
    else:
        rows = finalists(outcomes, search.base, racing.TOP if top is None else top)
        if len(rows) < 2:
            raise InputError(
                f"study {search.study} has no trial of full length beside the default: there is "
                "nothing to confirm yet"
            )
        race = racing.schedule(len(rows) - 1, racing.SEEDS if seeds is None else seeds)
        used = [o.config for o in outcomes if o.config is not None]
        plan = search.with_(
            study=confirm_name(search.study),
            space=f"{CONFIRM}{search.study}",
            base=search.base.with_(
                # None that the search has used; the spaces as a rule use the base's alone.
                seed=1 + max(config.seed for config in (search.base, *used)),
                split_seed=1 + max(config.split_seed for config in (search.base, *used)),
            ),
            trials=len(rows) * len(race),
            sampler="grid",
            objective=ranked_by(search.objective),
            early_stopping=False,
            grace=search.base.epochs,
            rungs=None,
            tolerance=0.0,
            run_on=0.0,
            finalists=rows,
            race=race,
            box=found.box,
        )
    if gpus_per_trial is None and device in (None, plan.device):  # of another device chosen anew
        gpus_per_trial = plan.gpus_per_trial
    runs_on = machine.settled(
        plan.base,
        plan.trials,
        data_root or plan.data_root,
        workers or plan.workers,
        threads or plan.threads,
        gpus_per_trial,
        device or plan.device,
        where=machine_at(ray_address),
    )
    return plan.with_(data_root=data_root or plan.data_root, **runs_on)


def beside(found: StudyRecord) -> StudyRecord | None:
    """The confirmation of a search, in the same storage, to be read; None if there is none."""
    name, runs = confirm_name(found.name), found.folder.parent
    storage = None if found.place.own else found.storage  # a file each, or one for all
    return StudyRecord.open(name, storage, runs) if is_begun(name, runs, storage) else None


def _stored(found: StudyRecord, outcomes: Sequence[Outcome]) -> StudyPlan | None:
    """The plan of the confirmation that is there. Raises InputError if it is of another search."""
    record = beside(found)
    if record is None:
        return None
    plan = record.plan
    record.close()
    if not _is_of(plan, found.name, outcomes):
        raise InputError(
            f"study {plan.study} confirms an earlier search named {found.name}: start it over "
            "with --fresh"
        )
    return plan


def _is_of(plan: StudyPlan, name: str, outcomes: Sequence[Outcome]) -> bool:
    """Whether a confirmation is of this search, not of one of that name that is gone."""
    configs = {o.number: o.config for o in outcomes}
    rows = [row for row in plan.finalists or () if row.trial is not None]
    return plan.confirms == name and all(
        (config := configs.get(row.trial or 0)) is not None and same(config, row.config)
        for row in rows
    )


def _going_on(stored: StudyPlan, top: int | None, seeds: int | None) -> StudyPlan:
    """The stored race, with more rounds where more seeds are asked for."""
    rows, race = stored.finalists or (), stored.race or ()
    if top is not None and top != len(rows) - 1:
        raise InputError(
            f"study {stored.study} confirms {len(rows) - 1} candidates, got --top {top}: leave it "
            "out, or start over with --fresh"
        )
    if seeds is None or seeds == len(race):
        return stored
    if seeds < len(race):
        raise InputError(
            f"study {stored.study} has {len(race)} seeds, got {seeds}: seeds can be added, not "
            "taken away; leave it out, or start over with --fresh"
        )
    race = (*race, *(race[-1],) * (seeds - len(race)))
    return stored.with_(race=race, trials=len(rows) * len(race))


def left(
    plan: StudyPlan, outcomes: Sequence[Outcome] = (), ray_address: str | None = None
) -> Estimate | None:
    """What the race has yet to train, at most; None if it is over.

    Its disk counts the weights that are kept until the test split is read.

    Args:
        plan: Of the race.
        outcomes: So far.
        ray_address: The Ray cluster that it is for.
    """
    assert plan.race is not None
    if is_over(outcomes, plan):
        return None
    whole = estimate(plan, ray_address)
    wanted = racing.cost(plan.race) * plan.base.epochs
    epochs = max(0, wanted - sum(outcome.epochs for outcome in outcomes))
    kept = max((running + 1) * done for done, running in enumerate(plan.race, start=1))
    return replace(
        whole,
        epochs=epochs,
        seconds=whole.seconds * epochs / whole.epochs,
        disk=whole.disk + kept * whole.disk // (3 * plan.workers),
    )


def is_over(outcomes: Sequence[Outcome], plan: StudyPlan) -> bool:
    """Whether no run of the race is left."""
    ended = sum(outcome.state in ENDED for outcome in outcomes)
    return ended >= plan.trials


def read_test(record: StudyRecord, on_run: Callable[[int, int], None] = lambda *_: None) -> int:
    """Scores the runs of the finalists on the test split, where that was not done yet.

    When the race is over: what it decided cannot change any more. A run whose weights are gone is
    trained again, which on a CPU gives the same ones. That it is read is noted before it is.

    Args:
        record: Of the confirmation.
        on_run: Called with (done, all) after each run.

    Returns:
        Runs that were scored now.

    Raises:
        InputError: The race is not over, or the data is missing.
    """
    plan, outcomes = record.plan, record.outcomes()
    if not is_over(outcomes, plan):
        raise InputError(f"study {plan.study}: the test split is read when the race is over")
    result = confirmed(plan, outcomes, {})
    rows = () if result.judged is None else [result.kept[row] for row in result.judged.finalists]
    known = tests(record)
    count = len(plan.finalists or ())
    wanted = [
        outcome
        for outcome in outcomes
        if outcome.number % count in rows and outcome.state == "COMPLETE"
    ]
    left = [outcome for outcome in wanted if outcome.number not in known]
    seeds, earlier = len(plan.race or ()), readings(record, known)
    if left:
        plan.check_files()
        plan.check_images()
        check(plan.base, plan.data_root, test=True)
    if left and seeds not in earlier:
        record.note(READINGS, {"seeds": [*earlier, seeds]})
    for done, outcome in enumerate(left, start=1):
        scored = _scored(record, outcome)
        record.note(f"{TEST}{outcome.number}", scored.model_dump(mode="json"))
        on_run(done, len(left))
    for outcome in wanted:
        checkpoints.remove(record.checkpoint(outcome.number))
    return len(left)


def tests(record: StudyReader) -> dict[int, EpochReport]:
    """Trial -> what its network reached on the test split, where that was read."""
    found = {n: record.noted(f"{TEST}{n}") for n in range(record.plan.trials)}
    try:
        return {n: EpochReport(**fields) for n, fields in found.items() if fields is not None}
    except (ValidationError, TypeError):
        raise InputError(f"study {record.name!r} has test figures that cannot be read") from None


def readings(record: StudyReader, known: Mapping[int, EpochReport]) -> tuple[int, ...]:
    """After how many seeds the test split was read, each time that it was.

    Args:
        record: Of the confirmation.
        known: Its `tests`: older studies have no note, but these.
    """
    found = record.noted(READINGS)
    if found is not None:
        return tuple(int(seeds) for seeds in found.get("seeds", ()))
    count = len(record.plan.finalists or ())
    return (1 + max(known) // count,) if known else ()


def _scored(record: StudyRecord, outcome: Outcome) -> EpochReport:
    from trainers.data import load
    from trainers.loop import rescored

    plan, config = record.plan, outcome.config
    assert config is not None
    path = record.checkpoint(outcome.number)
    if not path.exists():
        for _ in trial.run(
            config,
            data_root=plan.data_root,
            device=plan.device,
            threads=plan.threads,
            checkpoint=path,
        ):
            pass
    data = load(config, "final-holdout", plan.data_root)
    return rescored(config, data, path, usable_device(plan.device))


def confirmation(record: StudyReader) -> Confirmation:
    """What a confirmation has come to so far."""
    known = tests(record)
    return confirmed(record.plan, record.outcomes(), known, readings(record, known))


def confirmation_of(found: StudyRecord) -> Confirmation | None:
    """What the confirmation of a search has come to; None if there is none of this search."""
    if found.plan.experiment or found.plan.confirms:
        return None
    record = beside(found)
    if record is None:
        return None
    with closing(record):
        outcomes = found.outcomes()
        if not _is_of(record.plan, found.name, outcomes):
            return None
        rows = record.plan.finalists or ()
        now = finalists(outcomes, found.plan.base, len(rows) - 1)
        newer = {row.trial for row in now} != {row.trial for row in rows}
        return replace(confirmation(record), outdated=newer)


def write_verdict(made: Confirmation, folder: Path) -> Path:
    """Writes what a confirmation says as `confirmation.json` into the search's folder; the path."""
    path = folder / VERDICT
    text = json.dumps(as_json(made), indent=2, ensure_ascii=False, allow_nan=False)
    checkpoints.put(path, f"{text}\n".encode())
    return path
