"""The audit: each flaw has its check, its severity and its images; the page shows them."""

import base64
import re

import cv2
import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import DataSet
from tests.adapters import splits
from tests.adapters.sets import prepare_tables, write_source
from tests.cases import load
from tests.outline import Outline
from tests.small_dicom import chest

N = 12


@pytest.mark.parametrize("case", load("../tests/cases/audit.json"))
def test_each_flaw_is_found_with_its_severity_and_images(case):
    found = {
        check: [severity, sorted(ids)] for check, (severity, ids) in splits.problems(case).items()
    }
    assert found == case["expect"]


def test_of_copies_one_stays_and_of_those_with_two_labels_none():
    found = splits.exclusions(
        [
            ["label", [["a", "b"]], 0],
            ["patients", [["a", "b"], ["c", "d", "e"]], 1],
            ["repeated", [["d", "f"], ["b", "g"]], 1],
            ["nothing to leave out", [["h"]], None],
        ]
    )
    assert found == {
        "a": "label",
        "b": "label",
        "d": "patients; c stays",
        "e": "patients; c stays",
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """12 images: b1 is a worn copy of b0 with another patient and label, b5 one of b4."""
    folder = tmp_path_factory.mktemp("audited")
    ids = [f"b{number}" for number in range(N)]
    patients = ["b4" if name == "b5" else name for name in ids]
    states = {"<b>mass</b>": [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]}
    ages = [400] + [50] * (N - 1)
    paths = [f"{name}.png" for name in ids]
    columns = {"path": paths, "age_years": ages, "patient_id": patients}
    source = write_source(folder / "source", ids, states, **columns)
    for number, name in enumerate(ids):
        pixels = (
            chest(number - 1, 150, 180) // 2 + 30 if number in (1, 5) else chest(number, 150, 180)
        )
        cv2.imwrite(str(source / f"{name}.png"), pixels)
    box = {"image_id": "b0", "finding": "<b>mass</b>", "x1": 10, "y1": 20, "x2": 60, "y2": 50}
    pd.DataFrame([box]).to_csv(source / "boxes.csv", index=False)
    prepare_tables(source, folder / "set")
    return folder / "set"


@pytest.fixture
def page(data):
    return (data / "audit.html").read_text(encoding="utf-8")


def article(page, text):
    (found,) = (part for part in page.split("<article")[1:] if text in part)
    return found.partition("</article>")[0]


def pictures(part):
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', part)
    arrays = [np.frombuffer(base64.b64decode(source), np.uint8) for source in sources]
    return [cv2.imdecode(array, cv2.IMREAD_COLOR).astype(int) for array in arrays]


def test_the_page_opens_alone_and_escapes_what_the_source_says(page):
    outline = Outline(page)
    assert outline.open == outline.problems == []
    assert all(link.startswith("data:") or link == "exclude.csv" for link in outline.links)
    assert "<script" not in page
    assert "<b>mass" not in page
    assert "&lt;b&gt;mass" in page


def test_the_page_begins_with_the_verdict_and_the_worst(data, page):
    audit = cxr_compare.check(data)
    order = [page.index(f'<article class="{severity}"') for severity in ("warning", "info")]
    assert page.index("no error was found".capitalize()) < order[0] < order[1]
    assert page.count("<article") == len(audit.problems)
    assert all(each.advice in page for each in audit.problems if "'" not in each.advice)


def test_the_audit_of_the_only_split_checks_what_the_whole_one_does(data):
    assert cxr_compare.check(data, split="default").checked == cxr_compare.check(data).checked


def test_copies_are_shown_side_by_side_with_their_boxes(page):
    one, other = pictures(article(page, "under more than one patient"))
    yellow = [picture[..., 2] - picture[..., 0] > 60 for picture in (one, other)]
    assert [flags.any() for flags in yellow] == [True, False]
    rows, columns = np.nonzero(yellow[0])
    height, width, _ = one.shape  # of 150 x 180 px
    assert (columns.min(), rows.min()) == pytest.approx((width / 18, height * 20 / 150), abs=2)
    assert (columns.max(), rows.max()) == pytest.approx((width / 3, height / 3), abs=2)


def test_a_list_of_images_to_leave_out_that_was_edited_stays(data):
    path = data / "exclude.csv"
    assert pd.read_csv(path)["image_id"].tolist() == ["b0", "b1", "b5"]
    path.write_text("image_id,reason\nb0,\n")
    cxr_compare.check(data)
    assert path.read_text() == "image_id,reason\nb0,\n"


def test_the_page_of_a_set_whose_images_are_gone_has_no_pictures(data, page):
    source = DataSet.open(data).source_root
    source.rename(source.with_name("elsewhere"))
    try:
        cxr_compare.check(data)
        again = (data / "audit.html").read_text(encoding="utf-8")
    finally:
        source.with_name("elsewhere").rename(source)
    assert len(pictures(page)) > 0
    assert pictures(again) == []
    assert again.count("<article") == page.count("<article")


def test_clean_synthetic_images_pass(world):
    audit = cxr_compare.check(world.data)
    assert audit.passed
    assert not [each for each in audit.problems if each.check.startswith(("image_", "near_"))]
