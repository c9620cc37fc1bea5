"""Trials and reports read from the tables of Optuna's own models, of the version that is installed.

Rows are taken as the database's driver gives them: to make them Optuna's types takes longer than to
read them.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    ColumnClause,
    Connection,
    Dialect,
    Select,
    String,
    cast,
    func,
    literal_column,
    select,
)

from studies.states import REPORT

CHUNK = 2000  # ids in one query
NO_EXITS = re.compile(r'"exits":\s*\[\s*\]')
SPECIAL = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

TRIALS, _PARAMS = models.TrialModel.__table__.c, models.TrialParamModel.__table__.c
_VALUES, _STEPS = models.TrialValueModel.__table__.c, models.TrialIntermediateValueModel.__table__.c
_NOTES, _FACTS = (
    models.TrialUserAttributeModel.__table__.c,
    models.TrialSystemAttributeModel.__table__.c,
)
AMONG: ColumnClause[bool] = literal_column("among_these_trials")
KEY = "this_key"
IS_REPORT = func.substr(_FACTS.key, 1, len(REPORT)) == REPORT

TRIALS_OF = (
    select(
        TRIALS.trial_id,
        TRIALS.number,
        TRIALS.state,
        TRIALS.datetime_start,
        TRIALS.datetime_complete,
    )
    .where(AMONG)
    .order_by(TRIALS.trial_id)
)
PARAMS_OF = (
    select(_PARAMS.trial_id, _PARAMS.param_name, _PARAMS.param_value, _PARAMS.distribution_json)
    .where(AMONG)
    .order_by(_PARAMS.param_id)
)
VALUES_OF = (
    select(_VALUES.trial_id, _VALUES.value, _VALUES.value_type)
    .where(AMONG)
    .order_by(_VALUES.trial_id, _VALUES.objective)
)
STEPS_OF = select(
    _STEPS.trial_id, _STEPS.step, _STEPS.intermediate_value, _STEPS.intermediate_value_type
).where(AMONG)
NOTES_OF = select(_NOTES.trial_id, _NOTES.key, _NOTES.value_json).where(AMONG)
FACTS_OF = select(_FACTS.trial_id, _FACTS.key, _FACTS.value_json).where(AMONG)
ONE_OF = FACTS_OF.where(_FACTS.key == KEY)
REPORTS_OF, OTHERS_OF = FACTS_OF.where(IS_REPORT), FACTS_OF.where(~IS_REPORT)
# The last key: of two numbers the longer one is greater, and of the same length the later one.
LAST_OF = (
    select(
        _FACTS.trial_id,
        func.max(cast(func.length(_FACTS.key) + 1000, String).concat(_FACTS.key)),
    )
    .where(AMONG, IS_REPORT)
    .group_by(_FACTS.trial_id)
)


def read_trials(connection: Connection, ids: Sequence[int]) -> Iterator[FrozenTrial]:
    """Some trials, by id, with their last report alone, as JSON text; with all of them where that
    does not tell the trial's end (it diverged, or ran on). The ids rise."""
    for first in range(0, len(ids), CHUNK):
        yield from _some(connection, ids[first : first + CHUNK])


def read_reports(connection: Connection, ids: Sequence[int]) -> Sequence[Any]:
    """(trial id, key, JSON) of each report of some trials, whose ids rise; in no order."""
    return _rows(connection, REPORTS_OF, ids)


def read_reports_after(
    connection: Connection, ids: Sequence[int], epoch: int
) -> Iterator[tuple[int, str]]:
    """(trial id, JSON) of the report of one epoch, of those that have one. The ids rise."""
    for first in range(0, len(ids), CHUNK):
        some = ids[first : first + CHUNK]
        for trial_id, _, text in _rows(connection, ONE_OF, some, f"{REPORT}{epoch}"):
            yield trial_id, text


def _some(connection: Connection, ids: Sequence[int]) -> Iterator[FrozenTrial]:
    # The state is read first: what it speaks of was written before.
    rows = _rows(connection, TRIALS_OF, ids)
    params: dict[int, dict[str, Any]] = defaultdict(dict)
    kinds: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    for trial_id, name, number, text in _rows(connection, PARAMS_OF, ids):
        kind = _distribution(text)
        params[trial_id][name], kinds[trial_id][name] = kind.to_external_repr(number), kind
    values: dict[int, list[float]] = defaultdict(list)
    for trial_id, number, finite in _rows(connection, VALUES_OF, ids):
        values[trial_id].append(SPECIAL.get(finite, number))
    steps: dict[int, dict[int, float]] = defaultdict(dict)
    for trial_id, epoch, number, finite in _rows(connection, STEPS_OF, ids):
        steps[trial_id][epoch] = SPECIAL.get(finite, number)
    user: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in _rows(connection, NOTES_OF, ids):
        user[trial_id][key] = json.loads(text)
    system = _facts(connection, ids)
    for trial_id, number, state, began, ended in rows:
        yield FrozenTrial(
            number=number,
            state=TrialState[state],
            value=None,
            values=values.get(trial_id),
            datetime_start=_moment(began),
            datetime_complete=_moment(ended),
            params=params[trial_id],
            distributions=kinds[trial_id],
            user_attrs=user[trial_id],
            system_attrs=system[trial_id],
            intermediate_values=steps[trial_id],
            trial_id=trial_id,
        )


def _moment(stored: datetime | str | None) -> datetime | None:
    """SQLite has no type of its own for it."""
    return datetime.fromisoformat(stored) if isinstance(stored, str) else stored


def _facts(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """System attributes of some trials, with no more reports than are needed."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in _rows(connection, OTHERS_OF, ids):
        found[trial_id][key] = json.loads(text)
    keys: dict[str, list[int]] = defaultdict(list)  # few: most trials end at a rung, or the end
    for trial_id, key in _rows(connection, LAST_OF, ids):
        keys[key[4:]].append(trial_id)
    unclear = [trial_id for trial_id in found if "run_on" in found[trial_id]]
    for last, trials in keys.items():
        if not last.removeprefix(REPORT).isdecimal():  # a foreign hand's
            unclear += trials
            continue
        for trial_id, key, text in _rows(connection, ONE_OF, trials, last):
            found[trial_id][key] = text
            if NO_EXITS.search(text):
                unclear.append(trial_id)
    if unclear:
        for trial_id, key, text in read_reports(connection, sorted(set(unclear))):
            found[trial_id][key] = text
    return found


@functools.lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _rows(
    connection: Connection, query: Select[Any], ids: Sequence[int], key: str = ""
) -> Sequence[Any]:
    """Rows of some trials.

    Args:
        connection: To the database.
        query: Of a table with trial ids, whose `AMONG` becomes the condition that it is of these.
        ids: Rising.
        key: What becomes of `KEY` in the query; letters, digits and colons alone.
    """
    if ids and ids[-1] - ids[0] == len(ids) - 1:  # a range is read faster than a list
        among = f"trial_id BETWEEN {ids[0]} AND {ids[-1]}"
    else:
        among = f"trial_id IN ({', '.join(map(str, ids)) or 'NULL'})"
    text = _compiled(query, connection.dialect)
    text = text.replace(str(AMONG), among).replace(KEY, key)
    return connection.exec_driver_sql(text).all()


@functools.lru_cache(maxsize=1000)
def _compiled(query: Select[Any], dialect: Dialect) -> str:
    return str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
