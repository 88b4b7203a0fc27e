"""A comparison on several findings, each as alone and their mean; means over folds."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

import cxr_compare
from cxr_compare import InputError
from tests.adapters import reports
from tests.adapters.sets import table_set, write_predictions
from tests.oracles import rebuild

FINDINGS = ["edema", "mass", "nodule"]


def drawn(n=160, seed=2):
    """Images of patients with two each, their labels, and scores of two systems."""
    rng = np.random.default_rng(seed)
    truth = pd.DataFrame({"image_id": [f"i{number:03d}" for number in range(n)]})
    truth["patient_id"] = [f"p{number // 2:03d}" for number in range(n)]
    truth["role"] = np.where(np.arange(n) % 8 < 3, "val", "test")
    truth["role"] = truth.groupby("patient_id")["role"].transform("first")
    for finding, share in zip(FINDINGS, (0.3, 0.5, 0.4), strict=True):
        truth[finding] = (rng.random(n) < share).astype(int)
    scores = {}
    for name, skill in (("A", 1.5), ("B", 0.8)):
        values = skill * truth[FINDINGS] + rng.normal(0, 1, (n, 3))
        scores[name] = (1 / (1 + np.exp(-values))).round(3)
        scores[name].insert(0, "image_id", truth["image_id"])
    return truth, scores


@pytest.fixture(scope="module")
def tables():
    return drawn()


@pytest.fixture(scope="module")
def several(tables):
    truth, scores = tables
    return cxr_compare.compare(scores, truth=truth, target="all", replicates=200)


def row_of(table, first, second, metric):
    of = (table["first"] == first) & (table["second"] == second) & (table["metric"] == metric)
    (row,) = table[of].to_dict("records")
    return row


@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
def test_the_mean_is_that_of_the_figures_of_the_findings(tables, several, metric):
    truth, scores = tables
    rows = (truth["role"] == "test").to_numpy()
    function = {"auroc": roc_auc_score, "average_precision": average_precision_score}[metric]
    means = {
        name: np.mean([function(truth.loc[rows, f], scores[name].loc[rows, f]) for f in FINDINGS])
        for name in "AB"
    }
    for name, value in means.items():
        row = row_of(several.macro, name, "", metric)
        assert row["estimate"] == pytest.approx(value)
        assert row["ci_low"] < value < row["ci_high"]
        assert row["findings"] == ",".join(FINDINGS)
    gap = row_of(several.macro, "A", "B", metric)
    assert gap["estimate"] == pytest.approx(means["A"] - means["B"])


def test_a_finding_that_is_counted_twice_makes_no_interval_narrower(tables):
    truth, scores = tables
    truth = truth[["image_id", "patient_id", "role", "mass"]].assign(copy=truth["mass"])
    scores = {name: each[["image_id", "mass"]] for name, each in scores.items()}
    scores = {name: each.assign(copy=each["mass"]) for name, each in scores.items()}
    found = cxr_compare.compare(scores, truth=truth, target="all", replicates=200)
    alone = found.results["mass"].figures
    # The patients of a resample are the same for both findings. A's AUROC has Newcombe's interval.
    for pair in (("B", ""), ("A", "B")):
        for metric in ("auroc", "average_precision"):
            one, mean = (row_of(table, *pair, metric) for table in (alone, found.macro))
            assert mean["estimate"] == pytest.approx(one["estimate"], abs=1e-9)
            assert mean["ci_low"] <= one["ci_low"] + 1e-9
            assert mean["ci_high"] >= one["ci_high"] - 1e-9
            if pair[1] and metric == "average_precision":
                assert mean["ci_low"] == pytest.approx(one["ci_low"], abs=1e-9)


def test_p_holm_of_the_findings_is_holm_over_findings_times_pairs(tables):
    truth, scores = tables
    three = scores | {"C": scores["B"].assign(mass=scores["B"]["edema"])}
    found = cxr_compare.compare(three, truth=truth, target="all", replicates=100)
    tests = found.tests
    assert len(tests) == len(FINDINGS) * 3
    known = tests["p_value"].notna()
    assert known.sum() > 6
    theirs = multipletests(tests.loc[known, "p_value"], method="holm")[1]
    np.testing.assert_allclose(tests.loc[known, "p_holm"], theirs, atol=1e-12)
    pairs = found.macro[(found.macro["metric"] == "auroc") & (found.macro["second"] != "")]
    theirs = multipletests(pairs["p_value"], method="holm")[1]
    np.testing.assert_allclose(pairs["p_holm"], theirs, atol=1e-12)
    for finding, result in found.results.items():
        assert "3 findings" in result.headline
        of_page = {(c.first, c.second): c.p_holm for c in result.answer.claims[:3]}
        for row in tests[known & (tests["finding"] == finding)].to_dict("records"):
            assert of_page[row["first"], row["second"]] == row["p_holm"]


def test_figures_beside_the_answer_are_corrected_over_findings_too(tables):
    truth, scores = tables
    found = cxr_compare.compare(scores, truth=truth, target="all", both=True, replicates=100)
    tables_of = {name: each.figures for name, each in found.results.items()}
    assert rebuild.require_corrected(tables_of, joint="A + B") > 80
    assert rebuild.require_corrected({"": found.macro.assign(policy="")}, joint="A + B") > 4


def test_a_finding_too_rare_to_join_systems_is_left_out_and_the_others_are_compared(tables):
    truth, scores = tables
    rare = truth.assign(edema=truth["edema"].where(truth["role"] == "test", 0))
    found = cxr_compare.compare(scores, truth=rare, target="all", both=True, replicates=100)
    assert set(found.left_out) == {"edema"}
    assert set(found.results) == {"mass", "nodule"}


@pytest.fixture(scope="module")
def data(tables, tmp_path_factory):
    """A data set of these images and findings, and of one that no image has."""
    truth, _ = tables
    folder = tmp_path_factory.mktemp("findings")
    states = {finding: truth[finding].map({1: "present", 0: "absent"}) for finding in FINDINGS}
    states["hernia"] = ["absent"] * len(truth)
    data = table_set(folder, truth["image_id"], states, patient_id=truth["patient_id"])
    roles = truth[["image_id", "role"]]
    roles.to_csv(folder / "roles.csv", index=False)
    cxr_compare.split(data, name="ours", file=folder / "roles.csv")
    return data


def long(scores):
    rows = scores.melt("image_id", var_name="finding", value_name="score")
    return rows.sort_values(["image_id", "finding"], ignore_index=True)


def test_predictions_files_and_frames_give_the_same_figures_on_a_data_set(
    tables, data, several, tmp_path
):
    truth, scores = tables
    ids = truth["image_id"]
    stored = write_predictions(tmp_path / "A", data, ids, "A", scores=long(scores["A"]))
    wide = scores["B"].rename(columns={name: f"prob_{name}" for name in FINDINGS})
    wide.to_csv(tmp_path / "B.csv", index=False)
    call = {"data": data, "split": "ours", "target": "all", "replicates": 200}
    found = cxr_compare.compare({"A": stored, "B": tmp_path / "B.csv"}, **call)
    assert sorted(found.results) == FINDINGS
    assert set(found.left_out) == {"hernia"}
    assert "hernia" in str(found)
    values = ["first", "second", "estimate", "ci_low", "ci_high", "p_value"]
    for finding in FINDINGS:
        one, other = (
            each.results[finding].figures.query("metric == 'auroc'")[values].reset_index(drop=True)
            for each in (found, several)
        )
        pd.testing.assert_frame_equal(one, other)
    in_memory = cxr_compare.compare(scores, **call)
    for one in (found, in_memory):
        pd.testing.assert_frame_equal(one.macro, several.macro)
        pd.testing.assert_frame_equal(one.tests, several.tests)


def test_the_table_of_several_findings_has_the_figure_that_decides(tables, tmp_path):
    truth, scores = tables
    options = {"truth": truth, "target": "all", "replicates": 100, "metric": "average_precision"}
    made = cxr_compare.compare(scores, **options)
    assert made.table.index.name == "Average precision of images"
    page = made.save(tmp_path / "report").page.read_text()
    assert "Average precision of images of each finding with 95 % interval" in page
    assert "Finding (Average precision of images)" in page
    assert "chance" not in page  # which is a line at 0.5 of AUROCs alone
    for name, result in made.results.items():
        value = row_of(result.figures, "A", "", "average_precision")["estimate"]
        assert made.table.loc[name, "A"].startswith(f"{value:.3f}")
    mean = row_of(made.macro, "A", "", "average_precision")["estimate"]
    assert made.table.iloc[-1]["A"].startswith(f"{mean:.3f}")


def test_a_report_of_several_findings_has_a_row_and_a_folder_for_each(tables, tmp_path):
    truth, scores = tables
    truth = truth[["image_id", "patient_id", "role", "mass", "nodule"]].assign(rare=0)
    is_test = truth["role"] == "test"
    scores = {name: each.assign(rare=0.1) for name, each in scores.items()}
    made = cxr_compare.compare(
        scores, truth=truth, target="all", replicates=100, out=tmp_path / "report"
    )
    assert list(made.results) == ["mass", "nodule"]
    assert list(made.left_out) == ["rare"]
    page = made.page.read_text()
    for name, result in made.results.items():
        assert f'href="{name}/report.html"' in page
        assert made.table.loc[name, "A"].split()[0] in page
        assert cxr_compare.Result.open(tmp_path / "report" / name).headline == result.headline
        tested = made.tests[made.tests["finding"] == name].iloc[0]
        assert made.rows.loc[name, "Positive images"] == (truth[name] * is_test).sum()
        assert f"{tested['estimate']:.3f}".replace("-", "−") in page
    assert (tmp_path / "report/findings.svg").read_text().count("mass") == 1
    assert "†" not in page
    mean = row_of(made.macro, "A", "", "auroc")["estimate"]
    assert made.table.iloc[-1]["A"].startswith(f"{mean:.3f}")
    assert str(made.page) in str(made)
    written = pd.read_csv(tmp_path / "report" / "figures.csv")
    assert set(written["target"]) == {"mass", "nodule"}
    tests = written[(written["metric"] == "auroc") & written["second"].notna()]
    np.testing.assert_allclose(tests["p_holm"], made.tests["p_holm"])


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


def on_the_logit(values):
    """Ends of a mean over folds by the page of metrics."""
    k, mean = len(values), np.mean(values)
    reach = stats.t.ppf(0.975, k - 1) * np.std(values, ddof=1) * np.sqrt(1 / k + 1 / (k - 1))
    return expit(logit(mean) + np.array([-1, 1]) * reach / (mean * (1 - mean)))


def test_the_interval_of_a_figure_stays_where_it_can_be_and_one_system_has_no_p():
    values = np.array([0.99, 0.6, 0.95])
    row = summary(values, second="")
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(on_the_logit(values))
    assert np.isnan(row["p_value"])
    row = summary(2 * values - 1, second="", metric="mcc")
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(2 * on_the_logit(values) - 1)


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

    def report(name, seed, fold, names="ABC", data=data):
        rng = np.random.default_rng(seed)
        systems = {}
        for system in names:
            score = np.clip(0.3 * positive + 0.5 * rng.random(180), 0, 1)
            systems[system] = pd.DataFrame({"image_id": ids, "score": score})
        result = cxr_compare.compare(systems, data=data, split=f"cv-{fold}", replicates=100)
        reports.save_tables(result, folder / name)
        return folder / name

    made = {f"fold-{n}": report(f"fold-{n}", 4, n) for n in range(3)}
    made |= {f"seed-{n}": report(f"seed-{n}", n, 0) for n in (1, 2)}
    made["alone"] = report("alone", 4, 1, names="A")
    made["other"] = report("other-data", 4, 1, data=other)
    return made


def table_of(made, tmp_path):
    shown = cxr_compare.folds(made, out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "folds.csv").fillna({"second": "", "policy": ""})
    assert len(shown.to_dict()["figures"]) == len(table)
    for folder in made:
        said = cxr_compare.Result.open(folder).answer.must_say
        assert said
        one_of = {*shown.to_dict()["must_say"]}
        assert all({text, f"{folder}: {text}"} & one_of for text in said)
    stored = json.loads((tmp_path / "out" / "folds.json").read_text())["must_say"]
    assert stored == shown.to_dict()["must_say"]
    assert all(text in str(shown) for text in stored)
    return table.set_index(["first", "second", "metric", "policy"])


def test_folds_have_means_of_their_reports_with_interval_and_corrected_p(folds, tmp_path):
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
    # p-values are corrected over the pairs of systems.
    table = table.reset_index()
    differences = table[table["p_value"].notna()]
    aurocs = differences[differences["metric"] == "auroc"].set_index(["first", "second"])
    assert len(aurocs) == 3
    theirs = multipletests(aurocs["p_value"], method="holm")[1]
    np.testing.assert_allclose(aurocs["p_holm"], theirs, atol=1e-12)
    assert (aurocs["p_holm"] > aurocs["p_value"]).any()
    assert rebuild.require_corrected({"": table}) > 6


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
