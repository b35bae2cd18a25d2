"""The page in a headless Chromium, if there is one: it loads, filters, sorts and shows values."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import rankscope as rs
from rankscope import plots
from rankscope.report import page
from rankscope.results.columns import METRICS_FILE
from tests.conftest import forget_digests
from tests.planted import write_planted_runs

webdriver = pytest.importorskip("selenium.webdriver")
by = pytest.importorskip("selenium.webdriver.common.by").By
keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
select = pytest.importorskip("selenium.webdriver.support.ui").Select
actions = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"></script>"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with its driver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the driver's pipes
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    write_planted_runs(folder / "ckpts")
    rs.analyze(folder / "ckpts", out=folder / "results", jobs=1)
    forget_digests(folder / "results")
    table = pd.read_parquet(folder / "results" / METRICS_FILE)
    table["run"] = table["run"].where(table["run"] != "full", HOSTILE)
    table.to_parquet(folder / "results" / METRICS_FILE)
    with pytest.MonkeyPatch.context() as patch:
        kept = ("per-weights", "heatmap-per-weights")
        patch.setattr(page, "gallery", lambda _, **__: {name: plots.FIGURES[name] for name in kept})
        return rs.write_report(folder / "results")


@pytest.fixture(scope="module")
def browser() -> Iterator["webdriver.Chrome"]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: "webdriver.Chrome", report: Path) -> "webdriver.Chrome":
    browser.set_window_size(1200, 900)
    browser.get(report.as_uri())
    return browser


def shown(browser: "webdriver.Chrome") -> list["webdriver.remote.webelement.WebElement"]:
    return [row for row in browser.find_elements(by.CSS_SELECTOR, "#matrices tbody tr")
            if row.is_displayed()]  # fmt: skip


def test_the_page_loads_without_an_error_and_names_stay_text(opened: "webdriver.Chrome") -> None:
    assert opened.get_log("browser") == []
    assert opened.title.startswith("Rank of <im")
    assert opened.execute_script("return document.images.length") == 0
    assert HOSTILE in opened.find_element(by.CSS_SELECTOR, "#matrices tbody td").text


def test_the_filters_leave_what_they_say(opened: "webdriver.Chrome") -> None:
    every = len(shown(opened))
    opened.find_element(by.NAME, "text").send_keys("layers.1.self_attn.q")
    some = shown(opened)
    assert 0 < len(some) < every
    assert all("layers.1.self_attn.q" in row.text for row in some)
    count = opened.find_element(by.CSS_SELECTOR, "[data-count]").text
    assert count == f"{len(some)} of {every} matrices"
    select(opened.find_element(by.NAME, "component")).select_by_visible_text("weight")
    assert all(row.get_attribute("data-component") == "weight" for row in shown(opened))


def test_a_column_is_sorted_both_ways_and_says_which(opened: "webdriver.Chrome") -> None:
    head = opened.find_elements(by.CSS_SELECTOR, "#matrices th")[7]
    for order in ("ascending", "descending"):
        head.find_element(by.TAG_NAME, "button").send_keys(keys.ENTER)
        assert head.get_attribute("aria-sort") == order
        texts = [row.find_elements(by.TAG_NAME, "td")[7].text for row in shown(opened)]
        values = [float(text.rstrip(" ?")) for text in texts if text]
        assert values == sorted(values, reverse=order == "descending")
        assert "" not in texts[: len(values)]  # matrices without a value come last


def test_a_figure_shows_values_to_a_pointer_and_to_keys(opened: "webdriver.Chrome") -> None:
    drawing = opened.find_element(by.CSS_SELECTOR, "#figure-per-weights .drawing")
    tip = drawing.find_element(by.CLASS_NAME, "tip")
    assert not tip.is_displayed()
    drawing.send_keys(keys.ARROW_RIGHT)
    assert "step 0: 1" in tip.text and "q" in tip.text.splitlines()[0]
    assert drawing.get_attribute("aria-label") == tip.text.replace("\n", ", ")
    drawing.send_keys(keys.ESCAPE)
    assert not tip.is_displayed()
    where = opened.execute_script(
        """const svg = arguments[0].querySelector("svg"), box = svg.getBoundingClientRect();
        const at = JSON.parse(arguments[0].parentElement.querySelector("script").textContent)
          .panels[0].series[0].at[2];
        const point = new DOMPoint(...at).matrixTransform(svg.getScreenCTM());
        return [point.x - box.left - box.width / 2, point.y - box.top - box.height / 2]""",
        drawing,
    )
    svg = drawing.find_element(by.TAG_NAME, "svg")
    actions(opened).move_to_element_with_offset(svg, *map(round, where)).perform()
    assert tip.is_displayed() and "step 200" in tip.text


@pytest.mark.parametrize("width", [390, 1200])
def test_no_width_scrolls_sideways(opened: "webdriver.Chrome", width: int) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_on_paper_no_column_is_cut_and_the_page_is_light(opened: "webdriver.Chrome") -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    size = {"width": 720, "height": 1000, "deviceScaleFactor": 1, "mobile": False}  # A4
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide, paper = opened.execute_script(
        """return [document.documentElement.scrollWidth,
                   getComputedStyle(document.documentElement).backgroundColor]"""
    )
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert wide <= 720 and paper == "rgb(255, 255, 255)"


def test_infinite_condition_numbers_are_the_largest(opened: "webdriver.Chrome") -> None:
    head = opened.find_elements(by.CSS_SELECTOR, "#matrices th")[11]
    opened.execute_script(
        """const cell = document.querySelector("#matrices tbody").rows[3].cells[11];
        cell.dataset.value = cell.textContent = "inf" """
    )
    for place in (-1, 0):
        head.find_element(by.TAG_NAME, "button").click()
        texts = [row.find_elements(by.TAG_NAME, "td")[11].text for row in shown(opened)]
        assert [text for text in texts if text][place] == "inf"
