"""The teacher schemes, one line a method: who composes the teachers and who learns from whom.

M exits, shallow first; N teachers. A scheme is a few small matrices:

    mix (N, M)   how the exits compose each teacher; rows sum to one; or the name of a weight
                 network of `trainers.teachers` that learns it
    W (M, N)     how much exit i learns from teacher j (Eq. 6)
    V (M, N)     how much teacher j learns from exit i (Eq. 7); W at the teachers' own α' as a rule
    c (N,)       how much teacher j itself learns from the labels

Torch-free, so that listings and validation need no torch.

A user's own scheme is a Python file with a line `SCHEME = Scheme(...)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from pathlib import Path

from trainers.catalog import InputError, is_path, unknown
from trainers.own import missing, run_file
from trainers.own_schemes import check_parts

Matrix = list[list[float]]


def _eye(m: int) -> Matrix:
    return [[float(i == j) for j in range(m)] for i in range(m)]


def _full(rows: int, columns: int, value: float) -> Matrix:
    return [[value] * columns for _ in range(rows)]


def _one_plus_diagonal(alpha: Sequence[float]) -> Matrix:
    """W = 1 + diag(α) of Eq. 6: from every teacher, and α_i more from the primary one."""
    return [
        [1.0 + (alpha[i] if i == j else 0.0) for j in range(len(alpha))] for i in range(len(alpha))
    ]


def _primary_only(alpha: Sequence[float]) -> Matrix:
    """diag(1 + α): what is left of W = 1 + diag(α) when an exit learns from its own teacher alone.

    The paper changes Eq. 6 only, so the teachers keep their whole sum V = 1 + diag(α'). What the
    primary teacher then weighs it does not say, α or 1 + α: with `alpha` 2 and `alpha_teacher` 3 it
    is 3, with `alpha` 3 it is 4.
    """
    return [[(1.0 + a) * (i == j) for j in range(len(alpha))] for i, a in enumerate(alpha)]


def _peers_copied(alpha: Sequence[float]) -> Matrix:
    """Each peer its own teacher, and the peers' mean for the last exit: no divergence is left."""
    m = len(alpha)
    return _eye(m)[:-1] + [[1 / (m - 1)] * (m - 1) + [0.0]]


def _fixed_optimum(alpha: Sequence[float]) -> Matrix:
    """Row j: V_ij / Σ_i V_ij of V = 1 + diag(α), the mix that minimises teacher j's loss, Eq. 7."""
    m = len(alpha)
    return [[(1.0 + alpha[j] * (i == j)) / (m + alpha[j]) for i in range(m)] for j in range(m)]


@dataclass(frozen=True)
class Scheme:
    """One row of the table.

    Attributes:
        title: One line for listings, with the source.
        mix: α' -> (N, M) as nested lists, or a weight network that learns it: the name of one
            ("attention", "peers", "gates", "gate"), or, in a user's file, a class of
            torch.nn.Module. That is built as (M, C, N, config) and gives, of features (M, B, C),
            the mix (B, N, M) in float32, whose rows sum to one. α and α' have one value per exit.
        weights: α -> W (M, N), the students' side.
        teacher_weights: α' -> V (M, N), the teachers' side; None where it is `weights` of α'.
        best: α' -> the mix (N, M) that minimises the teachers' distillation; None where it is
            V_ij / Σ_i V_ij, as it is wherever every exit may compose every teacher.
        labels: c, how much each teacher learns from the labels; read where it learns at all.
        alpha: Whether α and α' are read.
        anneals: Whether T anneals itself instead of being read.
        least_exits: How many exits it needs.
        teaches: Whether there is any teacher, so that the settings of the distillation are read.
        multi_exit: False for the one-exit reference network.
    """

    title: str
    mix: Callable[[Sequence[float]], Matrix] | str
    weights: Callable[[Sequence[float]], Matrix]
    _: KW_ONLY
    teacher_weights: Callable[[Sequence[float]], Matrix] | None = None
    best: Callable[[Sequence[float]], Matrix] | None = None
    labels: float = 0.0
    alpha: bool = False
    anneals: bool = False
    least_exits: int = 1
    teaches: bool = True
    multi_exit: bool = True

    @property
    def learned(self) -> bool:
        """Whether a weight network learns the mix."""
        return isinstance(self.mix, str | type)

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of TrialConfig about exits and teachers that change a run of this scheme.

        One test holds this list to what the loss does: no other of these fields changes anything.
        """
        names = ["alpha", "alpha_teacher"] if self.alpha else []
        if self.teaches:
            names += [] if self.anneals else ["temperature", "temperatures"]
            names += ["kd_weight", "t_squared", "kl", "ramp_up", "attached"]
        own = isinstance(self.mix, type)  # it has the config: what it reads is not known
        if own or self.mix in ("attention", "peers"):
            names += ["mix_width", "mix_scale"]
        if own or self.mix == "gates":
            names += ["gate_input"]
        if self.learned:
            names += ["mix_init", "mix_lr"]
        return (*names, "exit_weights")

    def of_teachers(self, alpha_teacher: Sequence[float]) -> Matrix:
        """V (M, N) of Eq. 7: how much teacher j learns from exit i."""
        return (self.teacher_weights or self.weights)(alpha_teacher)

    def symmetric(self, alpha: Sequence[float], alpha_teacher: Sequence[float]) -> bool:
        """Whether W = V: students and teachers weigh each pair alike."""
        sides = self.weights(alpha), self.of_teachers(alpha_teacher)
        w, v = ([[float(value) for value in row] for row in side] for side in sides)
        return w == v

    def best_mix(self, alpha_teacher: Sequence[float]) -> Matrix:
        """The mix (N, M) that minimises Σ_i V_ij KL(ẑ_j ‖ z_i), for every image and T."""
        if self.best is not None:
            return self.best(alpha_teacher)
        columns = list(zip(*self.of_teachers(alpha_teacher), strict=True))
        return [[value / sum(column) for value in column] for column in columns]


SCHEMES: dict[str, Scheme] = {
    "baseline": Scheme(
        "the backbone alone, one exit (a reference run, no member of a space)",
        lambda a: [], lambda a: [[] for _ in a], teaches=False, multi_exit=False,
    ),
    "branchynet": Scheme(
        "cross-entropy at every exit (Eq. 2; Teerapittayanon et al. 2016)",
        lambda a: [], lambda a: [[] for _ in a], teaches=False,
    ),
    "byot": Scheme(
        "the deepest exit teaches the others (Zhang LF et al. 2019)",
        lambda a: _eye(len(a))[-1:], lambda a: [[1.0]] * (len(a) - 1) + [[0.0]],
    ),
    "dbt": Scheme(
        "as byot; T begins at 1 and grows while its teacher is sure (Phuong & Lampert 2019)",
        lambda a: _eye(len(a))[-1:], lambda a: [[1.0]] * (len(a) - 1) + [[0.0]], anneals=True,
    ),
    "dks": Scheme(
        "every other exit teaches each exit (Sun et al. 2019)",
        lambda a: _eye(len(a)), lambda a: [[1.0 - v for v in row] for row in _eye(len(a))],
    ),
    "eed": Scheme(
        "the mean of all exits teaches every exit (Lee & Lee 2021)",
        lambda a: _full(1, len(a), 1 / len(a)), lambda a: _full(len(a), 1, 1.0),
    ),
    "one": Scheme(
        "one learned gate mixes one teacher, which learns the labels too (Lan et al. 2018)",
        "gate", lambda a: _full(len(a), 1, 1.0), labels=1.0,
    ),
    "okddip": Scheme(
        "attention over the peers mixes each peer's teacher; the last exit learns from their mean "
        "(Chen et al. 2020)",
        "peers", lambda a: _eye(len(a)), best=_peers_copied, least_exits=2,
    ),
    "mate": Scheme(
        "a teacher per exit, mixed by attention (Eqs. 4 to 9; Sun et al. 2024)",
        "attention", _one_plus_diagonal, alpha=True,
    ),
    "mate_gate": Scheme(
        "a teacher per exit, mixed by gates (Section 4.7.5)",
        "gates", _one_plus_diagonal, alpha=True,
    ),
    "mate_primary": Scheme(
        "mate without diverse teachers: an exit has its own alone, weight 1 + alpha (Table 6)",
        "attention", _primary_only, teacher_weights=_one_plus_diagonal, alpha=True,
    ),
    "mate_fixed": Scheme(
        "a teacher per exit, at the mix that minimises Eq. 7 (a control of ours, nothing learned)",
        _fixed_optimum, _one_plus_diagonal, alpha=True,
    ),
}  # fmt: skip


OWN = "own"  # a user's scheme among those that a space compares, wherever its file lies


def scheme_named(name: str) -> Scheme:
    """The row of the table, or what a user's file has as its `SCHEME` (which is run).

    Raises:
        InputError: Unknown name; the known ones and the nearest are listed. No such file, one that
            cannot be run, or one without a scheme.
    """
    if name in SCHEMES:
        return SCHEMES[name]
    if not is_path(name):
        raise unknown("scheme", name, SCHEMES, "or a path to a .py file")
    if not Path(name).is_file():
        raise missing("scheme", name)
    return _in_file(name, Path(name).read_bytes())


@lru_cache(maxsize=16)  # a study asks of one file thousands of times
def _in_file(name: str, content: bytes) -> Scheme:
    found = getattr(run_file("scheme", name), "SCHEME", None)
    if not isinstance(found, Scheme):
        raise InputError(
            f"scheme file {name!r} needs a line SCHEME = Scheme(title, mix, weights), with "
            'Scheme from trainers.schemes (README, "Your own data, network, scheme and space")'
        )
    check_parts(name, found)
    return found


def choices(scheme: str) -> dict[str, str]:
    """The schemes that a space compares, as its trials name them: all that have exits to teach,
    and as `own` a user's.

    Args:
        scheme: Of the base, which is among them if it is a user's file.
    """
    names = {name: name for name, one in SCHEMES.items() if one.multi_exit}
    return {**names, OWN: scheme} if is_path(scheme) else names


def matched_kd_weight(alpha: float, exits: int) -> float:
    """λ' = M (1 + α / (M + α)): the kd_weight at which EED pulls about as hard as MATE does.

    At the mix that minimises its teachers' loss MATE's gradient to the exits is close to λ' times
    EED's (equal where the exits agree): 4 at α = 0 with 4 exits, 5.7 at 3, toward 8.

    Args:
        alpha: α, one for all exits.
        exits: M.
    """
    return exits * (1 + alpha / (exits + alpha))
