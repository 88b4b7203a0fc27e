"""The page of a report: what it shows first, how much it says, and that a browser shows it."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import Result

VOID = {"meta", "link", "input", "br", "img"}
MOST_BYTES = 8_000_000
NAMES = (
    *("DenseNet-121", "ResNet-50", "EfficientNet-B4", "ConvNeXt-T", "Swin Transformer V2 small"),
    *("RetinaNet", "Faster R-CNN", "YOLO v8 medium", "DETR"),
)


class Page(HTMLParser):
    """Words of a page in folds and outside of them, its links, ids, and tags out of order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.problems, self.ids, self.links = [], [], [], []
        self.words, self.shown, self.alternatives = 0, 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.ids += [facts["id"]] if "id" in facts else []
        self.links += [facts[key] for key in ("href", "src") if facts.get(key)]
        self.alternatives += [facts["alt"]] if tag == "img" else []
        if tag not in VOID:
            self.open.append((tag, "open" in facts))

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop()[0] != tag):
            self.problems.append(tag)

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if {"style", "script", "title"} & set(tags):
            return
        count = len(data.split())
        self.words += count
        is_folded = any(tag == "details" and not is_open for tag, is_open in self.open)
        self.shown += 0 if is_folded and "summary" not in tags else count


@pytest.fixture(scope="module")
def two(world):
    return world.report


@pytest.fixture(scope="module")
def nine(world, tmp_path_factory):
    """Nine systems, four of them detectors, on images with groups."""
    tables = world.tables
    truth = pd.read_csv(tables / "truth.csv")
    rng = np.random.default_rng(1)
    truth = truth.assign(
        sex=rng.choice(["F", "M"], len(truth)),
        view=rng.choice(["AP", "PA"], len(truth)),
        age_years=rng.uniform(20, 90, len(truth)),
    )
    boxes = pd.read_csv(tables / "boxes.csv")
    systems = {}
    for place, name in enumerate(NAMES[:5]):
        logit = (2.5 - place / 3) * truth["label"] + rng.normal(0, 1, len(truth))
        scores = 1 / (1 + np.exp(-logit))
        systems[name] = pd.DataFrame({"image_id": truth["image_id"], "score": scores})
    for place, name in enumerate(NAMES[5:]):
        kept = boxes[rng.random(len(boxes)) < 1 - place / 6]
        systems[name] = kept.assign(score=(kept["score"] * rng.uniform(0.7, 1, len(kept))))
    folder = tmp_path_factory.mktemp("nine") / "report"
    cxr_compare.compare(
        systems, truth=truth, boxes=tables / "true_boxes.csv", replicates=100, out=folder
    )
    return folder


@pytest.mark.parametrize("name", ["two", "nine"])
def test_a_page_is_whole_short_and_needs_nothing_from_outside(name, request):
    file = request.getfixturevalue(name) / "report.html"
    page = Page(file.read_text())
    assert page.problems == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert file.stat().st_size < MOST_BYTES
    assert page.shown <= 3_000
    assert page.words <= 4_500


def test_a_script_has_at_most_thirty_lines(two):
    scripts = re.findall(r"<script>(.*?)</script>", (two / "report.html").read_text(), re.DOTALL)
    assert sum(len(script.strip().splitlines()) for script in scripts) <= 30


def test_the_answer_comes_first_and_at_most_eight_figures_before_a_fold(two):
    text = (two / "report.html").read_text()
    answer = Result.open(two).answer
    body = text[text.index("<body>") :]
    assert body.index("<h1") < body.index("<h2")
    headline = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)[1]
    assert headline == answer.sentences[0].replace("'", "&#39;")
    head = body[body.index('id="figures"') :].split("</thead>")[0]
    titles = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<th>(.*?)</th>", head)][1:]
    assert len(titles) <= 8
    assert {"Accuracy", "Precision", "Sensitivity (recall)", "F1"} <= set(titles)
    assert "<details" not in body[: body.index('id="figures"')]


def test_examples_have_their_images_and_each_case_its_drawing(two):
    result = Result.open(two)
    text = (two / "report.html").read_text()
    kinds = list(dict.fromkeys(result.cases()["kind"]))
    examples = text[text.index('aria-label="Examples"') : text.index('id="figures"')]
    assert examples.count("<img") == min(3, len(kinds))
    assert all(f"<b>{kind}</b>" in examples for kind in kinds[:2])
    drawn = {path.name for path in (two / "overlays").iterdir()}
    assert drawn == set(result.answer.overlays.values())
    assert set(result.answer.overlays) == set(result.cases()["image_id"])


def test_every_value_with_an_interval_on_the_page_is_in_a_table(two):
    text = (two / "report.html").read_text()
    rows = pd.concat(
        [pd.read_csv(two / f"{name}.csv") for name in ("figures", "groups", "lesions")]
    )
    ends = rows[["estimate", "ci_low", "ci_high"]].dropna().to_numpy()
    claims = Result.open(two).answer.claims
    of_claims = [[each["estimate"], each["ci_low"], each["ci_high"]] for each in claims]
    known = np.concatenate([ends, np.array(of_claims, float)])
    shown = re.findall(r"<b>(−?[\d.]+)</b><small>\((−?[\d.]+) to (−?[\d.]+)\)", text)
    assert len(shown) > 20
    for cell in shown:
        values = [float(part.replace("−", "-")) for part in cell]
        assert np.isclose(known, values, atol=6e-4).all(axis=1).any(), cell


def test_charts_take_the_colours_of_the_page(two):
    drawings = re.findall(r"<svg.*?</svg>", (two / "report.html").read_text(), re.DOTALL)
    assert len(drawings) >= 4
    for drawing in drawings:
        assert "currentColor" in drawing
        assert 'role="img" aria-label=' in drawing
        assert "#000000" not in drawing


@pytest.mark.parametrize("name", ["two", "nine"])
def test_a_browser_shows_it_without_sideways_scroll_and_messages(browser, name, request):
    page = request.getfixturevalue(name) / "report.html"
    for width, dark in ((1280, False), (390, True)):
        browser.open(page, width, 900, dark=dark)
        browser.evaluate("document.querySelectorAll('details').forEach((f) => { f.open = true; })")
        assert browser.evaluate("document.documentElement.scrollWidth") == width
    if browser.evaluate("document.querySelector('figure button') !== null"):
        browser.evaluate("document.querySelector('figure button').click()")
        assert browser.evaluate("document.querySelector('dialog').open")
        browser.page.keyboard.press("ArrowRight")
        browser.page.keyboard.press("Escape")
        assert not browser.evaluate("document.querySelector('dialog').open")
    assert browser.complaints == []
