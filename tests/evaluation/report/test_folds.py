"""Means over folds: the arithmetic, and which reports may be put together."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.evaluation.report.folds import Folds
from cxr_compare.evaluation.statistics.figure_text import p_equation
from tests.blank_answer import blank_answer
from tests.saved_report import write_figures
from tests.stored_json import bind_tables, put_table

FIGURES = {"auroc": (0.80, 0.90, 0.85), "ap50": (0.30, 0.40, 0.50), "rsna_score": (0.1, None, 0.2)}


PAIRS = {
    ("A", "B"): (0.10, 0.11, 0.10),
    ("A", "C"): (0.10, -0.02, 0.03),
    ("B", "C"): (0.001, 0.0, -0.06),
}


def write_report(folder, position, systems=("A", "B"), patients=None, joint=None, **changes):
    row = {"target": "opacity", "unit": "image", "subgroup": "all", "policy": ""}
    rows = [
        row | {"first": system, "second": "", "metric": metric, "estimate": values[position]}
        for system in systems
        for metric, values in FIGURES.items()
    ]
    if len(systems) == 3:
        row["metric"] = "auroc"
        rows += [
            row | {"first": first, "second": second, "estimate": values[position]}
            for (first, second), values in PAIRS.items()
        ]
    rows.append(rows[0] | {"metric": "tp", "estimate": 3.0})
    data_set = {"content_id": "c", "labels_id": "l", "split": f"cv-{position}"}
    folder.mkdir()
    answer = blank_answer({"name": "set"} | data_set | changes, systems=systems, joint=joint)
    answer.write(folder / "answer.json")
    write_figures(rows, folder)
    patients = patients or [f"{position}-{n}" for n in range(4)]
    decisions = pd.DataFrame({"image_id": patients, "patient_id": patients, "system": "A"})
    decisions = decisions.assign(label=0.0, score=0.5, probability=0.5)
    write_table(decisions, folder / "decisions.parquet", "decisions")
    bind_tables(folder)
    return folder


@pytest.fixture
def reports(tmp_path):
    return [write_report(tmp_path / str(n), n) for n in range(3)]


def test_the_interval_is_that_of_a_t_test_with_the_variance_of_folds_that_share_training(reports):
    table = Folds.read(reports).table.set_index(["first", "second", "metric"])
    row = table.loc[("A", "", "ap50")]
    oracle = stats.ttest_1samp(FIGURES["ap50"], 0.0).confidence_interval(0.95)
    assert row["mean"] == pytest.approx(0.4)
    assert row["sd"] == pytest.approx(np.std(FIGURES["ap50"], ddof=1))
    wider = np.sqrt((1 / 3 + 1 / 2) / (1 / 3))  # Nadeau and Bengio 2003, test / training = 1 / 2
    half = wider * (oracle.high - oracle.low) / 2
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.4 - half, 0.4 + half))
    assert list(row[["fold_1", "fold_2", "fold_3"]]) == list(FIGURES["ap50"])


def test_a_figure_that_is_undefined_in_a_fold_has_no_mean_and_says_so(reports):
    table = Folds.read(reports).table.set_index(["first", "second", "metric"])
    row = table.loc[("B", "", "rsna_score")]
    assert np.isnan(row["mean"])
    assert np.isnan(row["ci_low"])
    assert row["note"] == "undefined in 1 of 3 folds"


def test_pairs_that_differ_are_found_by_holm_over_all_pairs(tmp_path):
    folders = [write_report(tmp_path / str(n), n, ("A", "B", "C")) for n in range(3)]
    folds = Folds.read(folders)
    narrower = np.sqrt((1 / 3) / (1 / 3 + 1 / 2))  # Nadeau and Bengio 2003
    statistics = [stats.ttest_1samp(values, 0).statistic * narrower for values in PAIRS.values()]
    p_values = 2 * stats.t.sf(np.abs(statistics), 2)
    adjusted = multipletests(p_values, method="holm")[1]
    table = folds.table.set_index(["first", "second", "metric"])["p_holm"]
    assert [table[*pair, "auroc"] for pair in PAIRS] == pytest.approx(list(adjusted))
    assert np.isnan(table["A", "", "auroc"])
    shown = [pair for pair, p in zip(PAIRS, adjusted, strict=True) if p < 0.05]
    assert shown == [("A", "B")]
    (line,) = [line for line in folds.to_markdown().splitlines() if line.startswith("- AUROC")]
    assert line.endswith(f"A - B 0.103 ({p_equation(adjusted[0])})")


def test_a_difference_that_is_the_same_in_all_folds_is_not_tested(tmp_path, monkeypatch):
    monkeypatch.setitem(PAIRS, ("A", "B"), (0.05, 0.05, 0.05))
    folders = [write_report(tmp_path / str(n), n, ("A", "B", "C")) for n in range(3)]
    folds = Folds.read(folders)
    row = folds.table.set_index(["first", "second", "metric"]).loc[("A", "B", "auroc")]
    assert row["mean"] == pytest.approx(0.05)
    assert row[["ci_low", "ci_high", "p_holm"]].isna().all()
    assert row["note"]
    (line,) = [line for line in folds.to_markdown().splitlines() if line.startswith("- AUROC")]
    assert "of 2 pairs" in line
    assert "A - B" not in line


def test_a_joint_system_is_better_only_if_both_differences_are_shown_and_no_pair_for_holm(tmp_path):
    joint = {"name": "C", "members": ["A", "B"]}
    folders = [write_report(tmp_path / str(n), n, ("A", "B", "C"), joint=joint) for n in range(3)]
    folds = Folds.read(folders)
    narrower = np.sqrt((1 / 3) / (1 / 3 + 1 / 2))  # Nadeau and Bengio 2003
    statistics = [stats.ttest_1samp(values, 0).statistic * narrower for values in PAIRS.values()]
    unadjusted = 2 * stats.t.sf(np.abs(statistics), 2)
    table = folds.table.set_index(["first", "second", "metric"])["p_holm"]
    assert [table[*pair, "auroc"] for pair in PAIRS] == pytest.approx(list(unadjusted))
    pairs, gains = [line for line in folds.to_markdown().splitlines() if line.startswith("- AUROC")]
    assert "of 1 pair," in pairs
    assert gains.endswith(
        "C not shown to be better than each: gain over A −0.037 (−0.273 to 0.200); "
        "gain over B 0.020 (−0.118 to 0.157)"
    )


def test_counts_have_no_mean(reports):
    assert "tp" not in set(Folds.read(reports).table["metric"])


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"systems": ("A",)}, "systems"),
        ({"content_id": "other"}, "images"),
        ({"labels_id": "other"}, "labels"),
        ({"patients": ["0-1", "new"]}, "1 patient"),
    ],
)
def test_reports_that_are_no_folds_are_refused(tmp_path, reports, change, fact):
    strange = write_report(tmp_path / "strange", 1, **change)
    with pytest.raises(InputError, match=rf"strange: .*{fact}"):
        Folds.read([reports[0], strange])


def test_images_of_unknown_patients_count_as_patients(tmp_path):
    folders = []
    for number, ids in enumerate((["a", "b"], ["c", "d"], ["d", "e"])):
        folder = write_report(tmp_path / f"unknown-{number}", number, patients=ids)
        decisions = pd.read_parquet(folder / "decisions.parquet").drop(columns="patient_id")
        put_table(decisions, folder / "decisions.parquet", "decisions")
        folders.append(folder)
    assert Folds.read(folders[:2]).n_images == (2, 2)
    with pytest.raises(InputError, match="1 patient"):
        Folds.read(folders[1:])


def test_one_report_is_no_cross_validation(reports):
    with pytest.raises(InputError, match=r"^folds"):
        Folds.read(reports[:1])


def test_everything_written_can_be_read_again(tmp_path, reports):
    folds = Folds.read(reports)
    out = tmp_path / "out"
    out.mkdir()
    folds.write(out)
    assert pd.read_csv(out / "folds.csv")["mean"].notna().sum() == 4
    payload = json.loads((out / "folds.json").read_text())
    assert payload["splits"] == ["cv-0", "cv-1", "cv-2"]
    assert payload["figures"][0]["mean"] == pytest.approx(0.85)
    assert (out / "folds.png").stat().st_size > 1000
    assert "| A | 0.850 (0.654 to 1.000)" in folds.to_markdown()
