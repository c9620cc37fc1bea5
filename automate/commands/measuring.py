"""`automate profile` and `evaluate`: what is measured of networks, beyond a search."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from automate import flags
from automate.printing import say, say_json, say_table, size
from trainers.catalog import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainers.timing import ExitTiming

MOST_PAIRS = 5


def profile(
    *backbones: Annotated[str, Parameter(help="Names, or Python files of your own.")],
    dataset: Annotated[
        str | None, Parameter(help="Whose images and classes to take; none: what fits.")
    ] = None,
    width: Annotated[float, Parameter(help="Multiplies the channels.")] = 1.0,
    resize: flags.Resize = None,
    batch_size: Annotated[flags.Whole, Parameter(help="Images at a time.")] = 1,
    threads: Annotated[flags.WholeOrNone, Parameter(help="CPU threads [default: all].")] = None,
    device: Annotated[str, Parameter(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[flags.Whole, Parameter(help="Timed rounds, after a warm-up.")] = 20,
    json: flags.Json = False,
) -> None:
    """Measure latency and memory of each exit.

    Each exit runs alone (the backbone up to it and its own head), on random images, in rounds over
    all exits. FLOPs and time rank exits differently; where they do beyond the spread, it is said.
    """
    from automate.commands.listings import configs_for
    from trainers.timing import ENOUGH, ranked_apart
    from trainers.timing import profile as measured

    if not backbones:
        raise InputError("profile needs a backbone, e.g. `automate profile vgg16 resnet18`")
    configs = [configs_for(name, dataset, width, resize)[0] for name in backbones]
    timings = measured(
        *configs, batch_size=batch_size, repeats=repeats, device=device, threads=threads
    )
    apart = ranked_apart(timings)
    if json:
        pairs = [[{"backbone": t.backbone, "exit": t.exit} for t in pair] for pair in apart]
        say_json({"exits": [asdict(timing) for timing in timings], "ranked_apart": pairs})
        return
    _say_timings(timings, device, threads)
    if repeats < ENOUGH:
        say(f"Too few rounds to compare ranks: take --repeats {ENOUGH} or more.")
    else:
        _say_apart(apart, len(timings) * (len(timings) - 1) // 2)


def _say_timings(timings: "Sequence[ExitTiming]", device: str, threads: int | None) -> None:
    import torch

    rows = [
        (
            t.backbone,
            f"{t.image_size}x{t.image_size}",
            str(t.exit),
            f"{t.flops / 1e6:.3f}",
            f"{1e3 * t.seconds:.3f}",
            f"{1e3 * t.low:.3f} to {1e3 * t.high:.3f}",
            f"{t.flops / t.seconds / 1e9:.2f}",
            size(t.activations),
            size(t.weights),
        )
        for t in timings
    ]
    number = threads or torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, threads: {number}"
    say_table(
        (
            "backbone",
            "pixels",
            "exit",
            "MFLOPs",
            "ms an image",
            "middle half",
            "GFLOPs/s",
            "activations",
            "weights",
        ),
        rows,
        title=f"Each exit alone on {where}, batches of {timings[0].batch_size}, "
        f"median of {timings[0].rounds} rounds",
    )
    how = (
        "the most that CUDA's allocator held"
        if device == "cuda"
        else "the largest sum of tensors alive at a time; kernels' own scratch is not seen"
    )
    say(f"Activations, of a batch: {how}. Weights: of the way to this exit.")


def _say_apart(apart: "Sequence[tuple[ExitTiming, ExitTiming]]", pairs: int) -> None:
    if not apart:
        say(f"FLOPs and time rank the exits alike, within the spread ({pairs} pairs).")
        return
    say(f"FLOPs and time rank {len(apart)} of {pairs} pairs of exits differently:")
    for one, two in apart[:MOST_PAIRS]:
        say(
            f"  {one.backbone} exit {one.exit} has {100 * one.flops / two.flops:.0f} % of the "
            f"FLOPs of {two.backbone} exit {two.exit} and takes {one.seconds / two.seconds:.2f} "
            "times as long"
        )
    if len(apart) > MOST_PAIRS:
        say(f"  and {len(apart) - MOST_PAIRS} more")


def evaluate(
    run: Path,
    /,
    *,
    budgets: Annotated[
        flags.Flops,
        Parameter(
            help="FLOPs per image to read the budget curve at, e.g. 100M 1.2G [default: what each "
            "exit costs, and half-way between]."
        ),
    ] = None,
    out: Path | None = None,
    data_root: Annotated[
        str | None,
        Parameter(
            help="Where the data set, or your folder of images, lies [default: where it lay in "
            "training]."
        ),
    ] = None,
    device: str | None = None,
    threads: flags.WholeOrNone = None,
    json: flags.Json = False,
) -> None:
    """Evaluate a trained run: exits, budgets, calibration.

    It reads the test images. Thresholds for the budget curve come from the hold-out, if the run was
    trained without it (`automate train --keep-validation`; digits always are).

    Args:
        run: A folder that `automate train` left, with one seed's weights.pt or with all seeds.
        out: The page [default: evaluation.html in that folder].
        device: cpu or cuda [default: cuda where there is one].
        threads: CPU threads [default: all cores].
    """
    from studies import evaluate as evaluation
    from studies import evaluation_sections as texts
    from studies.verdict import count_text

    found = evaluation.evaluate(
        run, budgets=budgets, data_root=data_root, device=device, threads=threads
    )
    page = texts.write_evaluation(found, out)
    if json:
        say_json({**found.as_json(), "page": page})
        return
    config, n = found.config, len(found.runs)
    length = count_text(config.epochs, "epoch")
    say(f"{run}: {config.backbone} on {config.dataset}, {config.scheme}, {length}")
    say_table(
        *texts.exit_rows(found),
        title=f"On {found.images:,} test images, {texts.over_text(n)}",
    )
    head, rows = texts.budget_rows(found)
    say(texts.budget_text(found))
    if rows:
        say_table(head, rows)
    if len(found.costs) > 1:
        say(texts.overthinking_text(found))
    say(texts.oracle_text(found))
    say(texts.teachers_text(found))
    say(f"The test images were read. Page: {page}")
