"""The page of a data set: pictures by rule, and the columns that were read."""

import base64
import html
import re

import cv2
import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import DataSet
from tests.adapters import reports
from tests.outline import Outline
from tests.small_dicom import chest

N = 24


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A table with masses on every third image, one image without a label, and a column unused."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "png").mkdir()
    rows = []
    for number in range(N):
        cv2.imwrite(str(folder / "png" / f"i{number}.png"), chest(number, 120, 100))
        label = "mass" if number % 3 == 0 else "No finding" if number < N - 1 else "unknown"
        edges = [10, 30, 40 + number, 60] if label == "mass" else [""] * 4
        age = 4 if number in (4, 5) else 50
        rows.append(
            (f"i{number}.png", f"p{number // 2}", label, *edges, age, "MF"[number % 2], "A")
        )
    columns = ["image", "patient", "label", "xmin", "ymin", "xmax", "ymax", "age", "sex", "ward"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "labels.csv", index=False)
    cv2.imwrite(str(folder / "png" / "other.png"), chest(77, 120, 100))
    out = folder / "scratch-7"  # a name that no page may show
    cxr_compare.prepare(folder / "labels.csv", folder / "png", out, workers=0)
    return out


def evaluated(data):
    """Scores of the images of its test and validation parts."""
    ids = [*data.image_ids("test"), *data.image_ids("val")]
    return pd.DataFrame({"image_id": ids, "score": np.linspace(0, 1, len(ids))})


OPTIONS = {"replicates": 100, "policy": ["threshold=0.5"]}


@pytest.fixture(scope="module")
def report(own, tmp_path_factory):
    """A comparison on that set."""
    out = tmp_path_factory.mktemp("report") / "one"
    write_report(own, out)
    return out


def write_report(data, out):
    with pytest.MonkeyPatch.context() as patch:
        reports.leave_charts_out(patch)
        systems = {"A": evaluated(DataSet.open(data))}
        cxr_compare.compare(systems, data=data, out=out, **OPTIONS)


def page_of(folder):
    return (folder / "data.html").read_text(encoding="utf-8")


def section(page, title):
    (found,) = (part for part in re.split(r"<section|</section>", page) if f">{title}" in part)
    return found


def test_the_set_keeps_what_was_read_and_the_page_shows_it(own):
    read = DataSet.open(own).reading
    facts = read[read["fact"].notna()].set_index("fact")
    assert facts.loc[["format", "box_form", "box_unit"], "text"].tolist() == ["table", "xyxy", "px"]
    numbers = facts["number"].dropna()
    assert numbers.to_dict() == {"image_files": N + 1, "unnamed_files": 1}
    lines = read.loc[read["fact"].isna(), "text"]
    for part in ("patient as patient", "not read: 'ward'", "No finding (15, taken for no finding)"):
        assert lines.str.contains(part, regex=False).any(), part
    shown = html.unescape(section(page_of(own), "What was read"))
    assert all(line in shown for line in lines)
    assert "xyxy" in shown


@pytest.mark.parametrize("name", [None, "ward A"])
def test_a_folder_is_no_name_of_a_data_set(own, report, tmp_path, name):
    source, made = own.parent, own
    if name is not None:
        made, report = tmp_path / own.name, tmp_path / "report"
        cxr_compare.prepare(source / "labels.csv", source / "png", made, name=name, workers=0)
        write_report(made, report)
    shown = [
        *re.findall(r"<title>.*?</title>|<h1>.*?</h1>", page_of(made)),
        *re.findall(r'<p class="kicker">.*?</p>', (report / "report.html").read_text("utf-8")),
    ]
    assert len(shown) == 3
    assert not any(made.name in text for text in shown)
    assert all(name is None or name in text for text in shown)


def test_what_folders_and_names_of_files_state_is_called_so(tmp_path):
    for number in range(16):
        name = f"{'normal' if number % 2 else 'pneumonia'}/K{number // 2}_{number % 2}.png"
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "x" / name), chest(number, 120, 100))
    (tmp_path / "boxes.csv").write_text("file,left,top,right,bottom\nK0_0.png,20,30,60,70\n")
    options = {"class_names": "pneumonia", "patient_pattern": r"^([^_]+)_", "workers": 0}
    cxr_compare.prepare(tmp_path / "boxes.csv", tmp_path / "x", tmp_path / "set", **options)
    shown = section(page_of(tmp_path / "set"), "What was read")
    (patients,) = re.findall(r"<th>Patients</th><td>(.*?)</td>", shown)
    assert "by a pattern" in patients
    assert "stated" not in patients
    (implied,) = re.findall(r"<li>([^<]*8 labels count as absent.*?)</li>", shown)
    assert "folder" in implied
    assert "row" not in implied


@pytest.mark.parametrize(
    ("title", "count"),
    [("mass: 8 positive, 8 with boxes", 8), ("15 negative", 8), ("1 unknown", 1)],
)
def test_each_class_is_shown(own, title, count):
    assert section(page_of(own), title).count("<img") == count


def test_a_box_is_drawn_where_it_was_read(own):
    figure = re.search(r"<figure>(?:(?!</figure>).)*<small>i0</small>", page_of(own), re.DOTALL)[0]
    source = re.findall(r'base64,([^"]+)"', figure)[-1]
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(source), np.uint8), 1).astype(int)
    rows, columns = np.nonzero(drawn[..., 2] - drawn[..., 0] > 60)
    height, width, _ = drawn.shape
    found = [columns.min() / width, rows.min() / height, columns.max() / width, rows.max() / height]
    assert found == pytest.approx([10 / 100, 30 / 120, 40 / 100, 60 / 120], abs=0.02)


def test_the_page_opens_alone_and_is_the_same_each_time(own):
    page = page_of(own)
    outline = Outline(page)
    assert outline.open == outline.problems == []
    assert all(link.startswith(("data:", "#")) for link in outline.links)
    cxr_compare.check(own)
    assert page_of(own) == page


def test_without_pictures_the_page_shows_none_and_stays_so(own, tmp_path):
    assert "This page holds X-rays" in page_of(own)
    before = page_of(own)
    cxr_compare.check(own, without_pictures=True)
    page = page_of(own)
    cxr_compare.check(own)
    assert page_of(own) == before
    assert page.count("<img") == 1  # the outlines of boxes
    assert "holds X-rays" not in page
    folder = own.parent
    out = tmp_path / "set"
    options = {"without_pictures": True, "workers": 0}
    cxr_compare.prepare(folder / "labels.csv", folder / "png", out, **options)
    assert page_of(out).count("<img") == 1
    cxr_compare.split(out, name="other", seed=1)
    assert page_of(out).count("<img") == 1


def test_a_browser_shows_it_without_sideways_scroll_and_messages(browser, own):
    for width, dark in ((390, False), (1280, True)):
        browser.open(own / "data.html", width, 900, dark=dark)
        browser.evaluate("document.querySelectorAll('details').forEach((f) => { f.open = true; })")
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        tables = "[...document.querySelectorAll('#labels .scroll')]"  # no number is off the screen
        cut = f"{tables}.filter((each) => each.scrollWidth > each.clientWidth).length"
        assert browser.evaluate(cut) == 0
    assert browser.complaints == []
