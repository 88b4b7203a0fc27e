"""Pages and drawings: what they show, how much they say, and that a browser shows them."""

import re
import shutil
from html.parser import HTMLParser

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from PIL import Image

import cxr_compare
from cxr_compare import DataSet, Result
from tests.adapters import reports
from tests.adapters.reports import ImagePrediction, ImageTruth

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


BOTH = ["two", pytest.param("nine", marks=pytest.mark.release)]


@pytest.mark.parametrize("name", BOTH)
def test_a_page_is_whole_short_and_needs_nothing_from_outside(name, request):
    file = request.getfixturevalue(name) / "report.html"
    page = Page(file.read_text())
    assert page.problems == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    others = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert all((file.parent / link.partition("#")[0]).is_file() for link in others)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert file.stat().st_size < MOST_BYTES
    assert page.shown <= 3_000
    assert page.words <= 4_500


def test_the_answer_comes_first_and_at_most_eight_figures_before_a_fold(two):
    text = (two / "report.html").read_text()
    answer = Result.open(two).answer
    body = text[text.index("<body>") :]
    assert body.index("<h1") < body.index("<h2")
    headline = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)[1]
    headline = headline.replace("\N{NO-BREAK SPACE}", " ")
    assert headline == answer.sentences[0].replace("'", "&#39;")
    head = body[body.index('id="figures"') :].split("</thead>")[0]
    titles = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<th>(.*?)</th>", head)][1:]
    assert len(titles) <= 8
    assert {"Accuracy", "Precision", "Sensitivity (recall)", "F1"} <= set(titles)


def test_examples_have_their_images_and_each_case_its_drawing(two):
    result = Result.open(two)
    text = (two / "report.html").read_text()
    kinds = list(dict.fromkeys(result.cases()["kind"]))
    examples = text[text.index('aria-label="Examples"') : text.index('id="figures"')]
    assert examples.count("<img") == min(3, len(kinds))
    assert all(f"<b>{kind}</b>" in examples for kind in kinds[:2])
    drawn = {path.name for path in (two / "overlays").glob("*.png")}
    assert drawn == set(result.answer.overlays.values())
    assert set(result.answer.overlays) >= set(result.cases()["image_id"])


def test_the_third_example_is_one_that_all_miss():
    kinds = {"A yes, B no": [1, 2], "B yes, A no": [3], "False alarms": [4]}
    assert reports.examples_of(kinds | {"Missed": [5]}, "Missed") == [1, 3, 5]
    assert reports.examples_of(kinds, "Missed") == [1, 3, 4]


def test_every_value_with_an_interval_on_the_page_is_in_a_table(two):
    text = (two / "report.html").read_text()
    rows = pd.concat(
        [pd.read_csv(two / f"{name}.csv") for name in ("figures", "groups", "lesions")]
    )
    ends = rows[["estimate", "ci_low", "ci_high"]].dropna().to_numpy()
    claims = Result.open(two).answer.claims
    of_claims = [[each["estimate"], each["ci_low"], each["ci_high"]] for each in claims]
    known = np.concatenate([ends, np.array(of_claims, float)])
    known = np.concatenate([known, -known[:, [0, 2, 1]]])  # a difference is of the higher one
    shown = re.findall(r">(−?[\d.]+)<small>\((−?[\d.]+) to (−?[\d.]+)\)", text)
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


@pytest.mark.parametrize("name", BOTH)
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


RED = reports.SystemMark("#FF0000", "s", ((0, 0), (100, 0), (100, 100), (0, 100)))
SIDE = 64
GREY = np.full((SIDE, SIDE), 90, np.uint8)


def red(drawn):
    """Rows and columns of the pixels that have the colour of the system."""
    values = drawn.astype(int)
    return np.nonzero(values[:, :, 0] - values[:, :, 1] > 60)


def drawn_box(box, lesions=None, **options):
    boxes = np.array([[*box, 0.9]])
    answer = ImagePrediction("A", RED, boxes=boxes, box_cut=0.5, **options)
    truth = None if lesions is None else ImageTruth(1.0, np.array(lesions, float).reshape(-1, 4))
    # two systems on one image: boxes without the numbers above them
    return reports.draw_panel(np.zeros((256, 256), np.uint8), 256, truth, answer, answer)


@pytest.mark.parametrize("shape", [(100, 80), (80, 100), (90, 30)])
def test_a_panel_keeps_the_aspect_of_its_image(shape):
    height, width = reports.draw_panel(np.zeros(shape, np.uint8), 200).shape[:2]
    assert max(height, width) == 200
    assert height / width == pytest.approx(shape[0] / shape[1], abs=0.02)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)])
def test_an_image_that_is_not_8_bit_grey_is_refused(pixels):
    with pytest.raises(ValueError):  # noqa: PT011 the type is the promise
        reports.draw_panel(pixels, 64)


def test_a_box_a_lesion_and_a_cross_lie_at_their_pixels():
    rows, columns = red(drawn_box([64, 32, 192, 128]))
    assert (rows.min(), rows.max()) == pytest.approx((32, 128), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((64, 192), abs=2)
    plain = np.zeros((256, 256), np.uint8)
    corners = reports.draw_panel(plain, 256, ImageTruth(1.0, np.array([[40.0, 60, 200, 220]])))
    rows, columns = np.nonzero(corners[:, :, 0] > 200)
    assert (rows.min(), rows.max()) == pytest.approx((60, 220), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((40, 200), abs=2)
    assert not corners[100:180, 80:160].any()  # the inside stays visible
    cross = reports.draw_panel(plain, 256, None, ImagePrediction("A", RED, point=(150.0, 50.0)))
    rows, columns = red(cross)
    assert (rows.mean(), columns.mean()) == pytest.approx((50, 150), abs=1)


def test_a_point_of_an_image_that_is_called_negative_is_not_drawn():
    answer = ImagePrediction("A", RED, point=(30.0, 30.0), decision=False)
    drawn = reports.draw_panel(GREY, SIDE, None, answer)
    assert (drawn == 90).all()


def test_boxes_below_the_cut_are_absent_and_at_most_eight_are_drawn():
    low = ImagePrediction("A", RED, boxes=np.array([[8, 8, 50, 50, 0.29]]), box_cut=0.3)
    assert (reports.draw_panel(GREY, SIDE, None, low) == 90).all()
    places = np.arange(12) * 40.0
    boxes = np.column_stack([places, np.full(12, 200.0), places + 30, np.full(12, 280.0)])
    boxes = np.column_stack([boxes, np.linspace(0.9, 0.4, 12)])
    answer = ImagePrediction("A", RED, boxes=boxes, box_cut=0.0)
    drawn = reports.draw_panel(np.zeros((500, 500), np.uint8), 500, None, answer)
    _, columns = red(drawn[200:])  # below the scores
    assert columns.max() < places[8]
    assert columns.max() > places[7]


@pytest.mark.parametrize(
    ("lesions", "is_solid", "why"),
    [
        ([[60, 30, 200, 130]], True, "centred on a lesion"),
        ([[0, 200, 20, 220]], False, "elsewhere"),
        ([], False, "the image has no lesion"),
        (None, True, "nobody knows the lesions"),
    ],
)
def test_a_box_is_solid_on_a_lesion_and_dashed_elsewhere(lesions, is_solid, why):
    drawn = drawn_box([64, 32, 192, 128], lesions)
    upper = drawn[31:34, 70:186].astype(int)
    covered = ((upper[:, :, 0] - upper[:, :, 1]) > 60).any(axis=0).mean()
    assert (covered > 0.95) == is_solid, why
    assert covered > 0.3


def mapped(values, decision=None):
    """An answer with a map, whose levels are 0.5, 0.75 and 1, and whose peak is its point."""
    values = np.asarray(values, float)
    row, column = np.unravel_index(values.argmax(), values.shape)
    peak = (column + 0.5) * SIDE / values.shape[1], (row + 0.5) * SIDE / values.shape[0]
    frame, levels = (0, 0, SIDE, SIDE), (0.5, 0.75, 1.0)
    heat = reports.HeatMap(values, frame, levels)
    return ImagePrediction("A", RED, decision=decision, heat=heat, point=peak)


def tint(values, decision=None, truth=None):
    return reports.draw_panel(GREY, SIDE, truth, mapped(values, decision))


def test_equal_values_of_two_maps_have_equal_tints_whatever_their_maxima():
    weak, strong = np.zeros((8, 8)), np.zeros((8, 8))
    weak[1, 1] = strong[1, 1] = 0.9
    strong[6, 6] = 1.0
    cut = np.s_[20:28, 4:20]  # beside the cross of one, and inside the line of both
    np.testing.assert_array_equal(tint(weak)[cut], tint(strong)[cut])
    broad = np.full((8, 8), 0.7)
    broad[2:5, 2:5] = 1.0
    inside, beside = tint(broad)[36, 36].astype(int), tint(broad)[60, 60].astype(int)
    assert inside[0] > beside[0] > 90 > beside[1] > inside[1] >= 40  # the lung stays visible
    assert (tint(np.full((8, 8), 0.5))[16:, 16:] == 90).all()  # what is not high has no tint


@pytest.mark.parametrize(
    ("decision", "label", "is_drawn"),
    [
        (True, 1.0, True),
        (True, 0.0, True),
        (False, 1.0, True),  # missed
        (False, 0.0, False),
        (False, float("nan"), False),
        (None, float("nan"), True),
        (True, None, True),
        (False, None, False),
    ],
)
def test_a_map_and_its_peak_are_drawn_where_it_calls_positive_and_on_what_it_misses(
    decision, label, is_drawn
):
    values = np.zeros((4, 4))
    values[1, 2] = 1.0
    truth = None if label is None else ImageTruth(label)
    drawn = tint(values, decision, truth)
    assert (drawn != 90).any() == is_drawn
    if is_drawn:
        rows, columns = red(drawn)
        assert (rows.mean(), columns.mean()) == pytest.approx((24, 40), abs=2)
    words = mapped(np.ones((4, 4)), decision).map_words(truth)
    assert ("diffuse" in words) == is_drawn


def test_a_map_points_at_nothing_where_more_than_a_third_of_it_or_nothing_is_high():
    few, many = np.zeros((3, 4)), np.zeros((3, 4))
    few[0] = 0.9
    many[0], many[1, 0] = 0.9, 0.6
    told = [mapped(values, True).map_words(None) for values in (few, many, np.zeros((3, 4)))]
    assert told[0] == ""
    assert "42 %" in told[1]
    assert told[2] not in ("", told[1])


def test_the_map_of_an_image_has_the_levels_of_its_system():
    frame = dict(zip(["x1", "y1", "x2", "y2"], (0.0, 0.0, 64.0, 32.0), strict=True))
    maps = pd.DataFrame(
        {"image_id": ["b"], "grid_h": [1], "grid_w": [2], "values": [[0.0, 2.0]], **frame}
    )
    scores = pd.DataFrame({"score": [0.9, 0.8]}, ["a", "b"])
    levels = reports.MapLevels(1.0, 2.0, 4.0)
    system = reports.DrawnSystem("A", scores, maps=maps, levels=levels)
    answers = [system.prediction(image_id, RED) for image_id in "ab"]
    assert answers[0].heat is None
    assert answers[1].heat.values.tolist() == [[0.0, 2.0]]
    assert answers[1].heat.levels == levels


def test_more_systems_than_four_on_one_image_have_their_points_alone():
    box = np.array([[8.0, 8, 56, 56, 0.9]])
    answers = [ImagePrediction("A", RED, boxes=box, point=(32.0, 32.0))] * 5
    few, many = (reports.draw_panel(GREY, SIDE, None, *answers[:count]) for count in (4, 5))
    assert (few[:24] != 90).any()
    assert (many[:24] == 90).all()
    assert (many[24:40, 24:40] != 90).any()


@pytest.mark.parametrize("left_top", [(0.0, 0.0), (40.0, 0.0), (225.0, 5.0), (-9.0, -9.0)])
def test_the_score_of_a_box_at_the_edge_is_written_whole(left_top):
    def label(x, y):
        box = np.array([[x, y, x + 30, y + 30, 0.88]])
        answer = ImagePrediction("A", RED, boxes=box, box_cut=0.0)
        blank = np.full((256, 256), 255, np.uint8)
        with_score = reports.draw_panel(blank, 256, None, answer)
        without = reports.draw_panel(blank, 256, None, answer, ImagePrediction("B", RED))
        return [np.ptp(each) for each in np.nonzero((with_score != without).any(axis=2))]

    assert label(*left_top) == pytest.approx(label(100.0, 100.0), abs=4)


@pytest.mark.parametrize(
    ("decision", "label", "localised", "sign"),
    [
        (True, 1.0, True, "✓"),
        (True, 1.0, None, "✓"),
        (True, 1.0, False, "✓"),
        (False, 1.0, None, "✗"),
        (True, 0.0, None, "✗"),
        (False, 0.0, None, "✓"),
        (None, 1.0, None, "–"),
        (True, float("nan"), None, "–"),
    ],
)
def test_the_outcome_follows_decision_label_and_place(decision, label, localised, sign):
    answer = ImagePrediction("A", RED, decision=decision, localised=localised)
    assert answer.outcome(ImageTruth(label))[0] == sign


@pytest.mark.parametrize(
    ("score", "threshold", "text"),
    [(0.5, 0.5, "score 0.500 ≥ 0.500"), (0.50001, 0.50002, "score 0.50001 < 0.50002")],
)
def test_a_tie_is_positive_and_two_numbers_never_read_the_same(score, threshold, text):
    shown = ImagePrediction("A", RED, score=score, threshold=threshold).score_words()
    assert shown == text


def test_without_boxes_there_is_no_panel_and_no_word_of_them():
    answer = ImagePrediction("A", RED, score=0.9, decision=True)
    options = {"title": "x", "finding": "mass"}
    known = ImageTruth(1.0, np.array([[8.0, 8, 30, 30]]))
    names = [
        [panel.name for panel in reports.panels_of(GREY, [answer], truth=truth, **options)]
        for truth in (known, ImageTruth(1.0), None)
    ]
    assert names == [["Image", "Truth", "A"], ["Image", "A"], ["Image", "A"]]
    (image, _) = reports.panels_of(GREY, [answer], truth=ImageTruth(1.0), **options)
    assert "mass: present" in image.lines


def test_a_legend_has_the_marks_that_are_drawn_and_no_others():
    options = {"title": "x", "finding": "mass"}
    truth = ImageTruth(1.0, np.array([[8.0, 8, 30, 30]]))
    point = {"score": 0.9, "decision": True, "point": (9.0, 9.0)}
    at, beside = [10.0, 10, 26, 26, 0.9], [60.0, 60, 80, 80, 0.9]
    plain = ImagePrediction("A", RED, decision=False)
    words = ("corners", "Solid", "Dashed", "Cross", "Tint")

    def said(answer, truth):
        panels = reports.panels_of(GREY, [answer], truth=truth, **options)
        marks = frozenset().union(*(panel.marks for panel in panels))
        text = reports.legend(marks, lesions=True)
        return [word for word in words if word in text]

    assert said(plain, ImageTruth(0.0)) == []
    assert said(plain, truth) == ["corners"]
    assert said(ImagePrediction("A", RED, **point), truth) == ["corners", "Cross"]
    for boxes, shown in (
        ([at], ["Solid"]),
        ([beside], ["Dashed"]),
        ([at, beside], ["Solid", "Dashed"]),
    ):
        answer = ImagePrediction("A", RED, decision=True, boxes=np.array(boxes))
        assert said(answer, truth) == ["corners", *shown]
    levels = reports.MapLevels(0.1, 0.5, 1.0)
    heat = reports.HeatMap(np.ones((2, 2), np.float32), (0.0, 0.0, 96.0, 96.0), levels)
    for decision, shown in ((True, ["Tint"]), (False, ["Solid"])):
        answer = ImagePrediction("A", RED, decision=decision, heat=heat, boxes=np.array([at]))
        assert said(answer, ImageTruth(0.0)) == shown
    low = reports.HeatMap(np.zeros((2, 2), np.float32), (0.0, 0.0, 96.0, 96.0), levels)
    answer = ImagePrediction("A", RED, decision=False, heat=low)
    assert said(answer, truth) == ["corners"]  # missed, and nothing of its map is high


def test_boxes_of_single_readers_are_drawn_beside_the_truth():
    readings = pd.DataFrame(
        [["a", "R1", 4, 4, 20, 20], ["a", "R2", *[np.nan] * 4], ["b", "R1", 0, 0, 9, 9]],
        columns=["image_id", "reader", "x1", "y1", "x2", "y2"],
    )
    _, truth, system = reports.panels_of_readings(GREY, readings, [30, 30, 60, 60])
    assert truth.lines[1:] == ("R1: 1", "R2: 0")
    yellow = truth.pixels.astype(int)
    rows, columns = np.nonzero(yellow[:, :, 0] - yellow[:, :, 2] > 60)
    assert (rows.min(), columns.max()) == pytest.approx((4, 20), abs=2)
    others = system.pixels.astype(int)
    assert not (others[:, :, 0] - others[:, :, 2] > 60).any()  # they are no agreed lesions


def test_a_sheet_shows_every_panel_whole_and_writes_below_them():
    answers = [ImagePrediction(f"S{n}", RED, score=0.1) for n in range(3)]
    panels = reports.panels_of(
        np.full((96, 96), 90, np.uint8), answers, title="x", truth=ImageTruth(0.0), side=96
    )
    sheet = np.asarray(reports.draw_sheet(panels, "Below."))
    grey = (sheet == 90).all(axis=2)
    assert (grey.sum(axis=1) >= 96 * len(panels) / 2).sum() >= 96  # panels in one row or two
    assert grey.sum() >= len(panels) * 96 * 96
    longer = np.asarray(reports.draw_sheet(panels, "A text below. " * 40))
    assert longer.shape[0] > sheet.shape[0]
    assert longer.shape[1] == sheet.shape[1]


@pytest.mark.parametrize("side", [320, 360, 480])
def test_the_words_of_a_panel_do_not_run_into_the_next_or_off_the_sheet(side):
    answers = [ImagePrediction("system " * 20, RED, score=0.1)]
    panels = reports.panels_of(
        np.full((side, side), 90, np.uint8), answers, title="long-name-of-an-image" * 9, side=side
    )
    sheet = np.asarray(reports.draw_sheet(panels, "below " * 99))
    gap = 8
    ends = [slice(gap + side, gap + side + gap), slice(sheet.shape[1] - gap, None)]
    high = sheet.shape[0] // 2 + side // 2  # captions and the text below
    assert (sheet[high:] < 255).any()
    assert (sheet[side + gap :, ends[1]] == 255).all()
    captions = slice(side + gap, side + gap + 80)
    assert (sheet[captions, ends[0]] == 255).all()


# image: label, score and place of A, score and place of B; positive from 0.5 on
IMAGES = {
    "p1": (1, 0.9, True, 0.8, True),
    "p2": (1, 0.7, True, 0.2, None),
    "p3": (1, 0.1, None, 0.9, False),
    "p4": (1, 0.2, None, 0.1, None),
    "p5": (1, 0.8, False, 0.7, True),
    "n1": (0, 0.1, None, 0.1, None),
    "n2": (0, 0.6, None, 0.1, None),
    "n3": (0, 0.2, None, 0.95, None),
    "n4": (0, 0.7, None, 0.2, None),
}


def decisions_of(images=IMAGES, copies=1):
    rows = [
        (name, f"{image}-{copy}" if copies > 1 else image, label, *answer)
        for copy in range(copies)
        for image, (label, *of_both) in images.items()
        for name, answer in zip("AB", (of_both[:2], of_both[2:]), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["system", "image_id", "label", "score", "localised"])
    table["localised"] = table["localised"].astype("boolean")
    return table.assign(decision_t=(table["score"] >= 0.5).astype("boolean"))


def kinds_of(table, systems=("A", "B"), **options):
    chosen = reports.select_cases(table, systems, "t", **options)
    return {each.kind: each for each in chosen}


def test_each_kind_has_its_images_in_the_order_of_the_question():
    kinds = kinds_of(decisions_of())
    assert list(kinds)[:3] == ["A yes, B no", "B yes, A no", "Missed by both"]
    ids = {kind: set(each.image_ids) for kind, each in kinds.items()}
    assert ids["A yes, B no"] == {"p2"}
    assert ids["B yes, A no"] == {"p3"}  # although its place is wrong
    assert kinds["A yes, B no"].on_lesion == 1
    assert kinds["B yes, A no"].on_lesion == 0
    assert {each.n_boxed for kind, each in kinds.items() if " yes, " not in kind} == {0}
    assert [each.among for each in kinds.values()] == [
        *["5 positive"] * 4,
        "4 negative",
        "9 images",
    ]
    assert ids["Missed by both"] == {"p4"}
    assert ids["Called, off the lesion"] == {"p5"}
    assert ids["False alarms"] == {"n2", "n3", "n4"}
    (right,) = (kind for kind in kinds if kind.startswith("Both right"))
    assert ids[right] == {"p1", "n1"}


def test_the_number_of_right_images_is_that_of_the_confusion_matrices_or_the_title_differs():
    """On p5 both systems are right, and one points elsewhere."""
    table = decisions_of()
    assert "Both right" not in kinds_of(table)  # p1 and n1, and p5 in the matrices
    assert kinds_of(table.assign(localised=pd.NA))["Both right"].total == 3
    assert kinds_of(table[table["image_id"] != "p5"])["Both right"].total == 2
    by_image = table.pivot(index="image_id", columns="system")
    label = by_image["label"]["A"]
    answers = (by_image[name] for name in ("decision_t", "score", "localised"))
    right = reports.image_kinds(label, *answers)[-1]  # the tab of the page of overlays
    assert set(right.image_ids) == {"p1", "n1"}
    assert right.title != "Both right"


def test_beside_a_joint_system_no_kind_speaks_of_all_systems_or_of_one_alone():
    kinds, alone = kinds_of(decisions_of(), has_joint=True), kinds_of(decisions_of())
    assert all(("A" in title and "B" in title) or "both" in title.lower() for title in kinds)
    assert [each._replace(kind="") for each in kinds.values()] == [
        each._replace(kind="") for each in alone.values()
    ]


def test_of_images_found_alone_those_with_boxes_are_counted_and_come_first():
    """An image without boxes, p6, has the higher score, and none is on the lesion or beside it."""
    kinds = kinds_of(decisions_of(IMAGES | {"p6": (1, 0.1, None, 0.99, None)}))
    only = kinds["B yes, A no"]
    assert (only.total, only.n_boxed, only.on_lesion) == (2, 1, 0)
    assert only.image_ids == ("p3", "p6")
    unboxed = {name: (*row[:2], None, row[3], None) for name, row in IMAGES.items()}
    assert {each.n_boxed for each in kinds_of(decisions_of(unboxed)).values()} == {0}


def test_the_most_confident_errors_come_first_by_rank_within_the_system():
    alarms = kinds_of(decisions_of())["False alarms"].image_ids
    assert alarms[0] == "n3"  # the highest score of B
    assert alarms.index("n4") < alarms.index("n2")


@settings(max_examples=10)
@given(st.randoms(use_true_random=False), st.integers(1, 6), st.integers(1, 12))
def test_each_image_is_shown_once_bounded_and_whatever_the_order_of_rows(random, per_kind, copies):
    table = decisions_of(copies=copies)
    order = list(table.index)
    random.shuffle(order)
    shown = kinds_of(table, per_kind=per_kind)
    assert shown == kinds_of(table.loc[order], per_kind=per_kind)
    ids = [image for each in shown.values() for image in each.image_ids]
    assert len(ids) == len(set(ids)) <= 20
    assert all(len(each.image_ids) <= per_kind for each in shown.values())
    assert shown["A yes, B no"].total == copies


def test_right_images_are_a_sample_that_the_seed_decides():
    table = decisions_of(copies=30)
    samples = [kinds_of(table, seed=seed).popitem()[1].image_ids for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert [image[0] for image in samples[0]] == ["p", "n", "p"]


def test_what_is_unknown_or_undecided_is_no_error():
    table = decisions_of()
    table.loc[table["image_id"] == "p4", "label"] = np.nan
    assert "Missed by both" not in kinds_of(table)
    undecided = decisions_of()
    undecided.loc[undecided["system"] == "B", "decision_t"] = pd.NA
    kinds = kinds_of(undecided)
    assert set(kinds["Missed"].image_ids) == {"p3", "p4"}
    assert not any("B" in kind for kind in kinds)
    assert reports.select_cases(table, ["A", "B"], "other") == []


def test_readers_of_a_data_set_are_on_the_sheets_of_overlay(world, tmp_path):
    data = shutil.copytree(world.data, tmp_path / "data")
    opened = DataSet.open(data)
    labels = opened.labels(opened.target()).reindex(opened.image_ids("test"))
    image = labels.index[labels == 1][0]
    pictures = []
    for number in range(2):
        if number:
            reports.add_readers(data, image, 12.0)
        out = tmp_path / str(number)
        cxr_compare.overlay(world.predictions("classifier"), data=data, out=out, image=[image])
        pictures.append(np.asarray(Image.open(out / f"{image}-overlay.png")).astype(int))
    yellow = [(each[:, :, 0] - each[:, :, 2] > 120).sum() for each in pictures]
    assert yellow[1] > yellow[0] + 100


@pytest.fixture(scope="module")
def overlays(world, tmp_path_factory):
    """Overlays of files: the worst four images of each kind."""
    out, tables = tmp_path_factory.mktemp("overlays") / "o", world.tables
    files = {"Boxes": "boxes.csv", "Scores": "a.csv"}
    cxr_compare.overlay(
        *(f"{name}={tables / file}" for name, file in files.items()),
        truth=tables / "truth.csv",
        boxes=tables / "true_boxes.csv",
        images=world.pictures,
        out=out,
        limit=4,
    )
    return out


def kinds_on(tab):
    """The number of drawn images and of all images in each tab of a page of overlays."""
    texts = tab.locator(".kinds a").all_inner_texts()
    found = [re.fullmatch(r"(.+?)(\d+)(?: of (\d+))?", text.replace("\n", "")) for text in texts]
    return {each[1].strip(): (int(each[2]), int(each[3] or each[2])) for each in found}


def test_the_page_of_overlays_counts_the_images_of_each_cell_and_arrows_go_on(
    browser, overlays, world
):
    tab, page = browser.page, overlays / "index.html"
    answer = Result.open(world.tables_report)
    counts = answer.figures.set_index(["first", "metric", "policy"])["estimate"]
    browser.open(page, 1280, 900)
    kinds = kinds_on(tab)
    drawn = {path.name for path in overlays.glob("*.png")}
    assert kinds["All"] == (len(drawn), answer.answer.counts["images"])
    for name in ("Boxes", "Scores"):
        for title, cell in ((f"Missed by {name}", "fn"), (f"False alarms of {name}", "fp")):
            n = counts[name, cell, answer.answer.policy]
            assert kinds.get(title, (0, 0))[1] == n
            assert kinds.get(title, (0, 0))[0] >= min(n, 4)
    for width, dark in ((1280, False), (390, True)):
        browser.open(page, width, 900, dark=dark)
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        seen = set()
        for number in range(1, len(drawn) + 1):
            assert tab.inner_text("#place") == f"{number} of {len(drawn)}"
            tab.locator("#picture").evaluate("(picture) => picture.decode()")
            seen.add(tab.get_attribute("#picture", "src"))
            tab.keyboard.press("ArrowRight")
        assert seen == drawn
        assert tab.inner_text("#place") == f"1 of {len(drawn)}"
    assert browser.complaints == []


def listed(tab):
    """The number of images that the list of the page has, as it says."""
    return int(tab.inner_text("#number").partition(" of ")[0].replace(",", ""))


def test_each_cell_of_a_confusion_matrix_lists_its_images_with_their_pictures(browser, world):
    tab, result = browser.page, Result.open(world.tables_report)
    browser.open(world.tables_report / "report.html", 1280, 900)
    assert len(tab.locator(".matrix [data-kind]").all()) > 6
    for cell in tab.locator(".matrix [data-kind]").all():
        cell.click()
        assert listed(tab) == int(cell.inner_text())
    answers = result.decisions.query("system == 'Scores'").set_index("image_id")
    wrong = answers["decision_max_f1"].astype(bool) != (answers["label"] >= 1)
    number = result.shown.index("Scores")
    tab.click(f".matrix [data-kind='{number}-fp']")
    rows = tab.locator("#list tbody tr").all_inner_texts()
    assert len(rows) == min(20, (wrong & (answers["label"] < 1)).sum())
    for row in rows:
        name, truth, *_ = row.split()
        assert truth == "negative"
        assert wrong[name]
    tab.click(f"#list thead th:nth-child({3 + number}) button")
    scores = [
        float(cell.split()[0])
        for cell in tab.locator(f"#list tbody td:nth-child({3 + number})").all_inner_texts()
    ]
    assert scores == sorted(scores)
    tab.fill("#part", name)
    assert listed(tab) == 1
    tab.click("#list tbody a")
    tab.wait_for_selector("#strip")
    assert tab.inner_text("#name") == name
    said = tab.text_content("#lines")
    assert "Scores: ✗ false alarm" in said
    address = tab.url
    tab.keyboard.press("ArrowRight")
    assert tab.url != address or tab.locator("#strip a").count() == 1
    tab.reload()
    tab.goto(address)
    assert tab.text_content("#lines") == said
    tab.click("header a")
    tab.wait_for_selector("#answer")
    assert browser.complaints == []


def test_a_report_draws_its_cases_and_then_the_surest_errors_up_to_a_number(world):
    result = Result.open(world.tables_report)
    drawn, cases = set(result.answer.overlays), set(result.cases()["image_id"])
    rows = result.decisions[result.decisions["system"] != result.answer.joint]
    wrong = rows["decision_max_f1"].astype(bool) != (rows["label"] >= 1)
    errors = set(rows.loc[wrong, "image_id"])
    assert cases <= drawn <= cases | errors
    assert len(drawn) == min(100, len(cases | errors))


def test_on_a_narrow_screen_long_parts_begin_folded_and_the_first_answer_is_seen(browser, world):
    browser.open(world.tables_report / "report.html", 390, 844)
    folded = "[...document.querySelectorAll('details.narrow')].every((part) => !part.open)"
    assert browser.evaluate(folded)
    browser.open(world.tables_report / "report.html", 1280, 900)
    assert not browser.evaluate(folded)
    browser.open(world.tables_report / "overlays/index.html", 390, 844)
    browser.page.locator("#picture").evaluate("(picture) => picture.decode()")
    browser.page.wait_for_function("document.getElementById('sheet').scrollLeft > 200")


def test_charts_of_a_report_have_letters_of_twelve_px_on_a_narrow_screen(browser, world):
    browser.open(world.tables_report / "report.html", 390, 844)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('.chart svg text')]"
        ".map((t) => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)"
        ".filter((size) => size)"  # of charts that are not folded
    )
    assert len(sizes) > 20
    assert min(sizes) > 11.5


def test_overlays_of_files_are_those_of_their_comparison(world, overlays):
    tables = world.tables
    made = cxr_compare.compare(
        {"Boxes": tables / "boxes.csv", "Scores": tables / "a.csv"},
        truth=tables / "truth.csv",
        boxes=tables / "true_boxes.csv",
        images=str(world.pictures),
        replicates=100,
    )
    files = sorted(overlays.glob("*.png"))
    for file in files[:: len(files) // 8]:
        drawn = made.overlay(file.name.removesuffix("-overlay.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(drawn))


def test_overlays_of_predictions_are_those_of_their_report(world, tmp_path):
    report = Result.open(world.report)
    place = 2 + report.ordered.index("CheXNet")

    def share_of_map(image):
        drawing = np.asarray(report.overlay(image)).astype(int)
        panel = np.array_split(drawing, 4, axis=1)[place]
        return (abs(panel[:, :, 0] - panel[:, :, 2]) > 20).mean()

    called = report.decisions.query("system == 'CheXNet' and decision_max_f1")["image_id"]
    cases = [name for name in report.cases()["image_id"] if name in set(called)]
    image = max(cases, key=share_of_map)
    assert share_of_map(image) > 0.01  # a heat map
    kinds = {"RetinaNet": "detector", "CheXNet": "classifier"}
    systems = [f"{name}={world.predictions(kinds[name])}" for name in report.ordered]
    cxr_compare.overlay(*systems, data=world.data, out=tmp_path / "o", image=image)
    drawn, own = (
        np.asarray(picture).astype(int)
        for picture in (Image.open(tmp_path / f"o/{image}-overlay.png"), report.overlay(image))
    )
    side = own.shape[1] // 4  # of the image, the truth and two systems
    np.testing.assert_array_equal(drawn[:, side:], own[:, side:])  # the first one names its file


def test_overlays_of_runs_are_those_of_their_predictions_in_the_order_of_the_call(world, tmp_path):
    image = next(iter(DataSet.open(world.data).image_ids("test")))
    kinds = ["detector", "classifier"]
    drawn = {}
    for name, systems in (
        ("of runs", [world.run(kind) for kind in kinds]),
        ("in order", [f"{kind}={world.predictions(kind)}" for kind in kinds]),
        ("in another order", [f"{kind}={world.predictions(kind)}" for kind in kinds[::-1]]),
    ):
        cxr_compare.overlay(*systems, data=world.data, out=tmp_path / name, image=[image])
        drawn[name] = (tmp_path / name / f"{image}-overlay.png").read_bytes()
    assert drawn["of runs"] == drawn["in order"] != drawn["in another order"]


def test_overlays_decide_and_locate_as_the_comparison_does(world):
    systems = {"RetinaNet": "detector", "CheXNet": "classifier"}
    folders = {name: world.predictions(kind) for name, kind in systems.items()}
    drawn = reports.outcomes_of(folders, world.data, "max_f1")
    rows = Result.open(world.report).decisions.set_index(["system", "image_id"])
    for name in systems:
        compared = rows.loc[name]
        own = drawn[name].loc[compared.index]
        np.testing.assert_array_equal(own["score"], compared["score"])
        assert (own["decision"] == compared["decision_max_f1"]).all()
        known = compared["localised"].notna()
        assert (own["localised"].notna() == known).all()
        assert (own["localised"][known] == compared["localised"][known]).all()
    fixed = reports.outcomes_of(folders, world.data, "threshold=0.5")["CheXNet"]
    assert (fixed["decision"] == (fixed["score"] >= 0.5)).all()
