"""Intervals rebuilt from the methods paragraph and the report's tables alone.

The functions below are written from the sentences of the paragraph, without a look at the program:
whoever changes a formula has to change its sentence and then its function here.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import beta, t

import cxr_compare

SHARES = {
    "recall": (["tp"], ["tp", "fn"]),
    "specificity": (["tn"], ["tn", "fp"]),
    "precision": (["tp"], ["tp", "fp"]),
    "npv": (["tn"], ["tn", "fn"]),
    "accuracy": (["tp", "tn"], ["tp", "fp", "tn", "fn"]),
    "localised_sensitivity": (["found"], ["boxed"]),
    "f1": (["tp"], ["tp", "fp", "fn"]),
}
OF_BOTH_CLASSES = ("precision", "npv", "f1", "mcc")
FUNCTIONS = ("balanced_accuracy", "mcc", "lr_positive", "lr_negative")


def drawn(n_patients=90, seed=7):
    """Return unequal numbers of images a patient, labels, boxes of a detector and scores."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, n_patients)
    patients = np.repeat(np.arange(n_patients), sizes)
    n = len(patients)
    label = (patients % 3 == 0) & (rng.random(n) < 0.8)
    ids = [f"i{number:03d}" for number in range(n)]
    truth = pd.DataFrame(
        {
            "image_id": ids,
            "patient_id": [f"p{number}" for number in patients],
            "role": np.where(patients < n_patients // 3, "val", "test"),
            "label": label.astype(int),
        }
    )
    effect = rng.normal(0, 0.7, n_patients)[patients]
    scores = expit(1.6 * label + effect + rng.standard_normal((2, n)))
    corners = np.array([20.0, 20.0, 60.0, 60.0]) + rng.normal(0, 14, (n, 4))
    boxes = pd.DataFrame(corners, columns=["x1", "y1", "x2", "y2"])
    boxes = boxes.assign(image_id=ids, score=scores[0])[rng.random(n) > 0.1]
    true_boxes = truth[label][["image_id"]].assign(x1=20.0, y1=20.0, x2=60.0, y2=60.0)
    classifier = pd.DataFrame({"image_id": ids, "score": scores[1]})
    return truth, true_boxes, boxes, classifier


@pytest.fixture(scope="module")
def report():
    truth, true_boxes, boxes, classifier = drawn()
    return cxr_compare.compare(
        {"D": boxes, "C": classifier},
        truth=truth,
        boxes=true_boxes,
        both=True,
        replicates=100,
    )


# The program from the paragraph


def effective(images):
    return images.sum() ** 2 / (images**2).sum()


def exact(share, trials):
    hits, misses = share * trials, (1 - share) * trials
    low = beta.ppf(0.025, hits, misses + 1) if hits > 0 else 0.0
    high = beta.ppf(0.975, hits + 1, misses) if misses > 0 else 1.0
    return low, high


def satterthwaite(q):
    return 2 * (q**2).sum() ** 2 / (q**4).sum()


def on_the_logit(value, q, freedom):
    reach = t.ppf(0.975, freedom) * np.sqrt((q**2).sum()) / (value * (1 - value))
    return expit(logit(value) - reach), expit(logit(value) + reach)


def leave_out(figure, counts):
    """Return the figure minus the figure without each patient, times √((n − 1) / n)."""
    counts = counts[counts.any(axis=1)]
    total = counts.sum(axis=0)
    parts = [figure(total) - figure(total - row) for row in counts]
    return np.array(parts) * np.sqrt((len(counts) - 1) / len(counts))


def inflation(counts):
    """Return w, from the images of both classes of each patient."""
    positive, negative = counts["tp"] + counts["fn"], counts["fp"] + counts["tn"]
    n = (positive + negative).to_numpy()
    rarer = min(positive.to_numpy(), negative.to_numpy(), key=effective)
    several = n > 1
    of_pairs = rarer[several] * (rarer[several] - 1) / (n[several] * (n[several] - 1))
    total = (rarer / n).mean() * n.sum()
    expected = total**2 / (total + of_pairs.mean() * (n * (n - 1)).sum())
    return max(effective(rarer) / expected, 1)


def share_interval(counted, of, w):
    share, trials = counted.sum() / of.sum(), effective(of)
    trials = max(trials / w, min(trials, 2))
    if share in (0, 1):
        return exact(share, trials)
    q = leave_out(lambda sums: sums[0] / sums[1], np.column_stack([counted, of])) * np.sqrt(w)
    low, high = on_the_logit(share, q, min(satterthwaite(q), trials - 1))
    exact_low, exact_high = exact(share, trials)
    return max(low, exact_low), min(high, exact_high)


def figure_of_counts(metric, tp, fp, tn, fn):
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    if metric == "balanced_accuracy":
        return (sensitivity + specificity) / 2
    if metric == "mcc":
        return (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    if metric == "lr_positive":
        return sensitivity / (1 - specificity)
    return (1 - sensitivity) / specificity


def function_interval(metric, counts, w):
    """Add one patient of each outcome, and return the interval on the scale of the figure."""
    there, back = {
        "balanced_accuracy": (lambda figure: figure, lambda value: value),
        "mcc": (lambda figure: (1 + figure) / 2, lambda value: 2 * value - 1),
    }.get(metric, (lambda figure: figure / (1 + figure), lambda value: value / (1 - value)))
    positive, negative = counts[:, 0] + counts[:, 3], counts[:, 1] + counts[:, 2]
    of_positive = positive.sum() / (positive > 0).sum()
    of_negative = negative.sum() / (negative > 0).sum()
    added = np.vstack([counts, np.diag([of_positive, of_negative, of_negative, of_positive])])

    def scaled(sums):
        return there(figure_of_counts(metric, *sums))

    q = leave_out(scaled, added) * np.sqrt(w)
    low, high = map(back, on_the_logit(scaled(added.sum(axis=0)), q, satterthwaite(q)))
    printed = figure_of_counts(metric, *counts.sum(axis=0))
    return min(low, printed), max(high, printed)


def auroc_and_q(images):
    """Return an AUROC, the parts of the patients, and their images of both classes."""
    positive, negative = images[images["label"] == 1], images[images["label"] == 0]
    wins = np.sign(positive["score"].to_numpy()[:, None] - negative["score"].to_numpy())
    wins = (wins + 1) / 2
    auroc = wins.mean()
    patients = sorted(images["patient_id"].unique())
    q, sizes = np.zeros(len(patients)), []
    for rows, shares in ((positive, wins.mean(axis=1)), (negative, wins.mean(axis=0))):
        added = pd.Series((shares - auroc) / len(rows)).groupby(rows["patient_id"].to_numpy()).sum()
        k = rows.groupby("patient_id").size().reindex(patients, fill_value=0).to_numpy(float)
        n = (k > 0).sum()
        q += added.reindex(patients, fill_value=0) / (1 - k / k.sum()) * np.sqrt((n - 1) / n)
        sizes.append(k)
    return auroc, np.asarray(q), sizes


def auroc_freedom(q, sizes):
    a, b = map(effective, sizes)
    of_classes = (1 / a + 1 / b) ** 2 / (1 / (a**2 * (a - 1)) + 1 / (b**2 * (b - 1)))
    return min(satterthwaite(q), of_classes)


# What it gives, beside the report


def images_of(report, system):
    return report.decisions[report.decisions["system"] == system].sort_values("image_id")


def counts_by_patient(images, policy):
    called, positive = images[f"decision_{policy}"].astype(bool), images["label"] == 1
    boxed = images["localised"].notna() & positive
    found = boxed & called & images["localised"].fillna(False).astype(bool)
    outcomes = {
        "tp": positive & called,
        "fp": ~positive & called,
        "tn": ~positive & ~called,
        "fn": positive & ~called,
        "boxed": boxed,
        "found": found,
    }
    return pd.DataFrame(outcomes).groupby(images["patient_id"]).sum().astype(float)


def test_every_interval_at_a_threshold_is_that_of_the_paragraph(report):
    rows = report.figures
    rows = rows[(rows["second"] == "") & (rows["subgroup"] == "all") & (rows["policy"] != "")]
    rows = rows[rows["metric"].isin([*SHARES, *FUNCTIONS]) & rows["ci_low"].notna()]
    rows = rows[rows["first"].isin(report.systems)]
    assert set(rows["metric"]) == {*SHARES, *FUNCTIONS}
    first = rows.iloc[0]
    assert inflation(counts_by_patient(images_of(report, first["first"]), first["policy"])) > 1.1
    for row in rows.itertuples():
        counts = counts_by_patient(images_of(report, row.first), row.policy)
        w = inflation(counts) if row.metric in OF_BOTH_CLASSES else 1
        if row.metric in SHARES:
            counted, of = (counts[names].sum(axis=1) for names in SHARES[row.metric])
            low, high = share_interval(counted.to_numpy(), of.to_numpy(), w)
            if row.metric == "f1":
                low, high = 2 * low / (1 + low), 2 * high / (1 + high)
        else:
            outcomes = counts[["tp", "fp", "tn", "fn"]].to_numpy()
            low, high = function_interval(row.metric, outcomes, w)
        found = (row.ci_low, row.ci_high)
        assert found == pytest.approx((low, high), abs=1e-9), (row.first, row.metric, row.policy)


def test_every_auroc_and_difference_is_that_of_the_paragraph(report):
    figures = report.figures[report.figures["metric"] == "auroc"]
    figures = figures[figures["subgroup"] == "all"].set_index(["first", "second"])
    parts = {system: auroc_and_q(images_of(report, system)) for system in report.systems}
    for system, (auroc, q, sizes) in parts.items():
        row = figures.loc[(system, "")]
        positive, negative = sizes
        pairs = min((positive > 0).sum(), (negative > 0).sum(), len(q) // 2)
        cut = exact(auroc, min(pairs, *map(effective, sizes)))
        low, high = on_the_logit(auroc, q, auroc_freedom(q, sizes))
        found = (row["estimate"], row["ci_low"], row["ci_high"])
        assert found == pytest.approx((auroc, max(low, cut[0]), min(high, cut[1])), abs=1e-9)
    for first, second in [("D", "C"), ("D", "D + C"), ("C", "D + C")]:
        row = figures.loc[(first, second)]
        (one, q_one, sizes), (other, q_other, _) = parts[first], parts[second]
        q = q_one - q_other
        error, freedom = np.sqrt((q**2).sum()), auroc_freedom(q, sizes)
        reach = t.ppf(0.975, freedom) * error
        p_value = 2 * t.sf(abs(one - other) / error, freedom)
        found = (row["ci_low"], row["ci_high"], row["p_value"])
        assert found == pytest.approx((one - other - reach, one - other + reach, p_value), abs=1e-9)


def test_the_joint_score_is_that_of_the_paragraph(report):
    record = report.to_dict()["provenance"]["systems"]["D + C"]["ensemble"]
    (rule,) = record["findings"].values()
    log_odds = rule["intercept"]
    for system, weight, at_zero in zip("DC", rule["weights"], rule["at_zero"], strict=True):
        scores = images_of(report, system)["score"].to_numpy()
        logits = logit(np.clip(scores, 1e-4, 1 - 1e-4))
        log_odds = log_odds + np.where(scores == 0, at_zero, weight * logits)
    joint = images_of(report, "D + C")["score"].to_numpy()
    np.testing.assert_allclose(joint, expit(log_odds), atol=1e-12)
