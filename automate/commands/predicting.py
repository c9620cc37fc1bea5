"""`automate predict`: a trained network on images of one's own."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from automate import flags
from automate.printing import say, say_error, say_json, say_table
from trainers.catalog import InputError


def predict(
    run: Path,
    /,
    *images: Annotated[
        str, Parameter(help="Image files (PNG, JPEG, WebP, ...) of any shape; not 16-bit grey.")
    ],
    budget: Annotated[
        flags.Budget,
        Parameter(
            help="FLOPs that an image may cost on average, e.g. 150M [default: what the last exit "
            "costs, which then answers all]."
        ),
    ] = None,
    json: flags.Json = False,
) -> int:
    """Classify image files with a trained network.

    With --budget an image leaves at the first exit that is sure enough, and nothing beyond that
    exit is computed for it. The thresholds keep within the budget on the hold-out, if the run was
    trained without it (`automate train --keep-validation`).

    Args:
        run: A folder that `automate train` left; of several seeds the first is taken.
    """
    from automate.main import FAILED, WRONG
    from studies.predict import predict as predicted
    from trainers.dynamic import flops_text

    if not images:
        raise InputError("predict needs image files, e.g. `automate predict RUN photo.jpg`")
    found = predicted(run, images, budget)
    for one in found.refused:
        say_error(one.reason)
    code = 0 if not found.refused else FAILED if found.images else WRONG
    if json:
        limits = None if found.limits is None else [_number(limit) for limit in found.limits]
        said: dict[str, Any] = {"run": found.run, "budget": budget, "thresholds": limits}
        said["flops"] = found.flops
        said["images"] = [asdict(one) for one in found.images]
        said["refused"] = [asdict(one) for one in found.refused]
        say_json(said)
        return code
    if found.flops is None:
        return code
    say_table(
        ("image", "class", "probability", "exit", "MFLOPs"),
        [
            (one.file, one.label, f"{one.probability:.3f}", str(one.exit), f"{one.flops / 1e6:.3f}")
            for one in found.images
        ],
        title=str(found.run),
    )
    spent = f"{flops_text(found.flops)} FLOPs an image on average"
    if budget is None:
        hint = "" if found.no_budget else "; with --budget images leave early"
        say(f"{spent}: the last exit answered all{hint}.")
        return code
    left = ", ".join(f"{n} at exit {k}" for k, n in enumerate(found.leaving, 1) if n)
    say(f"{spent}: {left}. The thresholds keep within {flops_text(budget)} on the held-out images.")
    return code


def _number(limit: float) -> float | None:
    """A threshold as JSON has it: 0 where all images leave, null where none does."""
    return None if limit == math.inf else max(limit, 0.0)
