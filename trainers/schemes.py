"""The teacher schemes, one line a method: who composes the teachers and who learns from whom.

M exits, shallow first; N teachers. A scheme is three small matrices:

    mix (N, M)   how the exits compose each teacher; rows sum to one; or the name of a weight
                 network of `trainers.teachers` that learns it
    W (M, N)     how much exit i learns from teacher j
    V (M, N)     how much teacher j learns from exit i, where a network learns the mix; W in general
    c (N,)       how much teacher j itself learns from the labels

Torch-free, so that listings and validation need no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainers.catalog import unknown

Matrix = list[list[float]]


def _eye(m: int) -> Matrix:
    return [[float(i == j) for j in range(m)] for i in range(m)]


def _full(rows: int, columns: int, value: float) -> Matrix:
    return [[value] * columns for _ in range(rows)]


def _eye_of(alpha: Sequence[float]) -> Matrix:
    return _eye(len(alpha))


def _one_plus_diagonal(alpha: Sequence[float]) -> Matrix:
    """W = 1 + diag(α) of Eq. 6: from every teacher, and α_i more from the primary one."""
    return [
        [1.0 + (alpha[i] if i == j else 0.0) for j in range(len(alpha))] for i in range(len(alpha))
    ]


def _only_primary(alpha: Sequence[float]) -> Matrix:
    """W = diag(1 + α): from the primary teacher alone (Table 6)."""
    return [
        [1.0 + alpha[i] if i == j else 0.0 for j in range(len(alpha))] for i in range(len(alpha))
    ]


def _fixed_optimum(alpha: Sequence[float]) -> Matrix:
    """Row j: V_ij / Σ_i V_ij of V = 1 + diag(α), the mix that minimises teacher j's loss, Eq. 7."""
    m = len(alpha)
    return [[(1.0 + alpha[j] * (i == j)) / (m + alpha[j]) for i in range(m)] for j in range(m)]


@dataclass(frozen=True)
class Scheme:
    """One row of the table.

    Attributes:
        title: One line for listings, with the source.
        mix: α -> (N, M) as nested lists, or the name of a weight network ("attention", "gates",
            "gate", "peers"). α has one value per exit.
        weights: α -> W (M, N).
        labels: c, the same for each teacher.
        teacher_weights: α' -> V (M, N), where it is another function than W's.
        alpha: Whether α is read.
        anneals: Whether T grows by itself, from 1 (DBT); then the config's T is not read.
        multi_exit: False for the one-exit reference network.
    """

    title: str
    mix: Callable[[Sequence[float]], Matrix] | str
    weights: Callable[[Sequence[float]], Matrix]
    labels: float = 0.0
    teacher_weights: Callable[[Sequence[float]], Matrix] | None = None
    alpha: bool = False
    anneals: bool = False
    multi_exit: bool = True

    @property
    def learned(self) -> bool:
        """Whether a weight network learns the mix."""
        return isinstance(self.mix, str)

    @property
    def teaches(self) -> bool:
        """Whether there is any teacher, so that T and kd_weight are read."""
        return bool(self.weights([0.0, 0.0])[0])


SCHEMES: dict[str, Scheme] = {
    "baseline": Scheme(
        "the backbone alone, one exit (a reference run, no member of a space)",
        lambda a: [], lambda a: [[] for _ in a], multi_exit=False,
    ),
    "branchynet": Scheme(
        "cross-entropy at every exit (Eq. 2; Teerapittayanon et al. 2016)",
        lambda a: [], lambda a: [[] for _ in a],
    ),
    "byot": Scheme(
        "the deepest exit teaches the others (Zhang LF et al. 2019)",
        lambda a: _eye(len(a))[-1:], lambda a: [[1.0]] * (len(a) - 1) + [[0.0]],
    ),
    "dbt": Scheme(
        "byot, T grows from 1 as the teacher gets sure (Phuong & Lampert 2019)",
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
        "attention mixes a teacher for each exit but the deepest, which learns from their mean "
        "(Chen et al. 2020)",
        "peers", _eye_of,
    ),
    "mate": Scheme(
        "a teacher per exit, mixed by attention (Eqs. 4 to 9; Sun et al. 2024)",
        "attention", _one_plus_diagonal, alpha=True,
    ),
    "mate_primary": Scheme(
        "mate, but each exit learns from its primary teacher alone, weight 1 + alpha (Table 6)",
        "attention", _only_primary, teacher_weights=_one_plus_diagonal, alpha=True,
    ),
    "mate_gate": Scheme(
        "a teacher per exit, mixed by gates (Section 4.7.5)",
        "gates", _one_plus_diagonal, alpha=True,
    ),
    "mate_fixed": Scheme(
        "a teacher per exit, at the mix that minimises Eq. 7 (a control of ours, nothing learned)",
        _fixed_optimum, _one_plus_diagonal, alpha=True,
    ),
}  # fmt: skip


def scheme_named(name: str) -> Scheme:
    """The row of the table.

    Raises:
        InputError: Unknown name; the known ones and the nearest are listed.
    """
    if name not in SCHEMES:
        raise unknown("scheme", name, SCHEMES)
    return SCHEMES[name]


def matched_kd_weight(alpha: float, exits: int) -> float:
    """λ' = M (1 + α / (M + α)): the kd_weight at which EED pulls as hard as MATE does.

    At the mix that minimises Eq. 7 the students' gradient of MATE is close to λ' times EED's: 4 at
    α = 0, 5.7 at 3 and toward 8 for four exits.

    Args:
        alpha: α of MATE, one value for all exits.
        exits: M.
    """
    return exits * (1 + alpha / (exits + alpha))
