"""The report: what it opens with, what it holds, and that a real browser shows it."""

import io
import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.figures import Figure, Figures
from cxr_compare.evaluation.metrics.metric import MetricKey
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.overlays.draw import draw_panel, mark_source
from cxr_compare.evaluation.overlays.legend import MARKS
from cxr_compare.evaluation.overlays.shapes import Shape, rectangle
from cxr_compare.evaluation.overlays.sheet import draw_case
from cxr_compare.evaluation.report.case_selection import CASES_PER_CATEGORY
from cxr_compare.evaluation.report.drawn_case import embed_panels
from cxr_compare.evaluation.report.report import MAX_BYTES
from cxr_compare.evaluation.report.summary_table import table_rows
from cxr_compare.evaluation.report.table import value_text
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.system_result import SystemResult
from tests.outline import Outline
from tests.saved_report import save_report
from tests.undrawn_figures import leave_figures_out

COSTS = ("Parameters (million)", "FLOPs per image (billion)", "Time per image (ms)")


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Charts take a second a report; only the tests that ask for them draw them."""
    if "figures_lie" not in request.node.name:
        leave_figures_out(monkeypatch)
    monkeypatch.setattr("cxr_compare.evaluation.report.cases.draw_case", small_case)


def small_case(*args, **options):
    return draw_case(*args, **{**options, "panel": 64})


def unfolded(html):
    """The page without what is folded."""
    while "<details" in html:  # the innermost first
        html = re.sub(r"<details(?:(?!<details).)*?</details>", "", html, flags=re.DOTALL)
    return html


@pytest.fixture(scope="module")
def read_only(hand_made, tmp_path_factory):
    """The folder of one report that many tests look at."""
    folder = tmp_path_factory.mktemp("read-only") / "report"
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_out(patch)
        patch.setattr("cxr_compare.evaluation.report.cases.draw_case", small_case)
        save_report(*hand_made(), folder)
    return folder


@pytest.fixture
def page(read_only):
    return read_only / "report.html"


@pytest.fixture
def html(page):
    return page.read_text()


@pytest.fixture
def outline(html):
    return Outline(html)


@pytest.fixture
def written(comparison, image_set, report_folder):
    """Write a report of the comparison, or of a changed one, and return its page."""

    def write(changed=comparison, **options):
        return save_report(
            changed, image_set.labelled, image_set.pixels, report_folder, **options
        ).read_text()

    return write


def test_report_opens_with_the_answer(html):
    body = html[html.index("<body>") :]
    headline = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)[1]
    assert "RetinaNet and CheXNet were not shown to differ" in headline
    assert body.index("<h1") < body.index("<h2")
    assert "these two trained models" in html


def test_every_caution_opens_from_a_few_words_and_a_short_one_stands_in_full(written, comparison):
    one = replace(comparison, notes=[Note("synthetic", "Synthetic images.")])
    assert '<p class="cautions">Synthetic images.' in written(one)
    long = written(replace(comparison, notes=[Note("copies", "a" * 130)]))
    assert f"images</summary><p>{'a' * 130}</p>" in long
    kinds = ["few_patients", "copies", "audit", "elsewhere", "synthetic"]
    several = replace(comparison, notes=[Note(kind, f"About {kind}.") for kind in kinds])
    cautions = re.search(r'<ul class="cautions".*?</ul>', written(several), re.DOTALL)[0]
    opened = re.findall(r"<summary>(.*?)</summary><p>(.*?)</p>", cautions)
    assert [text for _, text in opened] == [note.text for note in several.answer.cautions]
    assert len(opened) == len(kinds)
    assert all(3 <= len(brief.split()) <= 6 for brief, _ in opened)


def test_chance_stands_above_the_answer_where_no_system_beats_it(written, comparison):
    for name in comparison.names:
        figures = comparison.figures.rows[name, ""]
        key = MetricKey("all", "", "auroc")
        figures[key] = replace(figures[key], ci_low=0.4, p_value=0.3)
    html = written()
    assert re.search(r"<h1[^>]*>Neither system was shown to be better than chance by AUROC.<", html)
    assert '<p class="second">RetinaNet and CheXNet were not shown to differ in AUROC' in html


def test_difference_that_fails_the_correction_is_marked_as_not_shown(written, comparison):
    gaps = comparison.figures.rows["RetinaNet", "CheXNet"]
    key = MetricKey("all", "", "average_precision")
    gaps[key] = replace(
        gaps[key], estimate=0.1, ci_low=0.01, ci_high=0.2, interval_at=lambda _: (-0.01, 0.3)
    )
    row = written().split('scope="row">Average precision</th>')[1].split("</tr>")[0]
    assert "<b>○ 0.100</b> <small>(0.010 to 0.200) †</small>" in row


def test_report_needs_nothing_from_outside(outline):
    outside = [link for link in outline.links if not link.startswith(("#", "data:"))]
    assert set(outside) <= {"cards/RetinaNet.md", "cards/CheXNet.md"}


def test_markup_is_well_formed(outline):
    assert outline.problems == []
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    anchors = {link[1:] for link in outline.links if link.startswith("#")}
    assert anchors <= set(outline.ids)


def test_every_svg_is_valid_xml_with_a_name_or_hidden(html):
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) > 20
    for drawing in drawings:
        root = ET.fromstring(drawing)  # noqa: S314 - our own text
        named = {"aria-label", "aria-labelledby", "aria-hidden"} & set(root.keys())
        assert named, drawing[:80]


def test_first_table_has_the_usual_rows_at_one_threshold(html):
    table = html[html.index('id="figures"') : html.index("</table>")]
    rows = re.findall(r'scope="row">(.*?)</th>', table)
    assert rows == [
        "AUROC",
        "Average precision",
        "AP50 of the decided boxes",
        "Score threshold for best F1",
        "Sensitivity (recall)",
        "Specificity",
        "Precision",
        "F1",
        "Accuracy",
        "Localised sensitivity",
        *COSTS,
    ]
    for text in ("0.891", "0.851 to 0.921", "0.862", "−0.021 to 0.089", "best F1"):
        assert text in table
    assert "0.95" not in re.sub(r"<[^>]*>", "", table).replace("95 %", "")


def test_every_figure_of_the_page_is_one_of_the_tables(html, read_only):
    tables = [pd.read_parquet(read_only / f"{name}.parquet") for name in ("figures", "groups")]
    rows = pd.concat(tables)[["estimate", "ci_low", "ci_high"]].dropna()
    figures = [Interval(*row) for row in rows.to_numpy(float)]
    known = {value_text(figure) for figure in figures}
    known |= {value_text(figure.reversed()) for figure in figures}
    shown = re.findall(r"<b>(?:[●○] )?([−\d.]+)</b> <small>(\([−\d.]+ to [−\d.]+\))", html)
    assert len(shown) > 20
    assert {f"{value} {ends}" for value, ends in shown} <= known


def test_rows_of_the_first_table_are_those_asked_for(written):
    rows = table_rows(["f1", "precision@specificity>=0.90"])
    html = written(rows=rows)
    table = html[html.index('id="figures"') : html.index("</table>")]
    assert re.findall(r'scope="row">(.*?)</th>', table) == [
        "Score threshold for best F1",
        "F1",
        "Score threshold for specificity ≥ 0.90",
        "Precision",
        *COSTS,
    ]


def test_threshold_says_what_chose_it(written, comparison):
    figures = comparison.figures.rows["CheXNet", ""]
    for key in [key for key in figures if key.policy == "max_f1"]:
        figures[key] = replace(figures[key], n_chosen_on=1234)
    html = written().replace("\u00a0", " ")
    table = html[html.index('id="figures"') : html.index("</table>")]
    assert "<b>0.500</b> <small>(from 1,234 positive validation images)</small>" in table


def test_examples_are_one_case_of_each_kind_and_lead_to_it(html, outline):
    examples = html[html.index('id="examples"') : html.index('id="figures"')]
    anchors = re.findall(r'<a href="#(case-.*?)-\d+"', examples)
    assert anchors == ["case-agreement", "case-only-1", "case-wrong-place"]
    assert set(re.findall(r'<a href="#(case-.*?)"', examples)) <= set(outline.ids)
    assert examples.count('<img src="data:image/jpeg;base64,') == 3


def test_first_example_has_every_point_and_box_on_a_lesion(html):
    first = html.split('<figure class="example">')[1]
    assert first.count("found, on the lesion") == 2


def test_page_answers_where_each_fails_before_the_cases_and_folds_the_rest(html):
    shown = unfolded(html)
    where = shown[shown.index('id="where"') : shown.index('id="gallery"')]
    assert re.findall(r"<h3>(.*?)</h3>", where) == ["Kinds of error", "Which system corrects whom"]
    assert shown.index('id="figures"') < shown.index('id="curves"') < shown.index('id="where"')
    assert "<table" not in shown.split('id="gallery"')[1]
    assert {"cite", "reading"} <= set(re.findall(r'<div id="(.*?)">', html))


def test_gallery_keeps_the_kinds_of_failure_apart(html):
    kinds = re.findall(r'<details class="category" id="cases-(.*?)"', html)
    assert kinds[:5] == ["only-1", "only-2", "all-miss", "wrong-place", "alarm-normal"]


def test_right_and_wrong_have_a_word_and_a_shape(html):
    outcomes = re.findall(r'sign-(right|wrong)".*?</svg>(.*?)</span>', html)
    assert {kind for kind, _ in outcomes} == {"right", "wrong"}
    assert all(words.strip() for _, words in outcomes)


def test_overlays_lie_beside_the_report(html, read_only):
    overlays = [path.stem for path in (read_only / "overlays").glob("*.png")]
    assert "all-miss-01" in overlays
    assert len(overlays) == html.count('<article class="case"')


def test_figures_lie_beside_the_report(written, report_folder):
    written()
    names = {"forest", "roc", "pr", "scores", "confusion"}
    files = {path.name: path for path in (report_folder / "figures").iterdir()}
    assert set(files) == {"charts.pdf", *(f"{name}.svg" for name in names)}
    pages = files["charts.pdf"].read_bytes()
    assert pages.count(b"/Type /Page ") == len(names)
    assert b"/FontFile2" in pages
    assert b"/Type3" not in pages


def test_second_report_leaves_no_image_of_the_first(written, report_folder):
    stale = [
        report_folder / "overlays" / "alarm-normal-99.png",
        report_folder / "figures" / "froc-iou.svg",
    ]
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    written()
    assert not any(path.exists() for path in stale)


def test_the_same_comparison_gives_the_same_bytes(written, html):
    assert written() == html


def test_set_without_pixels_lists_the_largest_disagreements(written, image_set):
    image_set.has_pixels = False
    html = written()
    listed = html[html.index('id="gallery"') : html.index('id="methods"')]
    assert len(re.findall('scope="row">', listed)) == 10
    assert "<img" not in listed
    assert image_set.reads == []


def test_names_from_outside_cannot_become_markup(written, comparison):
    comparison.notes.append(Note("unit", "<script>alert(1)</script>"))
    html = written()
    assert "<script>alert" not in html


def test_system_without_threshold_gets_figures_but_no_decisions(written, comparison):
    for policy in comparison.systems["CheXNet"].thresholds:
        comparison.systems["CheXNet"].thresholds[policy] = None
        del comparison.systems["CheXNet"].confusion[policy]
        called = comparison.decisions["system"] == "CheXNet"
        comparison.decisions.loc[called, f"decision_{policy}"] = pd.NA
    html = written()
    assert "undecided" in html
    errors = html[html.index("Kinds of error") :]
    assert 'data-name="Missed positive images">–</td>' in errors


def test_nothing_tuned_at_all_still_gives_a_report(written, comparison):
    for result in comparison.systems.values():
        result.thresholds.clear()
        result.confusion.clear()
    metrics = comparison.metrics
    kept = (metrics["policy"] == "") & metrics["metric"].isin(["auroc", "average_precision"])
    html = written(replace(comparison, figures=Figures.from_table(metrics[kept])))
    assert "need decisions, and there is no threshold" in html
    assert '<article class="case"' not in html


def test_a_metric_that_no_system_has_is_not_explained(html, written, comparison):
    explained = "<dt>AP50 of the decided boxes</dt>"
    assert explained in html
    metrics = comparison.metrics.copy()
    metrics.loc[metrics["metric"] == "ap50_decided", "estimate"] = np.nan
    assert explained not in written(replace(comparison, figures=Figures.from_table(metrics)))


def test_undefined_figure_shows_its_reason(written, comparison):
    figures = comparison.figures.rows["CheXNet", ""]
    for key in [key for key in figures if key.metric == "precision"]:
        figures[key] = Figure(note="no image is called positive")
    html = written()
    assert 'data-name="CheXNet">–</td>' in html
    assert "Precision (CheXNet): no image is called positive." in html


def test_file_that_is_gone_is_named_and_left_out(written, image_set):
    def read(image_id):
        if image_id == "p04":
            raise InputError("gone")
        return np.zeros((32, 32), np.uint8)

    image_set.read_original = read
    html = written()
    assert "read: p04" in html


def test_report_is_bounded_however_many_images(written, comparison, image_set, report_folder):
    copies = [
        comparison.decisions.assign(image_id=comparison.decisions["image_id"] + f"-{copy}")
        for copy in range(200)
    ]
    many = replace(comparison, decisions=pd.concat(copies, ignore_index=True))
    ids = pd.DataFrame({"image_id": many.decisions["image_id"].unique()})
    image_set.labelled = replace(image_set.labelled, images=ids)
    written(many)
    assert len(image_set.reads) <= 7 * CASES_PER_CATEGORY
    assert (report_folder / "report.html").stat().st_size < MAX_BYTES


def test_what_needs_the_script_is_hidden_without_it(html):
    tag = html[html.index('<form id="choose"') :].split(">")[0]
    assert tag.endswith(" hidden"), tag


def test_case_carries_what_it_is_chosen_by(html):
    case = re.search(r'<article class="case"[^>]*data-id="p05"[^>]*>', html)[0]
    assert 'data-outcomes="misplaced placed"' in case
    assert 'data-lesion="7.81"' in case  # 16 x 20 of 64 x 64 px


def test_worst_panels_keep_to_their_share_and_are_at_most_1000_px_long():
    noise = np.random.default_rng(0).integers(0, 256, (1200, 800, 3), dtype=np.uint8)
    for most in (300_000, 100_000):
        sources = embed_panels([noise] * 4, most)
        assert sum(map(len, sources)) < most * 4 / 3 + 4 * 100
    (large,) = embed_panels([noise], 10_000_000)
    with Image.open(io.BytesIO(b64decode(large.partition(",")[2]))) as image:
        assert image.size == (667, 1000)


def test_page_of_20_cases_of_2000_px_stays_below_8_mb(
    comparison, image_set, monkeypatch, report_folder
):
    """Pixels of noise take more bytes than any X-ray."""
    monkeypatch.setattr("cxr_compare.evaluation.report.cases.draw_case", draw_case)
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 3)
    pixels = replace(image_set.pixels, read=lambda image_id: soft)
    page = save_report(comparison, image_set.labelled, pixels, report_folder)
    assert page.stat().st_size < MAX_BYTES == 8_000_000


@pytest.fixture
def three(comparison):
    """The comparison with a third system, which agrees with CheXNet on every image."""

    def third(frame):
        name = "first" if "first" in frame else "system"
        copy = frame[frame[name] == "CheXNet"].assign(**{name: "Reader"})
        return pd.concat([frame, copy], ignore_index=True)

    pairs = comparison.metrics["second"] == "CheXNet"
    other = comparison.metrics[pairs].assign(second="Reader")
    return replace(
        comparison,
        systems={**comparison.systems, "Reader": SystemResult()},
        figures=Figures.from_table(
            pd.concat([third(comparison.metrics), other], ignore_index=True)
        ),
        decisions=third(comparison.decisions),
    )


def test_three_systems_are_rows_of_the_main_table(written, three):
    html = written(three)
    assert "RetinaNet had the highest AUROC of 3 systems" in html
    table = html[html.index('id="figures"') : html.index("</table>")]
    rows = re.findall(r'scope="row"><i class="key s(\d)"></i>(.*?)</th>', table)
    assert rows == [("0", "RetinaNet"), ("1", "CheXNet"), ("2", "Reader")]
    assert "AUROC, highest minus this" in table
    assert "Only Reader finds it, in" not in html  # it agrees with CheXNet on every image
    assert 'id="cases-all-miss"' in html


@pytest.mark.parametrize("n_systems", [1, 9])
def test_one_to_nine_systems_fit_a_screen_and_a_phone(
    browser, comparison, image_set, tmp_path, n_systems
):
    changed = with_systems(comparison, n_systems, -0.2, 0.3)
    if n_systems == 1:
        changed = replace(comparison, systems={"RetinaNet": comparison.systems["RetinaNet"]})
    page = save_report(changed, image_set.labelled, image_set.pixels, tmp_path / "report")
    for width in (1280, 390):
        browser.open(page, width, 900)
        wide = browser.evaluate(
            """[...document.querySelectorAll("details")].forEach((fold) => { fold.open = true; });
            [...document.querySelectorAll("body, body *")].filter((node) =>
              node.scrollWidth > node.clientWidth + 1 && node.clientWidth
              && getComputedStyle(node).overflowX !== "hidden"
              && getComputedStyle(node).overflowX !== "visible").map((node) => node.className)"""
        )
        assert wide == []
        assert browser.evaluate("document.documentElement.scrollWidth") == width


def test_lines_are_at_least_1_px_wide_where_the_page_shows_a_panel_small():
    box = Shape("boxes", (rectangle([100, 100, 400, 400]),), "#FFFFFF", width=1.0, rim=0.0)
    drawn = draw_panel(np.zeros((512, 512), np.uint8), [box], 512)
    across = (drawn[256, :256, 0] > 200).sum()
    assert across >= 512 / 130  # four panels and their gaps beside each other in 549 px


def test_truth_has_one_mark_in_pictures_captions_and_legend(html):
    corners = mark_source(MARKS["truth"])
    assert html.count(corners) > 2
    legends = re.findall(r'<ul class="legend" aria-label="Legend of the images">(.*?)</ul>', html)
    assert legends
    assert all(corners in legend for legend in legends)


def test_legend_says_what_is_drawn_of_a_map_of_few_cells(written, comparison):
    maps = comparison.systems["CheXNet"].maps
    values = maps["values"].map(lambda cells: list(np.reshape(cells, (8, 8))[1:6, :5].ravel()))
    coarse = maps.assign(grid_h=5, grid_w=5, values=values)
    systems = dict(comparison.systems)
    systems["CheXNet"] = replace(systems["CheXNet"], maps=coarse)
    page = written(replace(comparison, systems=systems))
    assert MARKS["cell"].text in page
    assert MARKS["contours"].text not in page
    assert MARKS["contours"].text in written(comparison)  # 8 × 8 cells have contours


def test_cautions_of_one_kind_open_from_one_chip(written, comparison):
    few = [
        Note("few_patients", f"The 6 {name} images are of 6 patients.")
        for name in ("positive", "negative")
    ]
    page = written(replace(comparison, notes=few))
    assert page.count("Few patients in a class</summary>") == 1
    assert all(f"<p>{each.text}</p>" in page for each in few)


def test_one_system_alone_is_reported_without_differences(written, comparison):
    one = replace(comparison, systems={"RetinaNet": comparison.systems["RetinaNet"]})
    html = written(one)
    assert "The AUROC of RetinaNet for lung opacity was 0.891" in html
    assert "paired difference" not in html[: html.index("How to read the numbers</h3>")]


def test_page_is_short_opens_its_folds_and_leaves_the_console_clean(browser, page):
    for width, height, most_screens in ((1280, 900, 12), (390, 844, 20)):
        browser.open(page, width, height)
        root = "document.documentElement"
        assert browser.evaluate(f"{root}.scrollHeight") < most_screens * height
        assert browser.evaluate(f"{root}.scrollWidth") == width
        first = "[...document.querySelectorAll('img')].find(shown)"
        shown = "const shown = (node) => node.getClientRects().length > 0"
        top = f"(() => {{ {shown}; return {first}.getBoundingClientRect().top }})()"
        assert browser.evaluate(top) < height
    browser.open(page, 1280, 900)
    n_words = browser.evaluate("document.body.innerText.split(/\\s+/).filter(Boolean).length")
    assert 500 < n_words < 2500
    printed = browser.page.pdf(format="A4", prefer_css_page_size=True, print_background=True)
    assert 2 < len(re.findall(rb"/Type\s*/Page\b", printed)) <= 10
    browser.open(page, 1280, 900, dark=True)
    browser.evaluate("location.hash = '#cite'")
    browser.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")
    assert browser.evaluate("document.querySelector('#cite').closest('details').open")
    assert browser.evaluate("document.querySelectorAll('main details.fold[open]').length") == 1
    assert browser.complaints == []


def test_cases_are_folded_on_a_phone_and_a_link_to_one_opens_its_kind(browser, page):
    count = "document.querySelectorAll('details.category[open]').length"
    browser.open(page, 1280, 900)
    n_kinds = browser.evaluate("document.querySelectorAll('details.category').length")
    assert n_kinds > 1
    assert browser.evaluate(count) == n_kinds
    browser.open(page, 390, 844)
    assert browser.evaluate(count) == 0
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    browser.evaluate("document.querySelector('.example a').click()")
    browser.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")
    assert browser.evaluate(count) == 1
    assert browser.evaluate(
        "document.querySelector(location.hash).closest('details.category').open"
    )
    browser.evaluate(
        "const form = document.querySelector('#choose'); form.elements.sort.value = 'gap';"
        "form.dispatchEvent(new Event('input'))"
    )
    assert browser.evaluate(count) == n_kinds  # what is chosen must be seen
    assert browser.complaints == []


def test_id_of_a_case_opens_it(browser, page):
    browser.open(page, 1280, 900)
    link = "document.querySelector('.case .open-case')"
    assert browser.evaluate(f"{link}.textContent === {link}.closest('.case').dataset.id")
    browser.evaluate(f"{link}.click()")
    assert browser.evaluate(f"{link}.closest('.case').classList.contains('open')")


def with_systems(comparison, n_systems, low, high):
    """Return the comparison with copies of CheXNet, and differences with this interval."""
    copies = [f"Reader {number}" for number in range(3, n_systems + 1)]
    difference = comparison.metrics["second"] == "CheXNet"
    metrics = comparison.metrics.copy()
    metrics.loc[difference, ["ci_low", "ci_high"]] = low, high
    own = metrics[metrics["first"] == "CheXNet"]
    tables = [metrics]
    for name in copies:
        tables.append(own.assign(first=name))
        tables.append(metrics[difference].assign(second=name))
    decisions = [comparison.decisions]
    for name in copies:
        own = comparison.decisions[comparison.decisions["system"] == "CheXNet"]
        decisions.append(own.assign(system=name))
    return replace(
        comparison,
        systems={**comparison.systems, **{name: SystemResult() for name in copies}},
        figures=Figures.from_table(pd.concat(tables, ignore_index=True)),
        decisions=pd.concat(decisions, ignore_index=True),
    )


def test_menu_is_whole_on_a_phone(browser, page):
    for width in (390, 320):
        browser.open(page, width, 844)
        right = browser.evaluate(
            """[...document.querySelectorAll(".contents a")]
              .map((link) => link.getBoundingClientRect().right)"""
        )
        assert len(right) >= 6
        assert max(right) <= width


ACT = """
const say = (name, value) => { document.body.dataset[name] = value; };
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
press("o");
say("opened", document.activeElement.classList.contains("open"));
press("/");
say("search", document.activeElement.name);
"""


def test_page_answers_to_filters_and_keys(browser, page, tmp_path):
    acted = tmp_path / "acted.html"
    acted.write_text(page.read_text().replace("</body>", f"<script>{ACT}</script></body>"))
    after = browser.text_of(acted.as_uri())
    body = re.search(r"<body[^>]*>", after)[0]
    told = dict(re.findall(r'data-([a-z]+)="(.*?)"', body))
    assert told == {
        "missed": "p03 p04",
        "first": "p03",  # CheXNet's second of twelve, RetinaNet's tenth
        "found": "p05",
        "focused": "true",
        "opened": "true",
        "search": "id",
    }
