import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.studies.readers.reader_form import read_review, write_reader_study
from cxr_compare.studies.readers.reading_form import import_form
from tests.compared import compare_predictions


@pytest.fixture
def study(image_set, evaluation_set, tmp_path):
    ids = evaluation_set.image_ids("test").tolist()
    folder = tmp_path / "study"
    order = write_reader_study(image_set, ids, folder, finding="Lung opacity", seed=3)
    return folder, order, ids


def fill(folder, scores):
    form = pd.read_csv(folder / "review.csv", dtype=str, keep_default_na=False)
    form["score"] = scores
    form.to_csv(folder / "review.csv", index=False)
    return folder / "review.csv"


def read_back(review, dataset, tmp_path, key="key.csv"):
    return import_form(
        review, key=review.parent / key, data=dataset, out=tmp_path / "reader", name="Reader"
    )


def test_filled_form_is_imported_as_a_reader_and_evaluated(
    study, test_set, evaluation_set, tmp_path
):
    folder, order, ids = study
    truth = evaluation_set.labels(evaluation_set.target()).reindex(order)
    review = fill(folder, [f"{0.2 + 0.6 * label}" for label in truth])
    reader = read_back(review, evaluation_set, tmp_path)
    given = reader.scores.set_index("image_id")["score"]
    assert given.sort_index().index.tolist() == sorted(ids)
    assert given.reindex(order).tolist() == pytest.approx((0.2 + 0.6 * truth).tolist())
    found = compare_predictions({"Reader": reader}, test_set, replicates=20)
    figure = found.metrics.query(
        "first == 'Reader' and second == '' and metric == 'auroc' and subgroup == 'all'"
    )
    assert figure["estimate"].iloc[0] == 1.0  # she saw everything


def test_images_say_nothing_of_what_they_are(study):
    folder, order, ids = study
    assert order != ids
    names = sorted(path.name for path in (folder / "panels").iterdir())
    assert names == [f"{number:03d}.png" for number in range(1, len(ids) + 1)]
    assert sorted(order) == sorted(ids)
    with Image.open(folder / "panels" / "001.png") as image:
        assert (image.mode, image.size, image.info) == ("L", (64, 64), {})
    shown = (folder / "review.csv").read_text() + (folder / "README.txt").read_text()
    assert not any(image_id in shown for image_id in ids)


def test_order_is_that_of_the_seed(image_set, tmp_path):
    ids = [f"p{number:02d}" for number in range(1, 7)]
    orders = [
        write_reader_study(image_set, ids, tmp_path / str(run), finding="F", seed=seed)
        for run, seed in enumerate((1, 1, 2))
    ]
    assert orders[0] == orders[1] != orders[2]


def test_pages_of_two_studies_do_not_share_answers(image_set, tmp_path):
    for folder, finding in (("a", "F"), ("b", "F"), ("c", "G")):
        write_reader_study(image_set, ["p01", "p02"], tmp_path / folder, finding=finding)
    pages = [(tmp_path / name / "read.html").read_text() for name in "abc"]
    studies = {re.search('STUDY = "(.*?)"', page)[1] for page in pages}
    assert len(studies) == 3
    assert not any(str(tmp_path) in page for page in pages)


def draw(page, box):
    """Draw a box, in px of the image, with the mouse."""
    shown = page.locator("#image").bounding_box()
    scale = shown["width"] / page.evaluate("document.querySelector('#image').naturalWidth")
    x1, y1, x2, y2 = (value * scale for value in box)
    page.mouse.move(shown["x"] + x1, shown["y"] + y1)
    page.mouse.down()
    page.mouse.move(shown["x"] + x2, shown["y"] + y2, steps=4)
    page.mouse.up()


def press(page, keys):
    for key in keys.split():
        page.keyboard.press(key)


def test_page_takes_boxes_and_ratings_keeps_them_over_a_reload_and_saves_them(
    study, browser, tmp_path
):
    folder, order, _ = study
    browser.open(folder / "read.html", 1280, 900)
    page = browser.page
    page.fill("#reader", "Ann")
    press(page, "Tab")
    page.locator("h1").click()
    draw(page, (8, 8, 24, 32))
    page.get_by_role("button", name="70 %", exact=True).click()  # by mouse
    draw(page, (40, 10, 60, 30))
    press(page, "9 b 2 Enter N")  # the second, then the first again; the next image has nothing
    assert page.locator("#where").inner_text().startswith("Image 003 of")
    page.reload()
    assert page.locator("#reader").input_value() == "Ann"
    assert page.locator("#where").inner_text().endswith("2 read")
    press(page, "ArrowLeft ArrowLeft")
    assert page.locator("#list li").all_inner_texts() == ["20 %", "90 %"]
    with page.expect_download() as download:
        press(page, "s")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.name == "marks-Ann.csv"
    rows = read_review(saved, folder / "key.csv")
    boxes = rows[rows["x1"].notna()]
    assert boxes["image_id"].tolist() == order[:1] * 2
    assert boxes["score"].tolist() == [0.2, 0.9]
    drawn = boxes[["x1", "y1", "x2", "y2"]].to_numpy()
    assert np.abs(drawn - [(8, 8, 24, 32), (40, 10, 60, 30)]).max() < 0.5
    whole = rows[rows["x1"].isna()].set_index("image_id")["score"]
    assert whole[order[:2]].tolist() == [0.9, 0.0]
    assert browser.complaints == []


@pytest.mark.parametrize("told", [True, False], ids=["other tab hears", "other tab sleeps"])
def test_answers_of_two_tabs_of_one_page_are_all_kept_with_a_note(study, browser, told):
    folder, _, _ = study
    context = browser.page.context.browser.new_context()
    first, second = context.new_page(), context.new_page()
    if not told:  # as where the browser has put a tab to sleep
        second.add_init_script("addEventListener('storage', (e) => e.stopImmediatePropagation())")
    for page in (first, second):
        page.goto((folder / "read.html").resolve().as_uri())
    press(first, "3 Enter 4")
    kept = "JSON.stringify(Object.entries(localStorage).sort())"
    second.wait_for_function(f"(first) => {kept} === first", arg=first.evaluate(kept), polling=50)
    press(second, "ArrowRight ArrowRight 5")  # no reader is faster than the browser's processes
    said = "3 read · another tab of this page gives answers, too: they are taken over here"
    for page in (first, second):
        page.wait_for_function("document.querySelectorAll('#strip .read').length === 3")
        assert page.locator("#where").inner_text().endswith(said)
    context.close()


def test_zeros_that_a_spreadsheet_took_away_do_not_matter(study):
    folder, order, _ = study
    review = fill(folder, "0.5")
    before = read_review(review, folder / "key.csv")
    form = pd.read_csv(review, dtype=str)
    form["number"] = form["number"].astype(int)
    form.to_csv(review, index=False)
    assert read_review(review, folder / "key.csv").equals(before)
    assert before["image_id"].tolist() == order


def test_images_that_were_not_read_are_failed_and_not_negative(study, evaluation_set, tmp_path):
    folder, order, _ = study
    review = fill(folder, ["0.9"] + [""] * (len(order) - 1))
    status = read_back(review, evaluation_set, tmp_path).images.set_index("image_id")["status"]
    assert status[order[0]] == "ok"
    assert set(status.drop(order[0])) == {"failed"}


def test_second_study_does_not_overwrite_what_a_reader_filled_in(study, image_set):
    folder, _, ids = study
    with pytest.raises(InputError, match="--out"):
        write_reader_study(image_set, ids, folder, finding="F")


@pytest.mark.parametrize(
    ("review", "message"),
    [
        ("number,score\n1,\n2,\n", "no score is filled in"),
        ("number,score\n999,0.5\n", "line 2: number 999"),
        ("number:score\n1:0.5\n", "columns 'number', 'score' are missing"),
        ("image,score\n1,0.5\n", "column 'number' is missing; it has image, score"),
        ("number,score\n1,yes\n", "line 2, image .*: score='yes'"),
        ("number,score\n1,0.5\n1,0.6\n", "a second score"),
    ],
    ids=["empty", "stranger", "semicolons", "other form", "word", "twice"],
)
def test_form_that_cannot_be_right_is_refused_by_its_line(
    study, evaluation_set, tmp_path, review, message
):
    folder = study[0]
    (folder / "review.csv").write_text(review)
    with pytest.raises(InputError, match=message):
        read_back(folder / "review.csv", evaluation_set, tmp_path)


def test_missing_key_is_named(study, evaluation_set, tmp_path):
    folder = study[0]
    review = fill(folder, np.linspace(0, 1, len(study[1])).astype(str))
    with pytest.raises(InputError, match=r"elsewhere\.csv: "):
        read_back(review, evaluation_set, tmp_path, key="elsewhere.csv")
