"""The page of `cxr serve` in a browser: an image is chosen, analyzed, and its answers are shown."""

import io
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from PIL import Image

import cxr_compare
from tests.adapters.server import listening
from tests.small_dicom import image_file

PATIENCE_MS = 20_000
TOKEN = "a-token-of-this-test"  # noqa: S105
FLAT = image_file(np.full((90, 120), 9, np.uint8), "PNG")


@pytest.fixture(scope="module")
def radiograph(world):
    return min((world.xrays / "stage_2_train_images").iterdir())


@pytest.fixture(scope="module")
def systems(world):
    """A detector and a classifier."""
    return [cxr_compare.Run.open(world.run(kind), name=kind) for kind in ("detector", "classifier")]


@pytest.fixture(scope="module")
def server(systems):
    with listening(systems, max_bytes=1 << 20) as address:
        yield address


def show(browser, width, scheme):
    """Give the tab a width, px, and a colour scheme."""
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=width < 600,
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", features=features)


@contextmanager
def opened(browser, address, width=1280, scheme="light"):
    """A tab of a page; what it complains of in the console is nothing."""
    show(browser, width, scheme)
    before = len(browser.complaints)
    tab = browser.page
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(address)
    yield tab
    assert browser.complaints[before:] == []
    tab.goto("about:blank")


def analyze(tab, file):
    """Choose a file, a path or (name, content), and analyze it; wait for the picture."""
    if isinstance(file, tuple):
        file = {"name": file[0], "mimeType": "application/octet-stream", "buffer": file[1]}
    tab.set_input_files("#file", file)
    tab.click("#analyze")


def answered(tab):
    tab.wait_for_selector("#figure:not([hidden])")
    tab.locator("#overlay").evaluate("(picture) => picture.decode()")


def test_answers_stand_side_by_side_with_the_picture(browser, server, radiograph):
    files = {"file": (radiograph.name, radiograph.read_bytes())}
    answers = httpx.post(f"{server}/v1/analyze", files=files, timeout=60).json()
    with opened(browser, server) as tab:
        analyze(tab, str(radiograph))
        answered(tab)
        assert tab.inner_text("#result-title") == radiograph.name
        cards = tab.locator(".card")
        for position, answer in enumerate(answers):
            shown = cards.nth(position).inner_text().lower()
            assert shown.startswith(answer["system"])
            assert answer["decision"] in shown
            assert f"{answer['probability']:.2f}" in shown
            assert f"{answer['threshold_probability']:.2f}" in shown
            limits = tab.inner_text("#cautions") if answer["cautions"] else ""
            assert [text for text in answer["cautions"] if text not in limits] == []
        verdict = tab.inner_text("#verdict").lower()
        called = {answer["decision"] for answer in answers}
        assert ("disagree" in verdict) == (len(called) == 2)
        for width, scheme in ((1280, "light"), (390, "dark")):
            show(browser, width, scheme)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            box = tab.locator("#overlay").bounding_box()
            assert 0 < box["x"] < box["x"] + box["width"] < width
            ink = tab.evaluate("getComputedStyle(document.body).color")  # rgb(r, g, b)
            is_light = int(ink.removeprefix("rgb(").partition(",")[0]) > 150
            assert is_light == (scheme == "dark")
        picture = httpx.post(f"{server}/v1/overlay", files=files, timeout=60).content
        drawn = tab.locator("#overlay").evaluate("(picture) => picture.naturalWidth")
        assert drawn == Image.open(io.BytesIO(picture)).width
        assert tab.evaluate("localStorage.length + sessionStorage.length") == 0


def test_an_image_that_is_none_gets_one_reason_and_no_number(browser, server):
    with opened(browser, server) as tab:
        analyze(tab, ("flat.png", FLAT))
        answered(tab)
        assert "No answer" in tab.inner_text("#verdict")
        assert "contrast" in tab.inner_text("#verdict")
        assert tab.locator(".card .decision").all_inner_texts() == ["NO ANSWER"] * 2
        assert tab.locator(".track").count() == 0


def test_a_file_that_is_no_image_is_refused_with_the_reason_of_the_server(browser, server):
    content = b"no image"
    refused = httpx.post(f"{server}/v1/analyze", files={"file": ("a.txt", content)}).json()
    before = len(browser.complaints)
    browser.page.goto(server)
    analyze(browser.page, ("a.txt", content))
    browser.page.wait_for_selector("#problem p")
    assert refused["detail"] in browser.page.inner_text("#problem")
    assert browser.page.is_visible("#choose")
    assert "415" in "".join(browser.complaints[before:])  # Chromium itself says so


@pytest.mark.release
def test_a_locked_server_is_opened_by_its_token(browser, systems, radiograph):
    with listening(systems, token=TOKEN) as address:
        tab = browser.page
        tab.goto(address)
        for given in ("a-token-of-another", TOKEN):
            tab.wait_for_selector("#token[open]")
            tab.fill("#token-field", given)
            tab.keyboard.press("Enter")
        tab.wait_for_selector("#systems:not([hidden])")
        analyze(tab, str(radiograph))
        answered(tab)
        tab.evaluate("sessionStorage.clear()")
        tab.context.clear_cookies()


@pytest.mark.release
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_fault(browser, server, radiograph, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with opened(browser, server, width, scheme) as tab:
        tab.wait_for_selector("#systems:not([hidden])")
        assert axe.run(tab).response["violations"] == []
        for file in (str(radiograph), ("flat.png", FLAT)):
            analyze(tab, file)
            answered(tab)
            assert axe.run(tab).response["violations"] == []
            tab.click("#another")
