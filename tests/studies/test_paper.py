"""The paper's figures as data: counted, compared with each other, and asked their own sentences."""

import pytest

from studies.experiments import EXPERIMENTS
from studies.paper import Printed, paper
from studies.statements import ON_MEANS, ON_RUNS, statements_of
from trainers.config import TrialConfig
from trainers.costs import costs

MULTI_EXIT = ("branchynet", "byot", "dks", "eed", "mate")


def count(table: str) -> int:
    rows = paper().tables[table].values()
    return sum(cell is not None for row in rows for column in row.values() for cell in column)


def means(table: str):
    return {
        row: {key: [cell and cell.mean for cell in column] for key, column in columns.items()}
        for row, columns in paper().tables[table].items()
    }


def said(table: str, check: str) -> str:
    return ON_MEANS[check](means(table))


def test_every_cell_is_there():
    assert sum(len(row.mflops) for row in paper().costs) == 20
    # six networks, five methods at four exits and the baseline at one
    assert count("table2") == count("table3") == 6 * (5 * 4 + 1)
    assert [count(f"table{i}") for i in (4, 5, 6, 7)] == [15, 12, 8, 30]
    assert len(paper().budgets) == 6 and paper().budgets[-1] == pytest.approx(19.3e6)


@pytest.mark.parametrize(
    ("table", "row", "column", "place", "mean", "std"),
    [
        ("table2", "vgg16", "mate", 0, 70.79, 0.08),
        ("table2", "wrn_50_2", "branchynet", 0, 78.96, 1.03),
        ("table2", "densenet121", "baseline", 3, 82.24, 0.24),
        ("table3", "resnext50", "mate", 1, 60.38, 0.16),
        ("table3", "wrn_50_2", "eed", 3, 62.36, 0.31),
        ("table4", "vgg16", "byot", 2, -0.59, 0.61),
        ("table4", "vgg16", "mate", 3, 0.94, 0.71),
        ("table5", "vgg16", "optimal", 3, 77.78, 0.12),
        ("table6", "vgg16", "mate_primary", 0, 70.37, 0.48),
        ("table7", "msdnet", "dks", 1, 88.38, None),
        ("fig5", "fgvc_aircraft", "baseline", 3, 73.68, None),
    ],
)
def test_cells_are_as_printed(table, row, column, place, mean, std):
    assert paper().column(table, row, column)[place] == Printed(mean, std)


def test_what_the_paper_has_not_is_empty():
    assert paper().column("table2", "vgg16", "baseline")[:3] == (None, None, None)
    assert paper().column("table4", "vgg16", "byot")[3] is None
    assert paper().column("table2", "cnn4", "mate") == ()


def test_what_is_printed_twice_is_the_same():
    default = paper().column("table2", "vgg16", "mate")
    assert paper().column("table5", "vgg16", "alpha_3") == default
    assert paper().column("table6", "vgg16", "mate") == default


@pytest.mark.parametrize("cost", paper().costs, ids=lambda cost: f"{cost.backbone}-{cost.side}")
def test_table_1_is_what_we_count(cost):
    dataset = "cifar100" if cost.side == 32 else "stanford_dogs"
    ours = costs(TrialConfig(dataset=dataset, backbone=cost.backbone))
    assert [f"{one.flops / 1e6:.2f}" for one in ours] == list(cost.mflops)


def test_the_papers_sentences_about_table_2_come_out_of_table_2():
    assert "in 23 of 24 cells" in said("table2", "mate_best")  # EED leads at WRN-50-2's exit 3
    assert "in 6 of 6 cells" in said("table2", "byot_last")
    assert said("table2", "dks_second").endswith("exit: 1, 2, 3, 4.")
    assert "in 6 of 6 cells" in said("table2", "eed_first")
    assert "on wrn_14_4" in said("table2", "shallower_wins")


def test_those_about_table_3_come_out_of_it_but_one():
    assert "in 24 of 24 cells" in said("table3", "mate_best")
    assert "in 6 of 6 cells" in said("table3", "baseline_worst")
    # "BranchyNet performs worst among all multi-exit methods" holds in 19 of its 24 cells
    assert "in 19 of 24 cells" in said("table3", "branchynet_worst")


def test_gains_over_branchynet_are_largest_at_the_shallow_exit():
    for table in ("table2", "table3"):
        gains = [
            sum(row["mate"][i] - row["branchynet"][i] for row in means(table).values()) / 6
            for i in range(4)
        ]
        assert gains[0] == max(gains)
        assert f"{gains[0]:+.2f} at exit 1" in said(table, "mate_best")


def test_the_ablations_come_out_of_their_tables():
    assert "at 4 of 4 exits" in said("table5", "diverse_worse")
    assert "at 4 of 4 exits" in said("table6", "primary_worse")
    stds = {k: [c and c.std for c in v] for k, v in paper().tables["table4"]["vgg16"].items()}
    for i in range(4):
        assert stds["mate"][i] == min(s[i] for s in stds.values() if s[i] is not None)
    for i in range(6):
        budget = {k: v[i].mean for k, v in paper().tables["table7"]["msdnet"].items()}
        assert max(budget, key=budget.get) == "mate"


def test_every_statement_has_an_experiment_and_a_check():
    for statement in paper().statements:
        assert statement.experiment in EXPERIMENTS
        if statement.experiment != "cost":
            assert statement.check in ON_MEANS.keys() | ON_RUNS.keys()
    assert {s.experiment for s in paper().statements} >= EXPERIMENTS.keys() - {
        "table1",
        "fig6",
        "recipe",
    }
    assert [s.check for s in statements_of("cost")] == ["gate_time", "mate_dearest"]
