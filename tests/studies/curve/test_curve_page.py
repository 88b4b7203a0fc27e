"""The page of a learning-curve study claims what is shown."""

import csv
import html
import json
import re

import numpy as np
import pytest

from cxr_compare.studies.curve import curve_sentences
from cxr_compare.studies.curve.curve_charts import drawn_models
from cxr_compare.studies.curve.curve_page import FILES, PAGE, STORED, write_curve
from cxr_compare.studies.curve.curve_statements import curve_statements
from tests.studies.curve.curve_example import IMAGES, example, two_models


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    study = example(data_set="RSNA <b>", notes=["Small networks."], draws=128)
    return study, write_curve(study, folder).parent


def test_the_page_is_one_file_that_needs_no_other_and_escapes_what_it_shows(written):
    study, folder = written
    assert {path.name for path in folder.iterdir()} == FILES
    text = (folder / PAGE).read_text()
    assert len(re.findall(r'<figure class="chart"><svg', text)) == len(study.metrics)
    assert "RSNA &lt;b&gt;" in text
    assert "RSNA <b>" not in text
    assert "Small networks." in text
    assert "28 comparisons in all." in text
    assert not re.search(r'(src|href)="(?!data:|#|curve\.(csv|json)")', text)
    assert "http" not in text.replace("http://www.w3.org", "")


def test_every_finding_stands_on_the_page_without_its_script(written):
    study, folder = written
    text = html.unescape(
        re.sub(r"<script.*?</script>", "", (folder / PAGE).read_text(), flags=re.S)
    )
    for metric in study.metrics:
        for each in curve_statements(study, metric):
            assert each.text in text


def test_lines_end_where_measuring_does():
    models = drawn_models(example(draws=128), "auroc")
    lines = [model["line"] for model in models if model["line"]]
    assert len(lines) == 2
    for line in lines:
        assert (line["images"][0], line["images"][-1]) == (IMAGES[0], IMAGES[-1])


@pytest.mark.parametrize(
    ("error", "overlap"),
    [(0.03, True), (0.002, False)],
    ids=["wide", "narrow"],
)
def test_the_charts_note_where_all_intervals_overlap(tmp_path, error, overlap):
    study = example(two_models(1.0 if overlap else 1.2, 0.3), error=error)
    page = html.unescape(write_curve(study, tmp_path).read_text())
    assert page.count(curve_sentences.OVERLAP) == overlap


def test_the_table_and_the_json_hold_every_point_with_its_seeds(written):
    study, folder = written
    rows = list(csv.DictReader((folder / "curve.csv").read_text().splitlines()))
    assert len(rows) == sum(len(point.figures) for point in study.points)
    row = rows[0]
    assert np.mean([float(row[f"seed_{at}"]) for at in range(3)]) == pytest.approx(
        float(row["estimate"])
    )
    stored = json.loads((folder / STORED).read_text())
    assert len(stored["points"]) == len(rows)
    assert {each["by"] for each in stored["crossings"]} == {"images"}
    assert sum(each["shown"] for each in stored["differences"]) > 3


def test_a_study_of_one_model_still_has_a_page(tmp_path):
    study = example({"auroc": {"detector": (0.55, 0.18)}})
    text = write_curve(study, tmp_path).read_text()
    assert curve_sentences.NO_PAIR in text
    assert len(re.findall(r'<figure class="chart"><svg', text)) == 1
