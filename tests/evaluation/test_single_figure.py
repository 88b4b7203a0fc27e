"""`metrics.estimate`: one figure with the interval that a comparison gives for it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score

import cxr_compare
from cxr_compare import metrics
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.registry import METRICS


def drawn(n: int = 200, seed: int = 0, n_patients: int = 80):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    scores = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1)
    return y, scores, np.array([f"p{number}" for number in rng.integers(0, n_patients, n)])


def box_outputs(n: int = 60, seed: int = 3):
    """True and predicted boxes as lists of dicts, and image ids."""
    rng = np.random.default_rng(seed)
    truth, outputs = [], []
    for label in rng.integers(0, 2, n):
        truth.append({"boxes": np.array([[100, 100, 200, 200.0]] * int(label)).reshape(-1, 4)})
        shift = rng.normal(0, 20, (2, 4))
        boxes = np.array([[100, 100, 200, 200.0], [20, 130, 90, 220.0]]) + shift
        outputs.append({"boxes": boxes, "scores": rng.random(2) * 0.6 + 0.3 * label})
    return truth, outputs, [f"image-{number:03d}" for number in range(n)]


OF_SCORES = ["auroc", "average_precision"]
AT_THRESHOLD = ["recall", "specificity", "f1", "mcc", "accuracy"]


@pytest.mark.parametrize("by_patient", [True, False])
def test_it_is_the_figure_of_a_comparison(by_patient):
    y, scores, patients = drawn()
    given = {"patients": patients} if by_patient else {}
    report = cxr_compare.compare(
        {"A": scores}, truth=y, policy=["threshold=0.5"], replicates=300, **given
    )
    frame = report.to_frame().query("subgroup == 'all'").set_index(["metric", "policy"])
    for metric in (*OF_SCORES, *AT_THRESHOLD):
        at = 0.5 if metric in AT_THRESHOLD else None
        one = metrics.estimate(metric, y, scores, threshold=at, replicates=300, **given)
        row = frame.loc[metric, "threshold=0.5" if at else ""]
        own = one.to_frame()
        assert list(own.columns) == list(report.to_frame().columns)
        for column in ("estimate", "ci_low", "ci_high", "n_images", "n_patients", "n_positive"):
            if pd.isna(row[column]):
                assert pd.isna(own[column].iloc[0]), (metric, column)
            else:
                assert own[column].iloc[0] == row[column], (metric, column)


def test_figures_of_boxes_are_those_of_a_comparison():
    truth, outputs, ids = box_outputs()
    labels = pd.Series([len(one["boxes"]) for one in truth], index=ids)
    patients = pd.Series([f"p{number // 2}" for number in range(len(ids))], index=ids)
    report = cxr_compare.compare(
        {"A": outputs}, truth=labels, boxes=truth, patients=patients, replicates=200,
        policy=["threshold=0.5"],
    )  # fmt: skip
    frame = report.to_frame().query("subgroup == 'all'").set_index(["metric", "policy"])
    for metric in ("ap50", "ap", "froc_mean", "wafroc", "localised_sensitivity"):
        at = 0.5 if metric == "localised_sensitivity" else None
        one = metrics.estimate(
            metric, truth, outputs, image_ids=ids, patients=patients, threshold=at, replicates=200
        )
        row = frame.loc[metric, "threshold=0.5" if at else ""]
        assert (one.estimate, one.ci_low, one.ci_high) == (
            row["estimate"],
            row["ci_low"],
            row["ci_high"],
        ), metric
        assert one.n_patients == 30


def test_values_are_those_of_scikit_learn():
    y, scores, patients = drawn(seed=7)
    for metric, theirs in (
        ("auroc", roc_auc_score(y, scores)),
        ("average_precision", average_precision_score(y, scores)),
        ("brier", brier_score_loss(y, scores)),
    ):
        assert metrics.estimate(metric, y, scores, patients=patients).estimate == pytest.approx(
            theirs
        )
    found = metrics.estimate("recall", y, scores, threshold=0.5)
    assert found.estimate == pytest.approx(recall_score(y, scores >= 0.5))


def test_the_interval_of_independent_images_is_that_of_scipys_bootstrap():
    y, scores, _ = drawn(400, seed=11)
    right = (scores >= 0.5) == y
    theirs = stats.bootstrap(
        (right,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
    ).confidence_interval
    ours = metrics.estimate("accuracy", y, scores, threshold=0.5, replicates=4000)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((theirs.low, theirs.high), abs=0.008)


def test_the_interval_of_an_auroc_covers_its_true_value():
    """Binormal scores by patient: each patient has two images with a shared part."""
    rng = np.random.default_rng(5)
    true, covered, n = stats.norm.cdf(1 / np.sqrt(2)), 0, 150
    for _ in range(n):
        y = np.repeat(rng.integers(0, 2, 60), 2)
        shared = np.repeat(rng.normal(0, np.sqrt(0.7), 60), 2)
        scores = y + shared + rng.normal(0, np.sqrt(0.3), 120)
        found = metrics.estimate("auroc", y, scores, patients=np.repeat(np.arange(60), 2))
        covered += found.ci_low <= true <= found.ci_high
    assert stats.binomtest(covered, n, 0.95).pvalue > 0.01


def test_every_registered_metric_gives_a_figure_or_says_what_gives_it():
    y, scores, patients = drawn()
    truth, outputs, ids = box_outputs()
    given = 0
    for name, record in METRICS.items():
        of_cut = {"threshold", "box_cut"} & set(record.needs) or record.family == "counts"
        at = {"threshold": 0.5} if of_cut else {}
        inputs = (truth, outputs) if record.boxed else (y, scores)
        people = {"image_ids": ids} if record.boxed else {"patients": patients}
        if record.family == "threshold":
            with pytest.raises(InputError, match=r"cxr_compare\.compare gives it"):
                metrics.estimate(name, *inputs, **people)
            continue
        found = metrics.estimate(name, *inputs, replicates=50, **people, **at)
        assert found.estimate is not None, name
        said = found.note or record.family == "counts"
        assert found.ci_low is not None or said, name
        given += 1
    assert given > 40


def test_it_prints_one_line_and_a_table():
    y, scores, patients = drawn()
    line = repr(metrics.estimate("auroc", y, scores, patients=patients))
    count = len(set(patients))
    assert line.startswith("auroc 0.7")
    assert line.endswith(f"), 200 images of {count} patients")
    shown = metrics.estimate("auroc", y, scores)
    assert "patient" not in repr(shown) + shown._repr_html_() + shown.note + shown.method
    undefined = metrics.estimate("auroc", [1, 1], [0.2, 0.4])
    assert undefined.estimate is None
    assert "undefined (no image is negative), 2 images" in repr(undefined)
    assert "patient" not in repr(metrics.estimate("accuracy", [1], [0.2], threshold=0.5))


@pytest.mark.parametrize(
    ("metric", "options", "says"),
    [
        ("auroc_", {}, "'auroc_'.*'auroc'"),
        ("sensitivity", {}, "'recall'"),
        ("recall", {}, "recall needs threshold="),
        ("auroc", {"threshold": 0.5}, "auroc has no threshold"),
        ("recall", {"threshold": 7}, "threshold=7"),
        ("auroc", {"patients": ["a"]}, "patients: "),
        ("auroc", {"patients": ["a", None, "b"]}, "patients: row 1"),
        ("auroc", {"image_ids": ["a", "a", "b"]}, "'a'"),
        ("auroc", {"image_ids": ["a", None, "b"]}, "image_ids: number 1"),
        ("ap50", {}, "image_ids"),
        ("threshold", {}, "cxr_compare.compare gives it"),
    ],
)
def test_what_cannot_be_computed_is_refused(metric, options, says):
    with pytest.raises(InputError, match=says):
        metrics.estimate(metric, [0, 1, 1], [0.1, 0.4, 0.3], **options)


@pytest.mark.parametrize("patients", [["a", None, "a"], ["a"], "abc", [["a"], ["b"], ["c"]]])
def test_a_difference_needs_one_patient_for_each_image(patients):
    with pytest.raises(InputError, match="patients: "):
        metrics.auroc_difference([0, 1, 1], [0.1, 0.4, 0.3], [0.3, 0.1, 0.2], patients)


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="threshold"):
        metrics.confusion_counts([0, 1], [0.1, 0.4], threshold=np.nan)


def test_logits_are_no_probabilities():
    with pytest.raises(InputError, match=r"'image-2': 2\.5 .*logits"):
        metrics.estimate("brier", [0, 1], [0.5, 2.5])


def test_tensors_with_gradients_and_series_are_arrays():
    torch = pytest.importorskip("torch")
    y, scores, patients = drawn()
    expected = metrics.estimate("auroc", y, scores, patients=patients)
    tensor = torch.tensor(scores, requires_grad=True)
    assert metrics.estimate("auroc", torch.tensor(y), tensor, patients=patients) == expected
    bf16 = torch.tensor(scores).bfloat16()
    assert metrics.auroc(y, bf16) == metrics.auroc(y, bf16.float())
    series = pd.Series(patients)[::-1]
    assert metrics.estimate("auroc", pd.Series(y), pd.Series(scores), patients=series) == expected
    assert metrics.auroc(torch.tensor(y), tensor) == expected.estimate


def test_an_auroc_of_too_few_patients_says_what_a_comparison_says():
    found = metrics.estimate("auroc", [0, 1, 0, 1], [0.1, 0.4, 0.2, 0.3], patients=list("abac"))
    assert found.ci_low is None
    assert found.note
    assert "50 resamples" not in found.note
