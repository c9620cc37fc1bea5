"""One teacher scheme in words and as JSON: its matrices at the α and the exits of a config."""

from typing import Any

from automate.printing import say, say_table
from trainers.catalog import last_part
from trainers.config import TrialConfig
from trainers.schemes import scheme_named


def scheme_json(config: TrialConfig) -> dict[str, Any]:
    """The scheme of a config: `weights` W (M, N), `teacher_weights` V (M, N), `mix` (N, M).

    Where a weight network learns the mix, it is the one that minimises the teachers' distillation.

    Raises:
        InputError: A weight network in a user's file that does not work.
    """
    scheme = scheme_named(config.scheme)
    alpha, alpha_teacher = config.alpha_per_exit(), config.alpha_teacher_per_exit()
    if isinstance(scheme.mix, type):
        from trainers.teachers import Teachers  # torch, which no other scheme is shown with

        Teachers(config, features=128)
    fixed = None if isinstance(scheme.mix, str | type) else scheme.mix(alpha_teacher)
    return {
        "name": config.scheme,
        "title": scheme.title,
        "network": getattr(scheme.mix, "__name__", scheme.mix) if scheme.learned else None,
        "reads": list(scheme.reads),
        "alpha": list(alpha) if scheme.alpha else None,
        "weights": scheme.weights(alpha),
        "teacher_weights": scheme.of_teachers(alpha_teacher),
        "labels": scheme.labels,
        "mix": scheme.best_mix(alpha_teacher) if fixed is None else fixed,
    }


def say_scheme(config: TrialConfig) -> None:
    """Prints it. Raises InputError as `scheme_json` does."""
    shown = scheme_json(config)
    say(f"{last_part(shown['name'])}: {shown['title']}", style="bold")
    say(f"reads {', '.join(shown['reads'])}")
    if not shown["mix"]:
        say("nobody teaches: there are no matrices")
        return
    values = " ".join(f"{value:g}" for value in config.alpha)
    at = f", at alpha {values}" if shown["alpha"] else ""
    network, title = shown["network"], "mix (Eq. 5): what each teacher takes from each exit"
    if network:
        say(
            f"{network} learns the mix, for each image another; the one below has the least "
            "distillation loss of the teachers (Eq. 7)"
        )
    if shown["labels"]:
        say(f"each teacher learns the labels too, with weight {shown['labels']:g}")
    _say_matrix(f"{title}{at}", "teacher", "exit", shown["mix"])
    title = "W (Eq. 6): how much each exit learns from each teacher"
    _say_matrix(f"{title}{at}", "exit", "teacher", shown["weights"])
    if network and shown["teacher_weights"] != shown["weights"]:
        title = "V (Eq. 7): how much each teacher learns from each exit"
        _say_matrix(f"{title}{at}", "exit", "teacher", shown["teacher_weights"])


def _say_matrix(title: str, row: str, column: str, matrix: list[list[float]]) -> None:
    head = ("", *(f"{column} {number}" for number in range(1, len(matrix[0]) + 1)))
    rows = [
        (f"{row} {number}", *(f"{value:.3g}" for value in values))
        for number, values in enumerate(matrix, 1)
    ]
    say_table(head, rows, title=title)
