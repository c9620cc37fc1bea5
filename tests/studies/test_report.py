"""The report: one file, offline, honest, and closed to what a user can name."""

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from studies import verdict as v
from studies.conclusions import plus_minus
from studies.page import Html, html, table, tag
from studies.record import StudyRecord
from studies.report import report_page, write_report
from studies.view import View, drawn, look
from tests.studies import made_up, made_up_confirmations
from trainers.catalog import InputError

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Parts(HTMLParser):
    """What a browser would see: elements, attributes, the JSON of each figure, the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.figures: list[dict[str, object]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = "json" if ("type", "application/json") in attrs else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "json":
            self.figures.append(json.loads(data))
        elif self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data


def small(**changes) -> View:
    return made_up.view(made_up.plan(trials=6, base={"epochs": 4}, grace=1, **changes))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    plan = made_up.plan(trials=6, base={"epochs": 4}, grace=1)
    runs = tmp_path_factory.mktemp("runs")
    return made_up.search(StudyRecord.create_or_open(plan, runs=runs))


def test_a_report_of_a_real_study_says_what_its_trials_say(record: StudyRecord) -> None:
    path = write_report([record], record.folder / "report.html")
    parts = Parts(path.read_text(encoding="utf-8"))
    outcomes = record.outcomes()
    text = " ".join(parts.text.split())
    assert v.verdict(outcomes, record.plan) in text
    assert v.recommendation(outcomes, record.plan) in text
    assert f"automate export {record.name} --top 3" in text
    assert f"automate train {record.folder / 'best' / '1.yaml'} --seeds 3" in text
    done = v.finished(outcomes)
    assert {"COMPLETE", "PRUNED"} == {outcome.state for outcome in outcomes}
    front = parts.figures[0]
    column = next(trace for trace in front["data"] if trace.get("name") == "exit 1")
    assert len(column["x"]) == len(done)
    assert path == record.folder / "report.html"
    assert not list(record.folder.glob("*.part"))


def test_what_is_read_is_what_is_stored(record: StudyRecord) -> None:
    view = look(record)
    assert [o.number for o in view.outcomes] == list(range(6))
    assert view.log == {"alpha_1", "alpha_2", "alpha_3", "alpha_4"}
    assert view.rungs == [1, 2]
    assert {n: len(reports) for n, reports in view.reports.items()} == {
        o.number: o.epochs for o in view.outcomes
    }
    assert view.saved == sum(4 - o.epochs for o in view.outcomes)
    assert view.saved > 0


@pytest.fixture(scope="module")
def page() -> str:
    return report_page([small()])


def test_the_page_is_one_file_that_needs_no_network(page: str) -> None:
    parts = Parts(page)
    loading = [name for name, _ in parts.attributes if name in ("src", "srcset", "data", "action")]
    assert not loading
    links = [value for name, value in parts.attributes if name == "href"]
    assert links
    assert all(value is not None and value.startswith("#") for value in links)
    assert not {"link", "iframe", "object", "embed", "base", "img"} & set(parts.tags)
    assert page.count(get_plotlyjs()) == 1
    own = page.replace(get_plotlyjs(), "")
    assert not re.search(r"https?://", own)
    assert "@import" not in own
    assert len(own) < 500_000


def test_every_link_has_its_place(page: str) -> None:
    for text in (page, report_page([small(), small(study="other")])):
        parts = Parts(text)
        anchors = [value for name, value in parts.attributes if name == "id"]
        assert len(anchors) == len(set(anchors))
        targets = {value[1:] for name, value in parts.attributes if name == "href" and value}
        assert targets <= set(anchors)


def test_what_a_user_names_cannot_break_out(page: str) -> None:
    folder = f"./{NASTY}"
    base = {"dataset": folder, "classes": 100, "image_size": 32, "epochs": 4}
    plan = made_up.plan(trials=6, study="quiet", space=folder, base=base, grace=1, data_root=NASTY)
    view = made_up.view(
        plan,
        params=lambda rng, m: {
            NASTY: rng.uniform(1, 9),
            "choice": NASTY,
            "alpha": rng.uniform(1, 9),
        },
    )
    broken = made_up.outcome(3, "FAIL", reason=NASTY, params={NASTY: 1.0}, epochs=1)
    view = View(
        plan=plan,
        folder=Path(NASTY),
        outcomes=(*view.outcomes, broken),
        reports=view.reports,
        importances={NASTY: 0.7},
        log=frozenset([NASTY]),
        versions={NASTY: NASTY},
    )
    quiet = Parts(page)
    for views in ([view], [view, view]):
        text = report_page(views)
        parts = Parts(text)
        assert "img" not in parts.tags
        assert not [name for name, _ in parts.attributes if name.startswith("on")]
        assert len(parts.scripts) == len(quiet.scripts) == 2
        assert parts.scripts == quiet.scripts
        assert NASTY in parts.text
        assert text.count("</script>") == 2 + len(parts.figures)


@pytest.mark.parametrize("finish", [0, 1, 2])
def test_a_study_that_has_hardly_begun(finish: int) -> None:
    plan = made_up.plan(trials=5, base={"epochs": 3}, grace=1)
    parts = Parts(report_page([made_up.view(plan, finish=finish)]))
    expected = "nothing can be said yet" if finish == 0 else "So far"
    assert expected in parts.text
    assert "n = 1, unconfirmed" in parts.text or finish == 0


@pytest.mark.parametrize(
    ("objective", "unit"),
    [("anytime", "points"), ("front", "points"), ("front+flops", "hundredths")],
)
def test_the_table_of_the_best_says_over_what_and_in_which_unit(objective, unit) -> None:
    view = small()
    view = replace(view, plan=view.plan.with_(objective=objective))
    page = str(report_page([view]))
    assert f"over the paper&#x27;s default, {unit}</th>" in page.replace("&#39;", "&#x27;")


def test_a_study_without_teachers_has_no_mix() -> None:
    plan = made_up.plan("mine", 3, base={"scheme": "branchynet", "epochs": 3}, grace=1)
    view = made_up.view(plan, params=lambda rng, m: {"lr": float(rng.uniform(0.01, 0.1))})
    parts = Parts(report_page([view]))
    assert "Who composes the teachers" not in parts.text
    assert "plain strength" not in parts.text
    assert "lr against accuracy" in parts.text


def test_a_study_without_parameters() -> None:
    view = made_up.view(made_up.plan("mine", 1, base={"epochs": 2}, grace=1), params=lambda *_: {})
    assert "This study's space has no parameter." in Parts(report_page([view])).text


def test_the_facts_stand_beside_their_figures(page: str) -> None:
    text = Parts(page).text
    assert "λ' = M (1 + α / (M + α)): 4.0 at α = 0, 5.7 at α = 3, 7.5 at α = 30, toward 8" in text
    assert "V_ij / Σ_i V_ij" in text
    assert "from its fixed optimum" in text
    assert "may need a different network for each point" in text


def test_the_page_says_how_the_trials_trained_and_what_they_held(page: str) -> None:
    text = Parts(page).text
    assert "way through a training stepCPU, fast kernels, fp32, 1 thread" in text
    assert "most memory that a trial's process held700 MB" in text


def test_diverged_trials_reach_no_front_and_no_table() -> None:
    view = small()
    last = view.outcomes[1]
    gone = made_up.outcome(
        1, "PRUNED", params=last.params, config=last.config, value=0.01, epochs=2,
        reason="the loss was not finite", report=view.reports[1][0], diverged=True,
    )  # fmt: skip
    outcomes = (view.outcomes[0], gone, *view.outcomes[2:])
    view = View(view.plan, view.folder, outcomes, view.reports)
    parts = Parts(report_page([view]))
    assert "diverged" in parts.text
    front = parts.figures[0]
    assert not any("trial 1," in str(trace.get("text")) for trace in front["data"])
    assert view.saved == sum(
        4 - o.epochs for o in outcomes if o.state == "PRUNED" and not o.diverged
    )


def test_several_studies_lie_beside_each_other(record: StudyRecord, tmp_path: Path) -> None:
    plan = made_up.plan("single_alpha", 3, base={"epochs": 3}, grace=1)
    other = made_up.search(StudyRecord.create_or_open(plan, runs=tmp_path / "runs"))
    path = write_report([record, other], tmp_path / "new" / "both.html")
    parts = Parts(path.read_text(encoding="utf-8"))
    assert record.name in parts.text
    assert other.name in parts.text
    assert "These studies differ in epochs: their accuracies do not compare, so" in parts.text
    assert parts.text.count("Which network to take") == 2


def test_beside_each_other_what_was_confirmed_is_named() -> None:
    views = [made_up.view(made_up.plan("single_alpha", 3, study=name)) for name in ("one", "two")]
    assert "best of one run" not in report_page(views)
    made = made_up_confirmations.confirmation([3.0, 0.0, 0.0, 0.0], seeds=4)
    text = Parts(report_page([replace(views[0], confirmation=made), views[1]])).text
    assert made.judged is not None and made.judged.chosen == 1
    mean = plus_minus(made, made.judged.means[1])
    assert "best of one run" in text and f"trial 11: {mean}" in text and "n = 4" in mean


@pytest.mark.slow
def test_two_hundred_long_trials_stay_a_readable_file() -> None:
    view = made_up.view(made_up.plan(trials=200, base={"epochs": 300}, grace=100))
    own = report_page([view]).replace(get_plotlyjs(), "")
    assert len(own) < 3_000_000


def test_a_report_needs_a_study_and_a_file(record: StudyRecord, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one study"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(InputError, match="is a folder"):
        write_report([record], tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_report([record], tmp_path / "file" / "report.html")


def test_a_report_that_the_disk_does_not_take_leaves_the_older_one_alone(
    record: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report([record], tmp_path / "new" / "report.html")
    older = path.read_bytes()

    def full(*places: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, full)
            with pytest.raises(InputError, match="cannot be written.*No space left"):
                write_report([record], path)
        assert path.read_bytes() == older and list(path.parent.iterdir()) == [path]


def test_parts_of_a_page_escape_text_and_keep_html() -> None:
    assert html("<b>") == "&lt;b&gt;"
    assert html(Html("<b>")) == "<b>"
    assert tag("p", "a<b", Html("<i>"), class_='x"y') == '<p class="x&quot;y">a&lt;b<i></p>'
    made = table(["<h>"], [["<c>", "1.5"], ["", "−2"]], marked=[1])
    assert "&lt;h&gt;" in made
    assert "&lt;c&gt;" in made
    assert made.count('class="number"') == 2
    assert made.count('class="marked"') == 1


def test_figures_of_a_long_study_draw_what_stands_out(monkeypatch) -> None:
    long = made_up.view(made_up.plan(trials=40, base={"epochs": 6}, grace=2))
    few = drawn(long.outcomes, 20)
    numbers = {outcome.number for outcome in few}
    values = [(o.value, o.number) for o in v.finished(long.outcomes)]
    assert {v.recommended(long.outcomes).number, v.reference(long.outcomes).number} <= numbers
    assert max(values)[1] in numbers
    assert len(few) < 30 < len(drawn(long.outcomes))
    some = replace(long, reports={o.number: long.reports[o.number] for o in few})
    with monkeypatch.context() as patch:
        patch.setattr("studies.view.drawn", lambda outcomes: few)
        text = report_page([some])
    assert f"The figures draw {len(few)} of the 40 trials" in text
    assert "estimated from" in text
    assert "The figures draw" not in report_page([made_up.view(made_up.plan(trials=8))])
