"""The report and the dashboard in a real browser: figures drawn, nothing thrown, nothing run.

Screenshots are left in the folder that AUTOMATE_SCREENSHOTS names, if it is set.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from studies.dashboard import front_study_name
from studies.evaluate import evaluate
from studies.evaluation_sections import write_evaluation
from studies.export import write_config
from studies.final import train_finals
from studies.record import StudyRecord
from studies.report import report_page, write_report
from tests.studies import chromium, made_up
from tests.studies.chromium import Tab, until
from trainers.config import TrialConfig

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium.found() is None, reason="Chromium is not installed"),
]
DRAWN = 'document.querySelectorAll(".js-plotly-plot .main-svg").length'
SERVE = """
import sys
from pathlib import Path
from studies.dashboard import serve
from studies.record import StudyRecord
serve(StudyRecord.open(sys.argv[1], runs=Path(sys.argv[2])), port=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium.opened(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    plan = made_up.plan(trials=12, base={"epochs": 12}, grace=4)
    runs = tmp_path_factory.mktemp("runs")
    return made_up.search(StudyRecord.create_or_open(plan, runs=runs))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("AUTOMATE_SCREENSHOTS", tmp_path))


def show(tab: Tab, path: Path, *, width: int = 1280, dark: bool = False) -> None:
    """Opens a report in a window of that width and as high as the page."""
    tab.exceptions.clear()
    tab.size(width, 900, dark)
    tab.open(path.as_uri())
    plots = tab.evaluate('document.querySelectorAll(".plot").length')
    assert plots > 0
    done = 'document.querySelectorAll(".plot.js-plotly-plot .main-svg .plotbg, .plot .annotation")'
    until(lambda: tab.evaluate(f"{done}.length") >= plots)
    tab.size(width, tab.evaluate("document.documentElement.scrollHeight"), dark)


def test_the_report_draws_every_figure(tab: Tab, record: StudyRecord, pictures: Path) -> None:
    path = write_report([record], record.folder / "report.html")
    for name, width, dark in (("light", 1280, False), ("dark", 1280, True), ("small", 400, False)):
        show(tab, path, width=width, dark=dark)
        plots = tab.evaluate('document.querySelectorAll(".plot").length')
        drawn = tab.evaluate('document.querySelectorAll(".plot.js-plotly-plot").length')
        assert drawn == plots > 8
        assert tab.evaluate('document.querySelectorAll("#front .scatterlayer .point").length') > 8
        legend = tab.evaluate('document.querySelector("#front .plot").textContent')
        assert "envelope: may need a different network for each point" in legend
        assert "the paper's default: trial 0" in legend
        assert tab.evaluate('document.querySelectorAll("#mix .heatmaplayer image").length') > 3
        # only what is meant to scroll sideways does
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate('performance.getEntriesByType("resource").length') == 0
        assert tab.exceptions == []
        picture = tab.picture(pictures / f"report-{name}.png")
        assert picture.stat().st_size > 50_000


def test_the_report_follows_the_colour_scheme(tab: Tab, record: StudyRecord) -> None:
    show(tab, write_report([record], record.folder / "report.html"))
    colour = 'getComputedStyle(document.querySelector("#front .xtick text")).fill'
    light = tab.evaluate(colour)
    tab.size(1280, 900, dark=True)
    until(lambda: tab.evaluate(colour) != light)
    assert tab.exceptions == []


def test_hostile_names_run_nothing(tab: Tab, tmp_path: Path, pictures: Path) -> None:
    nasty = "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'>"
    plan = made_up.plan(trials=4, study="hostile", space=f"./{nasty}", base={"epochs": 3}, grace=1)
    view = made_up.view(plan, params=lambda rng, m: {nasty: rng.uniform(1, 9), "choice": nasty})
    path = tmp_path / "hostile.html"
    path.write_text(report_page([view, view]), encoding="utf-8")
    show(tab, path)
    hover = """
        for (const plot of document.querySelectorAll(".plot")) {
            const n = plot.data.findIndex((t) => t.hovertemplate && t.type !== "heatmap");
            if (n >= 0) Plotly.Fx.hover(plot, [{ curveNumber: n, pointNumber: 0 }]);
        }
    """
    tab.evaluate(hover)
    until(lambda: tab.evaluate('document.querySelectorAll(".hoverlayer .hovertext").length') > 4)
    assert tab.evaluate("window.hit === undefined")
    assert tab.evaluate('document.querySelectorAll("img").length') == 0
    assert tab.exceptions == []
    tab.picture(pictures / "report-hostile.png")


def test_an_evaluation_draws_every_figure(tab: Tab, tmp_path: Path, pictures: Path) -> None:
    write_config(tmp_path / "1.yaml", TrialConfig(epochs=6), {"study": "digits"})
    folder = train_finals(tmp_path / "1.yaml", seeds=2, threads=1).folder
    path = write_evaluation(evaluate(folder))
    for name, width, dark in (("light", 1280, False), ("dark", 1280, True), ("small", 400, False)):
        show(tab, path, width=width, dark=dark)
        drawn = tab.evaluate('document.querySelectorAll(".plot.js-plotly-plot").length')
        assert drawn == 4
        legend = tab.evaluate('document.querySelector("#cost .plot").textContent')
        assert "budget: each image leaves when confident" in legend
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate('performance.getEntriesByType("resource").length') == 0
        assert tab.exceptions == []
        tab.picture(pictures / f"evaluation-{name}.png")


@pytest.fixture(scope="module")
def dashboard(record: StudyRecord) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [record.name, str(record.folder.parent), str(port)]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert server.poll() is None, "the dashboard ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def test_the_dashboard_shows_our_front(
    tab: Tab, dashboard: str, record: StudyRecord, pictures: Path
) -> None:
    with urlopen(f"{dashboard}/api/studies", timeout=60) as answer:
        studies = {s["study_name"]: s["study_id"] for s in json.load(answer)["study_summaries"]}
    front = front_study_name(record.name)
    assert set(studies) == {record.name, front}
    tab.exceptions.clear()

    tab.size(1280, 1900)
    tab.open(f"{dashboard}/dashboard/studies/{studies[record.name]}")
    titles = '[...document.querySelectorAll(".gtitle")].map((title) => title.textContent)'
    until(lambda: f"Front of {record.name}" in tab.evaluate(titles))
    assert tab.evaluate(DRAWN) > 3
    assert tab.exceptions == []
    tab.picture(pictures / "dashboard-study.png")

    tab.open(f"{dashboard}/dashboard/studies/{studies[front]}")
    until(lambda: "Pareto Front" in tab.evaluate("document.body.textContent"))
    points = 'document.querySelectorAll(".scatterlayer .point").length'
    until(lambda: tab.evaluate(points) >= 12)
    text = tab.evaluate("document.body.textContent")
    assert "FLOPs" in text
    assert "accuracy" in text
    assert tab.exceptions == []
    tab.picture(pictures / "dashboard-front.png")

    best = record.study.best_trial.number
    tab.open(f"{dashboard}/dashboard/studies/{studies[record.name]}/trials?numbers={best}")
    until(lambda: "n = 1, unconfirmed" in tab.evaluate("document.body.textContent"))
    assert tab.exceptions == []
    tab.picture(pictures / "dashboard-note.png")
