import os
import re
import shutil
import subprocess

import pytest

from evaluation.report.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine, and in CI the report must be opened in one")
        pytest.skip("no Chromium on this machine: the report was not opened in a browser")
    return found


OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0",
)  # fmt: skip


def run(browser, profile, *arguments):
    answer = subprocess.run(
        [browser, *OPTIONS, f"--user-data-dir={profile}", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert [line for line in answer.stderr.splitlines() if "CONSOLE" in line] == []
    return answer.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_opens_without_a_console_message(browser, scheme, comparison, picture_set, tmp_path):
    page = write_report(comparison, picture_set, tmp_path / "report")
    picture = tmp_path / "page.png"
    dark = 0 if scheme == "dark" else 1
    run(
        browser, tmp_path / "profile", "--window-size=1280,2000",
        f"--blink-settings=preferredColorScheme={dark}", f"--screenshot={picture}", page.as_uri(),
    )  # fmt: skip
    assert picture.stat().st_size > 20_000


ACT = """
const say = (name, value) => { document.body.dataset[name] = value; };
const text = (query) => document.querySelector(query).textContent;
const all = (query) => [...document.querySelectorAll(query)];
const visible = () => all(".case:not([hidden])").map((item) => item.dataset.id);
const press = (key) => {
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
};
const form = document.querySelector("#choose");
const choose = (name, value) => {
  form.elements[name].value = value;
  form.dispatchEvent(new Event("input"));
};
const slider = document.querySelector(".explored input");
slider.value = slider.max;
slider.dispatchEvent(new Event("input"));
say("highest", all(".explored[data-system='0'] b").map((b) => b.textContent).join(" "));
say("frozen", text(".matrix[data-policy=max_f1] [data-cell=tp] b"));
all(".matrix[data-policy=max_f1][data-system='0'] [data-cell=fn] button")[0].click();
say("cell", text("#cell-images h3"));
say("thumbnails", document.querySelectorAll("#cell-images .thumbnails a").length);
choose("s0", "missed");
say("missed", visible().sort().join(" "));
choose("s0", "");
choose("sort", "gap");
say("first", visible()[0]);
choose("id", "p05");
say("found", visible().join(" "));
form.elements.id.value = "";
form.elements.sort.value = "";
form.dispatchEvent(new Event("input"));
press("j");
say("focused", document.activeElement.id === document.querySelector(".case").id);
press("t");
say("layer", document.querySelector("#show-truth").checked);
press("/");
say("search", document.activeElement.name);
"""


def test_page_answers_to_slider_cells_filters_and_keys(browser, comparison, picture_set, tmp_path):
    page = write_report(comparison, picture_set, tmp_path / "report")
    acted = tmp_path / "acted.html"
    acted.write_text(page.read_text().replace("</body>", f"<script>{ACT}</script></body>"))
    after = run(browser, tmp_path / "profile", "--dump-dom", acted.as_uri())
    body = re.search(r"<body[^>]*>", after)[0]
    told = dict(re.findall(r'data-([a-z]+)="(.*?)"', body))
    assert told == {
        "highest": "RetinaNet 1 5 0 6",  # only the highest score is still called
        "frozen": "4",  # the frozen matrix did not move
        "cell": "RetinaNet, best F1: 2 missed",
        "thumbnails": "2",
        "missed": "p03 p04",
        "first": "p03",  # CheXNet's second of twelve, RetinaNet's tenth
        "found": "p05",
        "focused": "true",
        "layer": "false",
        "search": "id",
    }
