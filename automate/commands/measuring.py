"""`automate profile`: what the exits of a network take on this machine."""

from dataclasses import asdict
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
    configs = [configs_for(name, dataset, width)[0] for name in backbones]
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
