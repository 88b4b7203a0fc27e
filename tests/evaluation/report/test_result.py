"""A finished result: read from its folder it shows what was written, and evaluates nothing."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.figures import TIDY_COLUMNS
from cxr_compare.evaluation.report.result import Result
from tests.adapters.sets import table_set, write_predictions

pytestmark = pytest.mark.usefixtures("no_chart_files")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A result that was just made, its folder, and the data behind it."""
    folder = tmp_path_factory.mktemp("finished")
    ids = [f"i{number:02d}" for number in range(80)]
    states = ["present" if number % 6 < 2 else "absent" for number in range(80)]
    roles = ["val", "test"] * 40
    data = table_set(folder, ids, {"opacity": states}, split=roles)
    systems = {}
    for seed, name in enumerate("AB"):
        scores = np.random.default_rng(seed).random(80)
        table = pd.DataFrame({"image_id": ids, "finding": "opacity", "score": scores})
        systems[name] = write_predictions(folder / name, data, ids, scores=table)
    fresh = cxr_compare.compare(
        systems, data=data, target="opacity", replicates=100, unit="patient"
    )
    return fresh, fresh.save(folder / "report"), data, systems


def forbid_evaluation(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a finished report evaluated again")

    monkeypatch.setattr("cxr_compare.scripts.comparison.compare_systems", refuse)
    monkeypatch.setattr("cxr_compare.serving.network.open_network", refuse)


def test_an_opened_report_shows_what_the_comparison_showed(finished, monkeypatch):
    fresh, written, *_ = finished
    forbid_evaluation(monkeypatch)
    opened = Result.open(written.folder)
    assert str(opened).startswith(str(fresh))
    pd.testing.assert_frame_equal(opened.table, fresh.table)
    for name in ("figures", "tests", "groups", "curves", "decisions"):
        pd.testing.assert_frame_equal(getattr(opened, name), getattr(fresh, name))
    pd.testing.assert_frame_equal(opened.to_frame(), fresh.to_frame())
    pd.testing.assert_frame_equal(opened.cases(2), fresh.cases(2))


def test_a_saved_chart_keeps_its_legend_and_embeds_its_fonts(finished, tmp_path):
    figure = finished[0].plot("roc")
    file = tmp_path / "roc.pdf"
    figure.savefig(file)
    extent = figure.axes[0].get_legend().get_window_extent()
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert any(name.startswith("A") for name in names)
    assert min(extent.x0, extent.y0) >= -0.5
    assert extent.x1 <= figure.bbox.x1 + 0.5
    assert b"/FontFile2" in file.read_bytes()


def test_charts_are_drawn_of_the_stored_curves(finished):
    fresh, written, *_ = finished
    opened = Result.open(written.folder)
    assert opened.answer.charts == fresh.answer.charts
    lines = [
        [line.get_xydata().tolist() for line in result.plot("roc").axes[0].lines]
        for result in (fresh, opened)
    ]
    assert lines[0] == lines[1]
    with pytest.raises(InputError, match="'rok'"):
        opened.plot("rok")


def test_the_tidy_frame_has_one_row_a_figure_and_p_values_of_tested_differences(finished):
    frame = finished[0].to_frame()
    assert tuple(frame.columns) == TIDY_COLUMNS
    assert not frame.duplicated(["first", "second", "metric", "policy", "subgroup"]).any()
    gaps = frame[(frame["second"] == "B") & (frame["metric"] == "auroc")]
    assert gaps["p_value"].between(0, 1).all()
    assert frame.loc[frame["second"] == "", "p_value"].isna().all()


def test_compare_writes_nothing_into_what_it_compares(finished, tmp_path):
    _, _, data, systems = finished

    def files():
        return {
            path: path.read_bytes()
            for folder in systems.values()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    before = files()
    cxr_compare.compare(systems, data=data, target="opacity", replicates=100, out=tmp_path / "r")
    assert files() == before


def test_a_report_that_was_not_finished_is_not_opened(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Result.open(tmp_path / "none")
    (tmp_path / "begun").mkdir()
    with pytest.raises(InputError):
        Result.open(tmp_path / "begun")
