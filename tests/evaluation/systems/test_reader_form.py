import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_prep.contracts.errors import InputError
from evaluation.compare.compare import compare_systems
from evaluation.systems.imported import import_file
from evaluation.systems.prediction_files import read_review, write_reader_study


@pytest.fixture
def study(image_set, judged_set, tmp_path):
    ids = judged_set.image_ids("test").tolist()
    folder = tmp_path / "study"
    order = write_reader_study(image_set, ids, folder, finding="Lung opacity", seed=3)
    return folder, order, ids


def fill(folder, scores):
    form = pd.read_csv(folder / "review.csv", dtype=str, keep_default_na=False)
    form["score"] = scores
    form.to_csv(folder / "review.csv", index=False)
    return folder / "review.csv"


def read_back(review, dataset, tmp_path, key="key.csv"):
    return import_file(review, dataset, tmp_path / "reader", name="Reader", key=review.parent / key)


def test_filled_form_comes_back_as_a_reader_and_is_judged(study, test_set, judged_set, tmp_path):
    folder, order, ids = study
    truth = judged_set.labels(judged_set.target()).reindex(order)
    review = fill(folder, [f"{0.2 + 0.6 * label}" for label in truth])
    reader = read_back(review, judged_set, tmp_path)
    given = reader.scores.set_index("image_id")["score"]
    assert given.sort_index().index.tolist() == sorted(ids)
    assert given.reindex(order).tolist() == pytest.approx((0.2 + 0.6 * truth).tolist())
    found = compare_systems({"Reader": reader}, test_set, replicates=20)
    figure = found.metrics.query("system == 'Reader' and metric == 'auroc' and subgroup == 'all'")
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


def test_zeros_that_a_spreadsheet_took_away_do_not_matter(study):
    folder, order, _ = study
    review = fill(folder, "0.5")
    before = read_review(review, folder / "key.csv")
    form = pd.read_csv(review, dtype=str)
    form["number"] = form["number"].astype(int)
    form.to_csv(review, index=False)
    assert read_review(review, folder / "key.csv").equals(before)
    assert before["image_id"].tolist() == order


def test_images_that_were_not_read_are_failed_and_not_negative(study, judged_set, tmp_path):
    folder, order, _ = study
    review = fill(folder, ["0.9"] + [""] * (len(order) - 1))
    status = read_back(review, judged_set, tmp_path).images.set_index("image_id")["status"]
    assert status[order[0]] == "ok"
    assert set(status.drop(order[0])) == {"failed"}


def test_second_study_does_not_overwrite_what_a_reader_filled_in(study, image_set):
    folder, _, ids = study
    with pytest.raises(InputError, match="holds a study already; choose another --out"):
        write_reader_study(image_set, ids, folder, finding="F")


@pytest.mark.parametrize(
    ("review", "message"),
    [
        ("number,score\n1,\n2,\n", "no score is filled in"),
        ("number,score\n999,0.5\n", "line 2: number 999 is not in"),
        ("number;score\n1;0.5\n", "column 'number' is missing.*save it with commas"),
        ("image,score\n1,0.5\n", "column 'number' is missing; it has image, score"),
        ("number,score\n1,yes\n", "line 2, image .*: score='yes' is no number"),
        ("number,score\n1,0.5\n1,0.6\n", "a second score"),
    ],
    ids=["empty", "stranger", "semicolons", "other form", "word", "twice"],
)
def test_form_that_cannot_be_right_is_refused_by_its_line(
    study, judged_set, tmp_path, review, message
):
    folder = study[0]
    (folder / "review.csv").write_text(review)
    with pytest.raises(InputError, match=message):
        read_back(folder / "review.csv", judged_set, tmp_path)


def test_missing_key_is_named(study, judged_set, tmp_path):
    folder = study[0]
    review = fill(folder, np.linspace(0, 1, len(study[1])).astype(str))
    with pytest.raises(InputError, match=r"elsewhere.csv: no such file"):
        read_back(review, judged_set, tmp_path, key="elsewhere.csv")
