"""The best configs as complete YAML files, and back."""

import datetime
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from studies.confirmation import Confirmation
from studies.plan import ranked_by
from studies.record import StudyRecord
from studies.verdict import count_text, finished, recommended_first
from trainers.catalog import InputError, shortened
from trainers.checkpoints import put
from trainers.config import TrialConfig
from trainers.own import FILES, missing
from trainers.places import found, noted, renamed

CONFIRMED = "confirmed.yaml"
LARGEST = 1_000_000  # bytes; an exported config has some 1,500


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases and without a key given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"the key {key!r} is no name")
            if key in seen:
                raise yaml.YAMLError(f"the key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def export(record: StudyRecord, top: int = 3) -> list[Path]:
    """Writes the best configs to `runs/<study>/best/1.yaml`, `2.yaml`, ...

    Whole networks whose curve no other trial's dominates come first, then the rest, each by the
    study's objective (of a front by what orders it). Only trials that ran their full length are
    exported.

    Args:
        record: The study.
        top: How many, at most.

    Raises:
        InputError: No trial has run its full length yet; top < 1; an experiment of the paper,
            whose figures are of the test split and must select nothing.
    """
    _only_of_a_search(record)
    if top < 1:
        raise InputError(f"top needs to be at least 1, got {top}")
    outcomes = record.outcomes()
    chosen = recommended_first(outcomes)[:top]
    if not chosen:
        raise InputError(
            f"study {record.name} has no trial of full length yet "
            f"({count_text(len(outcomes), 'trial')}, {len(finished(outcomes))} complete): "
            "go on with the search"
        )
    folder = record.folder / "best"
    paths = []
    for rank, outcome in enumerate(chosen, start=1):
        assert outcome.config is not None and outcome.report is not None
        source = {
            "study": record.name,
            "trial": outcome.number,
            "params": outcome.params,
            "objective": record.plan.objective,
            "ranked_by": ranked_by(record.plan.objective),
            "value": outcome.value,
            "split": outcome.report.split,
            "accuracy": list(outcome.report.accuracies),
            "flops": [point.flops for point in outcome.report.exits],
            "data_root": record.plan.data_root,
            **_own(record, outcome.config),
            "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        path = folder / f"{rank}.yaml"
        write_config(path, outcome.config, source)
        paths.append(path)
    for stale in folder.glob("*.yaml"):  # of an earlier, longer export
        if stale.stem.isdigit() and int(stale.stem) > len(paths):
            stale.unlink()
    return paths


def _only_of_a_search(record: StudyRecord) -> None:
    if record.plan.experiment:
        raise InputError(
            f"study {record.name} reproduces {record.plan.experiment} on the test split, by which "
            "nothing may be selected: export from a search"
        )
    if record.plan.calibrates:
        raise InputError(
            f"study {record.name} says when stopping is right in {record.plan.calibrates}, with "
            "configs that nobody chose: search that space, and export from the search"
        )
    if record.plan.confirms:
        raise InputError(
            f"study {record.name} confirms {record.plan.confirms}: export from that, "
            f"`automate export {record.plan.confirms}`"
        )


def export_confirmed(record: StudyRecord, made: Confirmation | None) -> Path:
    """Writes what a confirmation says to take to `runs/<study>/best/confirmed.yaml`.

    Its seed is the last one that the confirmation used, so that `automate train` goes on with fresh
    ones; everything else is as the search had it.

    Args:
        record: The search.
        made: What its confirmation has come to, if there is one.

    Raises:
        InputError: As `export`; no confirmation, one that is not finished, or one that nothing can
            be said of.
    """
    _only_of_a_search(record)
    if made is None:
        raise InputError(
            f"study {record.name} is not confirmed: `automate confirm {record.name}` does that, or "
            "leave out --confirmed"
        )
    judged = made.judged
    if judged is None:
        why = "has nothing to compare" if made.over else "is not finished"
        raise InputError(
            f"the confirmation of study {record.name} {why}: `automate confirm {record.name}`"
            f"{' --fresh starts it over' if made.over else ' goes on'}, or leave out --confirmed"
        )
    row, percent = made.rows[judged.chosen], made.plan.objective != "hypervolume"
    mean, exits = judged.means[judged.chosen], made.points.means[judged.chosen]
    source = {
        "study": record.name,
        "trial": row.trial,
        "confirmed": made.plan.study,
        "runs": mean.n,
        "objective": record.plan.objective,
        "ranked_by": ranked_by(record.plan.objective),
        "value": mean.mean / 100 if percent else mean.mean,
        "split": "validation",
        "accuracy": [exit.mean / 100 for exit in exits],
        "flops": [int(flops) for flops in made.flops[judged.chosen]],
        "data_root": record.plan.data_root,
        **_own(record, row.config),
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    used = made.plan.base.seed + len(made.plan.race or ()) - 1
    path = record.folder / "best" / CONFIRMED
    write_config(path, row.config.with_(seed=used), source)
    return path


def _own(record: StudyRecord, config: TrialConfig) -> dict[str, Any]:
    """What tells of the user's files: which network and scheme it was that the study trained, not
    what the files hold today, and where everything lies from the export's folder."""
    plan, told = record.plan, config.digests
    for field in FILES:
        if getattr(config, field) == getattr(plan.base, field) and plan.digests is not None:
            told[field] = plan.digests.get(field)
    names = (config.backbone, config.scheme, config.dataset, plan.data_root)
    places = noted(names, record.folder / "best")
    digests = {f"{field}_digest": digest for field, digest in told.items() if digest is not None}
    return {**digests, **({"places": places} if places else {})}


def write_config(path: Path, config: TrialConfig, source: dict[str, Any]) -> None:
    """A config and where it comes from, as YAML, to a temporary name and renamed."""
    text = yaml.safe_dump(
        {"source": source, "config": config.model_dump(mode="json")},
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
    )
    # As the user's own commands name it; what could end the comment is left out.
    shown = shlex.quote(str(path) if str(path).isprintable() else path.name)
    put(path, f"# automate train {shown} --seeds 3\n{text}".encode())


def read_exported(path: Path) -> tuple[TrialConfig, dict[str, Any]]:
    """The config of a YAML file and its `source` mapping.

    Raises:
        InputError: Missing, larger than a config can be, broken, with tags, aliases, keys given
            twice or unknown, or values that no config takes.
    """
    if not path.is_file():
        hint = ": `automate export` writes it" if path.parent.name == "best" else ""
        raise InputError(f"{missing('config', str(path))}{hint}")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes: this is no exported config")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable YAML: {shortened(error, 200)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise InputError(f"{path} needs a mapping 'config' (and may have 'source')")
    unknown = sorted(set(content) - {"config", "source"})
    if unknown:
        listed = shortened(", ".join(map(str, unknown)), 200)
        raise InputError(f"{path} has unknown keys {listed}: expected config and source alone")
    source = {} if content.get("source") is None else content["source"]
    if not isinstance(source, dict):
        raise InputError(f"{path}: source needs to be a mapping, got {type(source).__name__}")
    try:
        named = {field: str(content["config"].get(field)) for field in FILES}
        digests = {name: source.get(f"{field}_digest") for field, name in named.items()}
        names = found(source.get("places"), path.parent, digests)
        config = TrialConfig.read(renamed(content["config"], names))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return config, renamed(source, names)


def edited(config: TrialConfig, source: Mapping[str, Any]) -> list[str]:
    """Which of the user's files hold something else than was searched, as far as is known: of the
    network ("backbone"), of the scheme."""
    exported = {field: source.get(f"{field}_digest") for field in FILES}
    return [name for name, digest in config.digests.items() if exported[name] not in (None, digest)]
