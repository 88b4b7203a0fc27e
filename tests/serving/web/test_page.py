"""The reading page in a real browser, against a server that listens."""

import base64
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.evaluation.overlays.legend import MARKS
from cxr_compare.evaluation.overlays.shapes import SYSTEM_COLOURS
from cxr_compare.serving.answer import TABLE_COLUMNS
from cxr_compare.serving.guard import Guard, Warned, WarningKind, orientation_warnings
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.server import build_app
from tests.browser import Browser
from tests.serving.web.conftest import listening
from tests.serving.web.test_app import report_of

_PATIENCE = 20.0  # seconds

_DROP = """(async () => {
  const bytes = Uint8Array.from(atob("%s"), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "%s"));
  document.body.dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
})()"""
_PIXELS = """(() => {
  const canvas = document.querySelectorAll(".pane canvas")[%d];
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.reduce((sum, value, place) => (sum * 31 + value * (place + 1)) %% 1000000007, 7);
})()"""


class _Page:
    """The page in a tab."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser, self.address = browser, address

    def load(self, width: int = 1280, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.call("Emulation.setDeviceMetricsOverride", **size)
        self.browser.page.goto(self.address)
        self.wait("document.querySelectorAll('#examples button').length === 3")

    def run(self, script: str) -> Any:
        return self.browser.evaluate(script)

    def wait(self, condition: str) -> None:
        end = time.monotonic() + _PATIENCE
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"{condition}: {self.run('document.body.innerText')}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def pixels(self, pane: int) -> int:
        """A checksum of what a pane shows, once it is drawn."""
        frames = "new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
        self.run(frames)
        return int(self.run(_PIXELS % pane))


@pytest.fixture(scope="module")
def address(served: list[Run]) -> Iterator[str]:
    """Where a server of the exports listens."""
    with listening(build_app(served, ServeSettings())) as port:
        address = f"http://127.0.0.1:{port}/"
        yield address


@pytest.fixture(scope="module")
def page(address: str, browser: Browser) -> _Page:
    """One tab for all."""
    return _Page(browser, address)


def test_page_shows_the_answer_and_its_overlays_toggle(page: _Page) -> None:
    page.load()
    page.run(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))"
    )
    page.click("#examples button")
    page.wait("document.querySelector('#verdict')")
    example = httpx.get(f"{page.address}examples").json()["examples"][0]
    content = httpx.get(f"{page.address}{example['url'].lstrip('/')}").content
    files = {"file": (example["name"], content)}
    answer = httpx.post(f"{page.address}v1/analyze?include=maps", files=files).json()

    assert page.text("#reading-title") == example["name"]
    shown = page.run(
        "[...document.querySelectorAll('.card')].map((card) => [card.ariaLabel, "
        "card.querySelector('.decision').lastChild.textContent, "
        "Number(card.querySelector('[role=meter]').ariaValueNow), "
        "card.querySelectorAll('.boxes li').length])"
    )
    assert shown == [
        [
            system["system"],
            system["decision"],
            round(system["probability"], 3),
            len(system["boxes"]),
        ]
        for system in answer["systems"]
    ]
    assert page.text("#verdict").endswith("The systems disagree") == answer["disagreement"]

    mapped = next(at for at, system in enumerate(answer["systems"]) if system["map"])
    page.wait("document.querySelectorAll('.pane canvas').length === 2")
    before = page.pixels(mapped)
    page.click("[data-kind=map]")
    without = page.pixels(mapped)
    page.click("[data-kind=map]")
    assert without != before == page.pixels(mapped)

    legend = page.run(
        "[...document.querySelectorAll('#legend li:not([hidden])')].map((item) => item.innerText)"
    )
    has_boxes = any(system["boxes"] for system in answer["systems"])
    assert (MARKS["box"].text in legend) == has_boxes  # only what is drawn has an entry
    starts = tuple(mark.text for mark in MARKS.values())
    assert all(text.startswith(starts) for text in legend)

    page.browser.call("Emulation.setEmulatedMedia", media="print")
    visible = "['#viewer', '.card', '#visit-table', '.use', '#save-csv', '#another', '.tools']"
    printed = page.run(f"{visible}.map((what) => document.querySelector(what).checkVisibility())")
    page.browser.call("Emulation.setEmulatedMedia", media="")
    assert printed == [True] * 4 + [False] * 3  # the image, its answers and the visit, no button

    page.click("#another")
    assert page.run("document.querySelector('#start').checkVisibility()")
    assert page.text("#visit-count").startswith("1 image")
    assert page.run("localStorage.length + sessionStorage.length") == 0
    complaints = [
        text for text in page.browser.complaints if "getImageData" not in text
    ]  # this test's
    assert complaints == []  # nor does the content policy complain


def test_an_answer_with_a_warning_is_shown_as_none_and_a_negative_one_with_what_is_missed(page):
    page.load()
    dark = io.BytesIO()
    Image.fromarray(np.full((90, 120), 9, np.uint8)).save(dark, format="PNG")
    page.run(_DROP % (base64.b64encode(dark.getvalue()).decode(), "dark.png"))
    page.wait("document.querySelector('#verdict')")
    assert "No answer for this image" in page.text("#verdict")
    assert "without contrast" in page.text(".warnings").lower()
    decisions = (
        "[...document.querySelectorAll('.decision')].map((one) => one.lastChild.textContent)"
    )
    assert set(page.run(decisions)) == {"no answer"}
    assert not page.run("document.querySelector('.value').checkVisibility()")
    page.run("dispatchEvent(new Event('beforeprint'))")  # on paper nobody can open it
    assert page.run("document.querySelector('.value').checkVisibility()")
    page.run("dispatchEvent(new Event('afterprint'))")
    assert not page.run("document.querySelector('.value').checkVisibility()")
    page.click(".card summary")
    assert page.run("document.querySelector('.value').checkVisibility()")
    assert "no answer" in page.text("#visit-table td:nth-child(3)")
    spoken_text = page.run("""import("/page/answers.js").then(({ spoken }) => {
      const share = { estimate: 22 / 162, ci_low: 0.09, ci_high: 0.19 };
      const known = { images: "test", data_set: "Set", n_positive: 162, figures: [share],
                      cautions: ["A caution."] };
      const no = { status: "ok", decision: "negative", finding: "Mass", probability: 0.1 };
      const systems = [{ ...no, system: "A" }, { ...no, system: "B" }];
      const answer = { warnings: [], disagreement: false, systems };
      return [spoken(answer, null), spoken(answer, known)];
    })""")
    assert "How often both miss a positive image is not known" in spoken_text[0]
    assert (
        "Both missed 22 of 162 positive test images of Set: 13.6 % (95 % interval 9.0 to"
        in spoken_text[1]
    )
    assert spoken_text[1].endswith("A caution.")


def test_cautions_stand_below_the_verdict_and_are_spoken(page: _Page) -> None:
    page.load()
    shown = page.run("""import("/page/answers.js").then(({ opening, spoken }) => {
      const no = { status: "ok", decision: "positive", finding: "Mass", probability: 0.9 };
      const systems = [{ ...no, system: "A" }];
      const answer = { warnings: [], notes: [], disagreement: null, systems,
                       cautions: ["this image trained A"] };
      const parts = opening(answer, null);
      const list = parts.find((part) => part.matches(".cautions"));
      return [parts.indexOf(list), list.innerText, spoken(answer, null)];
    })""")
    assert shown[0] == 1  # the verdict is first, as there is no warning
    assert shown[1] == "This image trained A."
    assert "This image trained A." in shown[2]


def test_list_gives_the_reason_of_missing_answers_and_continues_after_a_refusal(
    page: _Page,
) -> None:
    page.load()
    dark = io.BytesIO()
    Image.fromarray(np.full((90, 120), 9, np.uint8)).save(dark, format="PNG")
    for name, content in (("dark.png", dark.getvalue()), ("text.png", b"no image at all")):
        page.run(_DROP % (base64.b64encode(content).decode(), name))
        page.wait(f"document.querySelector('#reading-title').textContent === '{name}'")
        page.wait("!document.querySelector('#save-csv').disabled")
    assert page.text("#visit-count") == "2 images: 2 without an answer"
    reasons = "[...document.querySelectorAll('.reason')].filter((one) => one.checkVisibility())"
    assert page.run(f"{reasons}.map((one) => one.textContent)") == [
        "not a chest X-ray",
        "unreadable",
    ]
    assert page.text("#place") == "2 of 2"
    page.click("#previous")
    assert page.text("#reading-title") == "dark.png"


def test_list_has_a_reason_for_every_kind_of_warning(page: _Page) -> None:
    aged = Guard.model_construct(
        size=96, limit=1.0, images=600, ages=(0, 0, 0, 600)
    )  # nothing was fitted
    infant = DecodedImage(np.zeros((90, 120), np.uint8), {}, header={"age_years": 1.0})
    turned = DecodedImage(np.zeros((90, 120), np.uint8), {"orientation": "R\\H"})
    kinds = {
        "age": aged.warnings(infant, system="RetinaNet", score=0.0)[0].kind,
        "turned": orientation_warnings(turned)[0].kind,
        "not a chest X-ray": Warned("a colour image; X-rays are grey").kind,
        "negative": "negative", "synthetic runs": "synthetic_run", "damaged": "damaged",
    }  # fmt: skip
    assert {*kinds.values()} == {*get_args(WarningKind)}
    items = json.dumps([{"answer": {"warning_kinds": [kind]}} for kind in kinds.values()])
    page.load()
    reasons = f"import('/page/visit.js').then(({{ reason }}) => {items}.map(reason))"
    assert page.run(reasons) == list(kinds)


def test_the_x_ray_keeps_its_size_when_more_images_are_dropped(page: _Page, png: Any) -> None:
    page.load(1280, 900)
    stage = (
        "(({ width, height }) => [width, height])"
        "(document.querySelector('.stage').getBoundingClientRect())"
    )
    sizes = []
    for number in range(4):
        drop = _DROP % (base64.b64encode(png(number)).decode(), f"{number}.png")
        page.run(drop)
        page.wait(f"document.querySelector('#reading-title').textContent === '{number}.png'")
        page.wait(
            "document.querySelector('#verdict') && !document.querySelector('#save-csv').disabled"
        )
        sizes.append(page.run(stage))
    assert page.text("#place") == "4 of 4"
    assert sizes == [sizes[0]] * 4
    assert sizes[0][0] > 800


def test_dropped_file_that_is_no_image_is_refused_with_a_message(page: _Page) -> None:
    page.load()
    page.run(_DROP % (base64.b64encode(b"<svg xmlns='x'/>").decode(), "a.dcm"))
    page.wait("document.querySelector('#problem .problem')")
    refusal = httpx.post(f"{page.address}v1/pixels", files={"file": ("a.dcm", b"<svg xmlns='x'/>")})
    assert refusal.status_code == 415
    assert refusal.json()["error"]["message"].rstrip(".") in page.text("#problem")


def test_a_system_has_one_colour_in_overlays_and_on_the_page(page: _Page) -> None:
    page.load()
    on_image = page.run("import('/page/draw.js').then(({ COLOURS }) => COLOURS)")
    style = "getComputedStyle(document.documentElement).getPropertyValue"
    on_cards = [page.run(f"{style}('--s{number}').trim()") for number in range(9)]
    assert on_image == on_cards == [colour.lower() for colour in SYSTEM_COLOURS]


def test_page_fits_a_phone_and_every_control_has_a_name(page: _Page) -> None:
    page.load(390, 844)
    page.click("#examples li:last-child button")
    page.wait("document.querySelector('#verdict')")
    assert page.run("document.documentElement.scrollWidth") <= 390
    nodes = page.browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "link", "checkbox", "slider", "combobox", "meter", "image", "region")
    controls = [
        node for node in nodes
        if not node["ignored"] and node.get("role", {}).get("value") in roles
    ]  # fmt: skip
    assert len(controls) > 20
    assert [node for node in controls if not node.get("name", {}).get("value")] == []


def test_report_opens_by_its_link_where_the_server_asks_for_no_token(page, served, tmp_path):
    token = "a-token-of-this-test"  # noqa: S105
    head = "<link rel='icon' href='data:,'><title>a</title>"
    script = "<script>document.title = 'scripts run'</script>"
    model_id = served[0].model.inference_id()
    folder = report_of(tmp_path / "report", inference_id=model_id)
    (folder / "report.html").write_text(f"{head}{script}<p style='color: red'>Report</p>")
    with listening(build_app(served, ServeSettings(), report=folder), lifespan="off") as port:
        tab = _Page(page.browser, f"http://127.0.0.1:{port}/")
        tab.load()
        before = len(tab.browser.complaints)
        tab.click("#open-systems")
        tab.wait("document.querySelector('#systems[open] a')")
        tab.run("((link) => { link.target = ''; link.click(); })"
                "(document.querySelector('#systems a'))")  # fmt: skip
        tab.wait("document.title === 'scripts run'")
        assert tab.run("location.pathname + location.search") == "/report/report.html"
        assert tab.browser.complaints[before:] == []
    app = build_app(served, ServeSettings(token=token), report=folder)
    with listening(app, lifespan="off") as port:
        address = f"http://127.0.0.1:{port}/"
        tab = _Page(page.browser, address)
        tab.browser.page.goto(address)
        tab.wait("document.querySelector('#token[open]')")
        tab.run(f"document.querySelector('#token-field').value = '{token}'")
        tab.click("#token-form .primary")
        tab.wait("document.querySelectorAll('#examples button').length === 3")
        tab.click("#open-systems")
        tab.wait("document.querySelector('#systems[open] table')")
        assert not tab.run("document.querySelector('#systems a')")
        assert "/report/report.html" in tab.text("#systems")
        assert httpx.get(f"{address}report/report.html").status_code == 401
        sent = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{address}report/report.html", headers=sent).status_code == 200


@pytest.mark.skipif("CXR_AXE" not in os.environ, reason="CXR_AXE names no axe.min.js of axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_reports_no_accessibility_problem(page: _Page, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.browser.call("Emulation.setEmulatedMedia", features=[feature])
    page.browser.call("Page.setBypassCSP", enabled=True)
    page.load()
    page.run(Path(os.environ["CXR_AXE"]).read_text() + ";0")
    violations = "axe.run(document).then((found) => found.violations.map((each) => each.id))"
    assert page.run(violations) == []
    page.click("#examples button")
    page.wait("document.querySelector('#verdict')")
    assert page.run(violations) == []


def test_one_number_of_certainty_stands_open_and_the_csv_is_beside_the_answer(page: _Page) -> None:
    page.load()
    page.click("#examples button")
    page.wait("document.querySelector('#verdict')")
    open_numbers = page.run(
        "[...document.querySelectorAll('.card')].map((card) => "
        "[...card.querySelectorAll('.value, .findings td.figures, .scores p')]"
        ".filter((one) => !one.closest('details:not([open])')).length)"
    )
    assert open_numbers == [1] * len(open_numbers)
    folded = "document.querySelectorAll('.card details.scores:not([open])').length"
    assert page.run(folded) == len(open_numbers)
    assert page.run("document.querySelector('#reading .bar #save-answers').checkVisibility()")
    page.run("HTMLAnchorElement.prototype.click = function () { window.saved = this.download; }")
    page.click("#save-answers")
    page.wait("window.saved")
    assert page.run("window.saved").endswith(".csv")


def test_saved_table_has_a_row_for_an_image_without_an_answer(page: _Page) -> None:
    example = httpx.get(f"{page.address}examples").json()["examples"][0]
    files = {"file": (example["name"], httpx.get(page.address + example["url"][1:]).content)}
    answer = httpx.post(f"{page.address}v1/analyze?include=csv", files=files).json()
    refused = {"state": "failed", "name": "=a,b.png", "error": {"message": 'no "image"'}}
    visit = json.dumps([refused, {"state": "done", "answer": answer}])
    text = page.run(f"import('/page/visit.js').then((module) => module.csv({visit}).text())")
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    assert tuple(table) == TABLE_COLUMNS
    assert [*table["system"]] == [*(each["system"] for each in answer["systems"]), ""]
    cells = table.iloc[-1][lambda row: row != ""]
    assert dict(cells) == {"image": "'=a,b.png", "status": "refused", "problem": 'no "image"'}


def test_button_of_the_theme_names_what_it_does(page: _Page) -> None:
    page.load()
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    seen = []
    for _ in range(2):
        named = page.text("#theme").split()[0].lower()
        page.click("#theme")
        seen.append((named, page.run(scheme)))
    assert all(named == applied for named, applied in seen)
    assert {named for named, _ in seen} == {"dark", "light"}
