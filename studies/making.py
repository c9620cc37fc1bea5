"""Studies made, found and erased in a storage."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search_spaces import Space
from studies import resume
from studies.drivers import Driver, is_dead
from studies.front import metrics
from studies.listing import PLAN, stored_names, stored_plan
from studies.plan import FRONT_FLOPS, StudyPlan
from studies.samplers import quietly
from studies.states import Claim
from studies.storage import Place, StorageError, connect, one_line_errors
from trainers import places
from trainers.catalog import InputError

MADE = "automate"  # system attribute of the study: first points, how many are starts, box


def exists(source: BaseStorage, name: str) -> bool:
    """Whether the storage has a study of that name."""
    try:
        source.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


def foreign(name: str) -> InputError:
    """The refusal of a study that is none of ours."""
    return InputError(f"study {name!r} was not made by automate: take another --study NAME")


def plan_in(
    source: BaseStorage, study_id: int, name: str, folder: Path, asked: StudyPlan | None = None
) -> StudyPlan | None:
    """The stored plan; None of a study whose maker died before it wrote anything.

    Args:
        source, study_id, name, folder: Of the study.
        asked: What is to be searched, which tells an empty study from a foreign one.

    Raises:
        InputError: Not made by automate, or with other directions than its objective's.
    """
    attributes = source.get_study_user_attrs(study_id)
    plan = stored_plan(name, attributes, folder)
    if plan is None and (attributes or source.get_n_trials(study_id)):
        raise foreign(name)
    # load_if_exists would go on with another direction without a word.
    there, known = source.get_study_directions(study_id), plan or asked
    if known is not None and there != directions(known, columns_in(known, len(there))):
        raise foreign(name)
    return plan


def directions(plan: StudyPlan, columns: int) -> list[StudyDirection]:
    """Optuna's, in the order of `front.metrics`."""
    ways = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}
    return [ways[more] for more in metrics(plan.objective, columns).values()]


def columns_in(plan: StudyPlan, values: int) -> int:
    """How many exits a study of so many values a trial compares."""
    return max(1, values - (plan.objective == FRONT_FLOPS))


def settle(
    source: BaseStorage,
    plan: StudyPlan,
    space: Space,
    folder: Path,
    runtime: Mapping[str, Any],
) -> StudyPlan:
    """Makes the study, or finds that it can go on; the plan to go by.

    The stored number of trials only grows; the plan that is returned has the asked one.

    Raises:
        InputError: Another search of that name, a foreign study, a space that is wrong in itself,
            or checkpoints of a study that is gone.
    """
    name = plan.study
    if not exists(source, name):
        # A new study must not go on from another one's checkpoints.
        if any((folder / "trials").glob("*/*")):
            raise InputError(
                f"{folder / 'trials'} holds checkpoints of a study that is gone: start over with "
                "--fresh, or take another --study NAME"
            )
        # nothing is made for a space that is wrong in itself
        points, _ = resume.first_points(space, plan)
        ways = directions(plan, resume.columns_of(space, plan, points))
        with quietly(), contextlib.suppress(DuplicatedStudyError):  # another driver was faster
            source.create_new_study(ways, name)
    study_id = source.get_study_id_from_name(name)
    stored = plan_in(source, study_id, name, folder, plan)
    moved = stored_names(source.get_study_user_attrs(study_id).get(PLAN), folder)
    if stored is None:
        plan = resume.with_runtime(plan, runtime).noted_in(folder)
        points, starts = resume.first_points(space, plan)
        columns = resume.columns_of(space, plan, points)
        if source.get_study_directions(study_id) != directions(plan, columns):
            raise foreign(name)
        box = resume.box_of(space, plan, points)
        made: dict[str, Any] = {"points": points, "starts": starts, "box": box}
        source.set_study_system_attr(study_id, MADE, made)
        names = list(metrics(plan.objective, columns))
        with quietly():
            optuna.load_study(study_name=name, storage=source).set_metric_names(names)
    else:
        stored.check_files()
        stored.check_images()
        plan = resume.going_on(stored, plan, runtime)
        made = dict(source.get_study_system_attrs(study_id).get(MADE) or {})
        grows = plan.experiment or plan.calibrates or plan.confirms
        if grows and plan.trials > len(made.get("points") or []):  # more seeds
            made["points"], _ = resume.first_points(space, plan)
            source.set_study_system_attr(study_id, MADE, made)
    plan = plan.with_(trials=resume.total(plan, len(made.get("points") or [])))
    kept = plan if stored is None else plan.with_(trials=max(plan.trials, stored.trials))
    source.set_study_user_attr(study_id, PLAN, _named_as_before(kept, moved, folder))
    return plan


def _named_as_before(plan: StudyPlan, moved: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """A plan as JSON with the paths that the study's trials know; a new folder of data is noted."""
    fields = places.renamed(plan.model_dump(mode="json"), places.back(moved))
    if plan.places is not None:
        fields["places"] = {**places.noted([fields["data_root"]], folder), **plan.places}
    return dict(fields)


def erase(
    where: Place, storage: str | BaseStorage | None, plan: StudyPlan, folder: Path, driver: Driver
) -> None:
    """Deletes the plan's study, its checkpoints and its exports, if there are any.

    Raises:
        InputError: Not made by automate, or another driver runs trials of it.
    """
    try:
        source = storage if isinstance(storage, BaseStorage) else connect(where)
        with one_line_errors(where):
            if exists(source, plan.study):
                _erase_study(source, plan, folder, driver, shared=where.database is None)
        if isinstance(source, RDBStorage) and source is not storage:
            source.remove_session()
            source.engine.dispose()
    except StorageError:
        if not where.own or where.database is None:
            raise
        for ending in ("", "-wal", "-shm"):  # damaged, and there is nothing else in it
            where.database.with_name(where.database.name + ending).unlink(missing_ok=True)
    for part in ("trials", "best"):
        if (folder / part).is_dir() and not (folder / part).is_symlink():
            try:
                shutil.rmtree(folder / part)
            except OSError as error:
                raise InputError(f"{folder / part} cannot be deleted: {error.strerror}") from None


def _erase_study(
    source: BaseStorage, plan: StudyPlan, folder: Path, driver: Driver, shared: bool
) -> None:
    name = plan.study
    study_id = source.get_study_id_from_name(name)
    if PLAN not in source.get_study_user_attrs(study_id):
        plan_in(source, study_id, name, folder, plan)
    running = source.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
    claims = [Claim.read(trial.user_attrs.get("claim")) for trial in running]
    alive = [c for c in claims if c.owner and c.until > driver.clock() and not is_dead(c.owner)]
    if shared and alive:
        raise InputError(
            f"study {name!r} is being searched: {len(alive)} of its trials run (one at "
            f"{alive[0].owner}); stop that first, or take another --study NAME"
        )
    source.delete_study(study_id)
