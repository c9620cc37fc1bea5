"""What the paper prints: Tables 1 to 7 and its sentences about the figures, from `paper.toml`.

Sun et al., "Multi-exit self-distillation with appropriate teachers", FITEE 2024. Of the figures
only what the text says is here: no point of a curve is printed, and none is invented.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Printed:
    """A figure as the paper prints it.

    Attributes:
        mean: In %, or in points of accuracy (Table 4).
        std: Over three runs (Table 4: over epochs); None where the paper gives none.
    """

    mean: float
    std: float | None = None

    @classmethod
    def read(cls, text: str) -> Printed | None:
        """From "69.43±0.27" or "57.64"; None of "", the paper's dash."""
        if not text:
            return None
        mean, _, std = text.partition("±")
        return cls(float(mean), float(std) if std else None)


Column = tuple[Printed | None, ...]


@dataclass(frozen=True)
class Cost:
    """A row of Table 1.

    Attributes:
        side: Of the input, pixels.
        backbone: By our name.
        mflops: Of exits 1 to 4, millions, as printed.
    """

    side: int
    backbone: str
    mflops: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """A sentence of the paper about one of its experiments.

    Attributes:
        experiment: The table or figure.
        section: Where the sentence stands.
        text: Of the sentence.
        check: Name of the function of `studies.statements` that says how ours stand beside it.
    """

    experiment: str
    section: str
    text: str
    check: str


@dataclass(frozen=True)
class Paper:
    """All of it.

    Attributes:
        recipe: Settings of every run, and by data set its epochs and batch size.
        costs: Table 1.
        tables: Table or figure -> network (of fig5 data set) -> column -> a figure an exit
            (of table7 a figure a budget).
        budgets: The FLOPs of Table 7.
        statements: In the paper's order.
    """

    recipe: dict[str, Any]
    costs: tuple[Cost, ...]
    tables: dict[str, dict[str, dict[str, Column]]]
    budgets: tuple[float, ...]
    statements: tuple[Statement, ...]

    def column(self, table: str, row: str, name: str) -> Column:
        """A column of a table, one figure an exit; empty where the paper has none."""
        return self.tables.get(table, {}).get(row, {}).get(name, ())


@cache
def paper() -> Paper:
    """The paper's figures, read once."""
    found = tomllib.loads(files("studies").joinpath("paper.toml").read_text(encoding="utf-8"))
    costs = tuple(
        Cost(row["side"], row["backbone"], tuple(row["mflops"])) for row in found.pop("table1")
    )
    statements = tuple(Statement(**fields) for fields in found.pop("statements"))
    recipe = found.pop("recipe")
    budgets = tuple(1e6 * value for value in found["table7"]["msdnet"].pop("mflops"))
    tables = {
        table: {
            row: {name: tuple(map(Printed.read, column)) for name, column in columns.items()}
            for row, columns in rows.items()
        }
        for table, rows in found.items()
    }
    return Paper(recipe, costs, tables, budgets, statements)
