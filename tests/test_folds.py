"""`cxr folds`: means over the folds of a cross-validation, or over repeated trainings."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import cxr_compare
from cxr_compare import InputError
from tests.adapters import reports
from tests.adapters.sets import table_set

ROW = {"first": "A", "second": "B", "policy": "", "metric": "auroc"}


def summary(values, **changes):
    rows = [ROW | changes | {"fold": n, "estimate": value} for n, value in enumerate(values, 1)]
    return reports.summarise_folds(pd.DataFrame(rows)).iloc[0]


@pytest.mark.parametrize("values", [(0.1, 0.3, 0.2), (-0.05, 0.02, 0.1, 0.04, 0.0)])
def test_interval_and_p_are_those_of_a_t_test_with_the_variance_of_shared_training(values):
    row = summary(values)
    count = len(values)
    wider = np.sqrt((1 / count + 1 / (count - 1)) / (1 / count))  # Nadeau and Bengio 2003
    test = stats.ttest_1samp(values, 0.0)
    half = wider * (test.confidence_interval(0.95).high - np.mean(values))
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["sd"] == pytest.approx(np.std(values, ddof=1))
    assert row["ci_low"] == pytest.approx(np.mean(values) - half)
    assert row["ci_high"] == pytest.approx(np.mean(values) + half)
    p_value = 2 * stats.t.sf(abs(test.statistic) / wider, count - 1)
    assert row["p_value"] == pytest.approx(p_value)


def test_an_interval_stays_where_the_figure_can_be_and_one_system_has_no_p():
    row = summary((0.99, 0.6, 0.95), second="")
    assert row["ci_high"] == 1.0
    assert row["ci_low"] > 0
    assert np.isnan(row["p_value"])


def test_a_figure_that_is_undefined_in_a_fold_has_no_mean_and_equal_ones_no_interval():
    row = summary((0.1, np.nan, 0.2))
    assert row[["mean", "sd", "ci_low", "ci_high", "p_value"]].isna().all()
    assert "1 of 3" in row["note"]
    row = summary((0.05, 0.05, 0.05))
    assert row["mean"] == pytest.approx(0.05)
    assert row[["ci_low", "ci_high", "p_value"]].isna().all()
    assert row["note"]


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """Reports of three folds; of the first also with other scores, as of another seed."""
    folder = tmp_path_factory.mktemp("folds")
    ids = [f"i{n:03d}" for n in range(180)]
    positive = np.arange(180) % 3 == 0
    data = table_set(folder, ids, {"mass": positive.astype(int)})
    cxr_compare.split(data, name="cv", folds=3)
    other = table_set(folder / "other", ids, {"mass": (~positive).astype(int)})
    cxr_compare.split(other, name="cv", folds=3)

    def report(name, seed, fold, names="AB", data=data):
        rng = np.random.default_rng(seed)
        systems = {}
        for system in names:
            score = np.clip(0.3 * positive + 0.5 * rng.random(180), 0, 1)
            systems[system] = pd.DataFrame({"image_id": ids, "score": score})
        with reports.undrawn():
            cxr_compare.compare(
                systems, data=data, split=f"cv-{fold}", replicates=100, out=folder / name
            )
        return folder / name

    made = {f"fold-{n}": report(f"fold-{n}", 4, n) for n in range(3)}
    made |= {f"seed-{n}": report(f"seed-{n}", n, 0) for n in (1, 2)}
    made["alone"] = report("alone", 4, 1, names="A")
    made["other"] = report("other-data", 4, 1, data=other)
    return made


def table_of(made, tmp_path):
    shown = cxr_compare.folds(made, out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "folds.csv").fillna({"second": "", "policy": ""})
    assert len(shown.to_dict()) == len(table)
    return table.set_index(["first", "second", "metric", "policy"])


def test_folds_have_means_of_their_reports_with_interval_and_p(folds, tmp_path):
    made = [folds[f"fold-{n}"] for n in range(3)]
    table = table_of(made, tmp_path)
    values = []
    for folder in made:
        figures = cxr_compare.Result.open(folder).figures
        values.append(figures.query("metric == 'auroc'").set_index(["first", "second"]))
    for pair in (("A", ""), ("B", ""), ("A", "B")):
        row = table.loc[(*pair, "auroc", "")]
        estimates = [each.loc[pair, "estimate"] for each in values]
        assert row["mean"] == pytest.approx(np.mean(estimates))
        assert [row[f"fold_{n}"] for n in (1, 2, 3)] == pytest.approx(estimates)
        assert row["ci_low"] < row["mean"] < row["ci_high"]
        assert np.isnan(row["p_value"]) == (pair[1] == "")
    assert not {"tp", "fp", "tn", "fn"} & set(table.index.get_level_values("metric"))


def test_repeated_trainings_have_mean_and_deviation_alone(folds, tmp_path):
    made = [folds[name] for name in ("fold-0", "seed-1", "seed-2")]
    row = table_of(made, tmp_path).loc["A", "B", "auroc", ""]
    assert row[["mean", "sd"]].notna().all()
    assert row[["ci_low", "ci_high", "p_value"]].isna().all()


@pytest.mark.parametrize(
    "names",
    [
        ("fold-0",),
        ("fold-0", "fold-0"),
        ("fold-0", "seed-1", "fold-1"),  # some share test images, some do not
        ("fold-0", "fold-1", "fold-2", "fold-0"),
        ("fold-0", "alone"),
        ("fold-0", "other"),
    ],
)
def test_reports_that_are_neither_are_refused_and_nothing_is_written(names, folds, tmp_path):
    made = [folds[name] for name in names]
    last = "folds" if len(names) == 1 else made[-1].name
    with pytest.raises(InputError, match=last if last != "fold-1" else "seed-1"):
        cxr_compare.folds(made, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
