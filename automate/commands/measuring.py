"""`automate evaluate`: what is measured of networks, beyond a search."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from automate import flags
from automate.printing import say, say_json, say_table


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
        Parameter(help="Where the data set lies [default: where it lay in training]."),
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

    found = evaluation.evaluate(
        run, budgets=budgets, data_root=data_root, device=device, threads=threads
    )
    page = texts.write_evaluation(found, out)
    if json:
        say_json({**found.as_json(), "page": page})
        return
    config, n = found.config, len(found.runs)
    say(f"{run}: {config.backbone} on {config.dataset}, {config.scheme}, {config.epochs} epochs")
    say_table(
        texts.EXIT_HEAD,
        texts.exit_rows(found),
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
