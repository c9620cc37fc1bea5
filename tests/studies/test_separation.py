"""Whether an experiment separates its methods, on made-up runs."""

from studies.measured import measure
from studies.separation import separation, separation_parts, separation_text
from tests.studies.made_up_experiments import view


def test_made_up_noise_is_called_no_difference():
    one = measure(view("table2"))
    found = separation(one)
    assert "BranchyNet" not in found and "Baseline" not in found
    assert {"MATE", "BYOT", "EED at MATE's strength"} <= found.keys()
    assert not any(item.separated for item in found.values())
    text = separation_text(one)
    assert "corrected for 6 comparisons: no difference at this number of seeds" in text
    assert "would need about" in text


def test_one_seed_or_no_branchynet_says_nothing():
    assert separation_text(measure(view("table2", seeds=1))) == ""
    assert separation_text(measure(view("table2", only=("mate", "byot")))) == ""
    assert separation_parts([measure(view("table2", seeds=1))]) == []


def test_the_report_has_a_row_a_method():
    sentence, rows, note = separation_parts([measure(view("table2"))])
    assert "no difference" in str(sentence)
    assert str(rows).count("<tr") == 1 + 6
    assert "Dunnett" in str(note)
