"""Reports of experiments in a real browser: figures drawn, nothing thrown, nothing too wide."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studies.report import report_page
from tests.studies import chromium
from tests.studies import made_up_experiments as made
from tests.studies.chromium import Tab, until
from trainers.config import TrialConfig

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium.found() is None, reason="Chromium is not installed"),
]
SMALL = TrialConfig(dataset="cifar100", epochs=6)
DRAWN = '[...document.querySelectorAll(".plot")].filter(p => p.querySelector(".trace, image"))'


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium.opened(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.mark.parametrize("name", ["table2", "fig3", "table4", "fig7", "fig10", "table7"])
def test_an_experiments_figures_are_drawn(tab: Tab, tmp_path: Path, name: str) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_page([made.view(name, base=SMALL)]), encoding="utf-8")
    for width, dark in ((1280, False), (1280, True), (400, False)):
        tab.exceptions.clear()
        tab.size(width, 900, dark)
        tab.open(page.as_uri())
        plots = tab.evaluate('document.querySelectorAll(".plot").length')
        assert plots
        until(lambda plots=plots: tab.evaluate(f"{DRAWN}.length") == plots)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.exceptions == []
