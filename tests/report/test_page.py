"""Pages and drawings: what they show, how much they say, and that a browser shows them."""

import html
import re
from html.parser import HTMLParser

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import cxr_compare
from cxr_compare import Result
from tests.adapters import reports
from tests.adapters.reports import ImagePrediction, ImageTruth

PAGE = "report.html"
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


def test_figures_and_decisions_alone_are_csv_files_too_with_the_rows_of_their_tables(two):
    csv = {path.stem: len(pd.read_csv(path)) for path in two.glob("*.csv")}
    assert csv == {name: len(pd.read_parquet(two / f"{name}.parquet")) for name in csv}
    assert sorted(csv) == ["decisions", "figures"]


def test_every_value_with_an_interval_on_the_page_is_in_a_table(two):
    text = (two / "report.html").read_text()
    tables = [pd.read_parquet(two / f"{name}.parquet") for name in ("figures", "groups", "lesions")]
    rows = pd.concat(tables)
    ends = rows[["estimate", "ci_low", "ci_high"]].dropna().to_numpy()
    claims = Result.open(two).answer.claims
    of_claims = [[each.estimate, each.ci_low, each.ci_high] for each in claims]
    known = np.concatenate([ends, np.array(of_claims, float)])
    known = np.concatenate([known, -known[:, [0, 2, 1]]])  # a difference is of the higher one
    shown = re.findall(r">(−?[\d.]+)<small>\((−?[\d.]+) to (−?[\d.]+)\)", text)
    assert len(shown) > 20
    for cell in shown:
        values = [float(part.replace("−", "-")) for part in cell]
        assert np.isclose(known, values, atol=6e-4).all(axis=1).any(), cell


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


def all_of(table, systems=("A", "B")):
    """The images of each kind, as on the page of overlays."""
    return {each.title: each.image_ids for each in reports.image_kinds(table, systems, "t")}


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
        *["4 negative"] * 2,
        "9 images",
    ]
    assert ids["Missed by both"] == {"p4"}
    assert ids["Called, off the lesion"] == {"p5"}
    assert ids["False alarms of A"] == {"n2", "n4"}
    assert ids["False alarms of B"] == {"n3"}
    (right,) = (kind for kind in kinds if kind.startswith("Both right"))
    assert ids[right] == {"p1", "n1"}


def test_the_worst_image_of_a_kind_comes_first():
    table = decisions_of()
    kinds = all_of(table)
    assert kinds["False alarms of A"] == ("n4", "n2")
    assert kinds["Called, off the lesion"] == ("p3", "p5")
    assert all_of(table, ["A"])["Missed"] == ("p3", "p4")
    of_b = table["system"] == "B"
    fewer = table.assign(score=table["score"].mask(of_b, 0.0))
    fewer["decision_t"] = fewer["decision_t"].mask(of_b, False)
    assert all_of(fewer)["A yes, B no"] == ("p1", "p5", "p2")
    fewer["localised"] = fewer["localised"].mask(fewer["image_id"] == "p1")
    assert all_of(fewer)["A yes, B no"] == ("p5", "p2", "p1")  # where the place is known


def test_kinds_of_one_system_and_of_three():
    table = decisions_of()
    alone = all_of(table, ["A"])
    assert {name: set(ids) for name, ids in alone.items()} == {
        "Missed": {"p3", "p4"},
        "Called, off the lesion": {"p5"},
        "False alarms of A": {"n2", "n4"},
        "Right, none off the lesion": {"p1", "p2", "n1", "n3"},
    }
    third = table[table["system"] == "A"].assign(system="C", decision_t=False, score=0.1)
    three = all_of(pd.concat([table, third]), "ABC")
    assert {name: set(ids) for name, ids in three.items()} == {
        "A yes, the other 2 no": {"p2"},
        "B yes, the other 2 no": {"p3"},
        "Missed by all 3": {"p4"},
        "Called, off the lesion": {"p3", "p5"},
        "False alarms of A": {"n2", "n4"},
        "False alarms of B": {"n3"},
        "All 3 right": {"n1"},
    }


def test_the_number_of_right_images_is_that_of_the_confusion_matrices_or_the_title_differs():
    """On p5 both systems are right, and one points elsewhere."""
    table = decisions_of()
    assert "Both right" not in kinds_of(table)  # p1 and n1, and p5 in the matrices
    assert kinds_of(table.assign(localised=pd.NA))["Both right"].total == 3
    assert kinds_of(table[table["image_id"] != "p5"])["Both right"].total == 2
    (right,) = (ids for title, ids in all_of(table).items() if title.startswith("Both right"))
    assert set(right) == {"p1", "n1"}


@settings(max_examples=10)
@given(st.randoms(use_true_random=False), st.integers(1, 6), st.integers(1, 12))
def test_each_image_is_shown_once_bounded_and_whatever_the_order_of_rows(random, per_kind, copies):
    table = decisions_of(copies=copies)
    order = list(table.index)
    random.shuffle(order)
    shown = kinds_of(table, per_kind=per_kind)
    assert shown == kinds_of(table.loc[order], per_kind=per_kind)
    ids = [image for each in shown.values() for image in each.image_ids]
    assert len(ids) == len(set(ids)) <= 28
    assert all(len(each.image_ids) <= per_kind for each in shown.values())
    assert shown["A yes, B no"].total == copies


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
    for name, other in (("Boxes", "Scores"), ("Scores", "Boxes")):
        missed = [f"{other} yes, {name} no", "Missed by both"]
        for titles, cell in ((missed, "fn"), ([f"False alarms of {name}"], "fp")):
            numbers = [kinds.get(title, (0, 0)) for title in titles]
            assert sum(n for _, n in numbers) == counts[name, cell, answer.answer.policy]
            assert all(n_drawn >= min(n, 4) for n_drawn, n in numbers)
    for link, (n_drawn, _) in zip(tab.locator(".kinds a").all(), kinds.values(), strict=True):
        link.click()
        tab.wait_for_selector(f"#place:text-is('1 of {n_drawn}')")  # the page follows its address
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


MATRIX = re.compile(r'<figure class="matrix s(\d+)">(.*?)</figure>', re.DOTALL)
KEY = re.compile(r'class="key s(\d+)"></span>(?:<[ab][^>]*>)?([^<]+)')


def test_a_matrix_has_each_count_where_it_belongs_and_a_system_one_colour(world):
    result, text = Result.open(world.tables_report), (world.tables_report / PAGE).read_text()
    places = {name: place for place, name in enumerate(result.systems)}
    matrices = MATRIX.findall(text)
    assert len(matrices) == len(result.systems)
    for (place, part), (name, counts) in zip(matrices, result.confusion.items(), strict=True):
        assert int(place) == places[name]
        assert re.findall("<th>(.*?)</th>", part) == [
            *("called positive", "called negative", "positive", "negative")
        ]
        cells = re.findall(r"([\d,]+)(?:</a>)?</b><small>(\d*)", part)
        expected = [counts[cell] for cell in ("tp", "fn", "fp", "tn")]
        totals = np.repeat([counts["tp"] + counts["fn"], counts["fp"] + counts["tn"]], 2)
        assert [int(count.replace(",", "")) for count, _ in cells] == expected
        shares = [int(share) for _, share in cells]
        assert shares == pytest.approx(100 * np.array(expected) / totals, abs=0.5)
    keys = [(html.unescape(name), int(place)) for place, name in KEY.findall(text)]
    assert {*keys} == {*places.items()}
    assert len(keys) > 3 * len(places)


@pytest.mark.parametrize(
    ("n_boxed", "on_lesion", "said"),
    [
        (0, 0, ""),
        (3, 3, ", all on the lesion"),
        (3, 0, ", none on the lesion"),
        (3, 1, ", 1 on the lesion"),
        (2, 2, ", all of the 2 with boxes on the lesion"),
    ],
)
def test_a_kind_of_cases_says_how_many_of_those_with_boxes_are_on_the_lesion(
    n_boxed, on_lesion, said
):
    text = reports.total_text(3, "1,200 positive", n_boxed, on_lesion)
    assert text == f"3 of 1,200 positive{said}"


def listed(tab):
    """The number of images that the list of the page has, as it says."""
    return int(tab.inner_text("#number").partition(" of ")[0].replace(",", ""))


def test_each_cell_of_a_confusion_matrix_lists_its_images_with_their_pictures(browser, world):
    tab, result = browser.page, Result.open(world.tables_report)
    browser.open(world.tables_report / PAGE, 1280, 900)
    assert len(tab.locator(".matrix [data-kind]").all()) > 6
    options = tab.locator("#kind option").all_text_contents()
    beside = result.decisions["localised"].eq(False).fillna(False).astype(bool)
    beside &= result.decisions["decision_max_f1"].astype(bool) & (result.decisions["label"] >= 1)
    # Where the place is unknown it is not wrong, and that of both together is a member's.
    wrong_places = {*result.decisions.loc[beside, "system"]} - {result.answer.joint}
    titles = {text for text in options if text.endswith(", off the lesion")}
    assert titles == {f"{name}: called, off the lesion" for name in wrong_places} != set()
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
