"""A space tried before a search: whether it can be drawn from, and what of it changes no run."""

from __future__ import annotations

import optuna

from search_spaces import Space
from studies.resume import suggested_config
from studies.samplers import quietly
from trainers.catalog import InputError, is_path, last_part
from trainers.config import TrialConfig
from trainers.schemes import OWN, SCHEMES, scheme_named

PROBES = 12  # configs that are drawn to see which fields a space varies
TRIES = 60  # of a user's space: a branch that one draw in ten takes fails before the search does
OF_SCHEMES = {name for scheme in SCHEMES.values() for name in scheme.reads}


def unread(space: Space, base: TrialConfig) -> list[str]:
    """The fields that a space varies and no scheme of it reads, sorted.

    Raises:
        InputError: The space varies nothing else: all its trials would be one config. Or its own
            `suggest` fails at one of the configs that are drawn.
    """
    configs = [config for _, config in _probed(space, base)]
    fields = TrialConfig.model_fields
    varied = {name for name in fields if len({str(getattr(c, name)) for c in configs}) > 1}
    read = {name for config in configs for name in scheme_named(config.scheme).reads}
    nothing = (varied & OF_SCHEMES) - read
    if varied and varied == nothing:
        scheme = last_part(configs[0].scheme)
        raise InputError(
            f"space {space.name!r} searches {_listed(nothing)}, which {scheme} does not read: all "
            "trials would be the same; take another --scheme or --space (see `automate schemes`)"
        )
    return sorted(nothing)


def unread_text(space: Space, base: TrialConfig) -> str:
    """`alpha: byot does not read it`, for the plan; empty where everything is read."""
    names, scheme = unread(space, base), last_part(base.scheme)
    said = [f"{_listed(names)}: {scheme} does not read it, so it changes no run"] if names else []
    if base.scheme != TrialConfig.model_fields["scheme"].default and not _tries(space, base):
        said.append(f"--scheme {scheme}: the space tries others alone")
    return "; ".join(said)


def _tries(space: Space, base: TrialConfig) -> bool:
    """Whether any trial of the space can be of the base's scheme."""
    drawn = _probed(space, base)
    asked = [trial.distributions.get("scheme") for trial, _ in drawn]
    named = {choice for one in asked for choice in getattr(one, "choices", ())}
    named |= {config.scheme for _, config in drawn}
    return base.scheme in named or OWN in named


def _listed(names: list[str] | set[str]) -> str:
    return " and ".join(sorted(names))


def _probed(space: Space, base: TrialConfig) -> list[tuple[optuna.Trial, TrialConfig]]:
    """A few random trials, and their configs."""
    draws = TRIES if is_path(space.name) else PROBES
    with quietly():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        trials = [study.ask() for _ in range(draws)]
        return [(trial, suggested_config(space, trial, base)) for trial in trials]
