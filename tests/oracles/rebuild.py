"""Intervals and p-values of a report by the formulas of docs/metrics.md, from its decisions alone.

Whoever changes a formula changes its sentence on the page, and then its function here.
"""

import math

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

SHARES = {
    "recall": (["tp"], ["tp", "fn"]),
    "specificity": (["tn"], ["tn", "fp"]),
    "accuracy": (["tp", "tn"], ["tp", "fp", "tn", "fn"]),
    "precision": (["tp"], ["tp", "fp"]),
    "npv": (["tn"], ["tn", "fn"]),
    "localised_sensitivity": (["found"], ["boxed"]),
    "f1": (["tp"], ["tp", "fp", "fn"]),
}
INFLATED = ("precision", "npv", "f1", "mcc")
NONE = (np.nan, np.nan)
LEAST = 1e-24


# Notation


def effective(n):
    n = np.asarray(n, float)
    return n.sum() ** 2 / (n**2).sum() if n.any() else 0.0


def satterthwaite(q):
    return 2 * (q**2).sum() ** 2 / (q**4).sum()


def exact(share, trials, level=0.95):
    hits, tail = share * trials, (1 - level) / 2
    low = beta.ppf(tail, hits, trials - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(1 - tail, hits + 1, trials - hits) if trials - hits > 0 else 1.0
    return low, high


def on_the_logit(value, variance, freedom, level=0.95):
    reach = t.ppf((1 + level) / 2, freedom) * np.sqrt(variance) / (value * (1 - value))
    return expit(logit(value) - reach), expit(logit(value) + reach)


def no_further(ends, limits):
    return max(ends[0], limits[0]), min(ends[1], limits[1])


# AUROC


def auroc_parts(images):
    """AUROC, contribution of each patient, numbers of positive and negative images, the design
    effect, and by class the share of the others that the images of each patient outrank.
    """
    patients = np.unique(images["patient_id"])
    positive, negative = (images[images["label"] == label] for label in (1, 0))
    wins = (np.sign(positive["score"].to_numpy()[:, None] - negative["score"].to_numpy()) + 1) / 2
    area = wins.mean()
    q, numbers, ranks = np.zeros(len(patients)), [], []
    by_patient, by_image = np.zeros(len(patients)), 0.0
    for rows, shares in ((positive, wins.mean(axis=1)), (negative, wins.mean(axis=0))):
        owner = np.searchsorted(patients, rows["patient_id"])
        n = np.bincount(owner, minlength=len(patients)).astype(float)
        numbers.append(n)
        ranks.append(np.bincount(owner, shares)[np.unique(owner)] / n[n > 0])
        known = np.count_nonzero(n)
        e = (shares - area) / len(rows)
        sums = np.bincount(owner, e, len(patients))
        by_patient, by_image = by_patient + sums, by_image + (e**2).sum()
        q += sums / (1 - n / n.sum()) * np.sqrt((known - 1) / known) if known > 1 else np.nan
    effect = (by_patient**2).sum() / by_image if by_image else 0.0
    return area, q, numbers, effect, ranks


def newcombe(area, positive, negative, level=0.95):
    """Ends as roots of a polynomial: both sides of the equation times (2 - x) (1 + x)."""
    x = np.polynomial.Polynomial([0, 1])
    more = (positive + negative) / 2 - 1
    product = (2 - x) * (1 + x)
    error = x * (1 - x) / (positive * negative)
    error *= product + more * ((1 - x) * (1 + x) + x * (2 - x))
    roots = ((area - x) ** 2 * product - norm.ppf((1 + level) / 2) ** 2 * error).roots()
    low, high = sorted(root.real for root in roots if abs(root.imag) < 1e-9 and 0 < root.real < 1)
    return low, high


def auroc_freedom(q, numbers, difference=False):
    k, m = map(effective, numbers)
    of_classes = (1 / k + 1 / m) ** 2 / (1 / (k**2 * (k - 1)) + 1 / (m**2 * (m - 1)))
    if difference and max(sum(numbers)) == 1:
        return of_classes
    return min(satterthwaite(q), of_classes)


def auroc(images, level=0.95):
    """Estimate and ends."""
    if images["label"].nunique() < 2:
        return np.nan, *NONE
    area, q, numbers, effect, ranks = auroc_parts(images)
    if np.isnan(q).any():
        return area, *NONE
    with_any = [np.count_nonzero(n) for n in numbers]
    trials = min(*with_any, len(q) // 2, *map(effective, numbers))
    variance = (q**2).sum()
    if variance < LEAST and (area not in (0, 1) or trials <= 1):
        return area, *NONE
    limits = missed_at_chance(area, numbers, ranks, trials, level) if trials > 1 else (0, 1)
    if variance < LEAST:
        return area, *limits
    ends = no_further(on_the_logit(area, variance, auroc_freedom(q, numbers), level), limits)
    if effect > LEAST:
        further = newcombe(area, *(n.sum() / effect for n in numbers), level)
        if trials > 1:
            further = no_further(further, exact(area, trials, level))
        ends = min(ends[0], further[0]), max(ends[1], further[1])
    return area, *ends


def missed_at_chance(area, numbers, ranks, trials, level):
    """Exact interval, in which missed images outrank half of the others, or none."""
    if area < 0.5:
        turned = [1 - each for each in ranks]
        low, high = missed_at_chance(1 - area, numbers, turned, trials, level)
        return 1 - high, 1 - low
    k, m = map(effective, numbers)
    few, many, least = (k, m, ranks[0].min()) if k <= m else (m, k, ranks[1].min())
    below = many * (1 - least)
    guessed = math.lgamma(many + 1) + math.lgamma(few + below + 1)
    guessed -= math.lgamma(below + 1) + math.lgamma(few + many + 1)
    if least < 0.5 - 1e-12 or guessed >= math.log(0.025):
        return exact(area, trials, level)
    return tuple((1 + end) / 2 for end in exact(2 * area - 1, trials, level))


def auroc_difference(first, second):
    """Estimate, ends and p-value."""
    if first["label"].nunique() < 2:
        return np.nan, *NONE, np.nan
    (one, q_one, numbers, *_), (other, q_other, *_) = auroc_parts(first), auroc_parts(second)
    gap, q = one - other, q_one - q_other
    variance = (q**2).sum()
    if np.isnan(variance) or variance < LEAST:
        return gap, *NONE, np.nan
    freedom, error = auroc_freedom(q, numbers, difference=True), np.sqrt(variance)
    reach = t.ppf(0.975, freedom) * error
    return gap, max(gap - reach, -1), min(gap + reach, 1), 2 * t.cdf(-abs(gap) / error, freedom)


def margin_ends(first, second):
    """Ends of the difference for a margin: the first points outwards that have their variance."""
    (one, q_one, numbers, *_), (other, q_other, *_) = auroc_parts(first), auroc_parts(second)
    gap, low, high, _ = auroc_difference(first, second)
    q = q_one - q_other
    quantile = t.ppf(0.975, auroc_freedom(q, numbers, difference=True))
    pulls = [(each @ q) / (q @ q) for each in (q_one, q_other)]

    def scale(area, pull, x):
        moved = np.clip(area + (x - gap) * pull, 0, 1)
        return moved * (1 - moved) / (area * (1 - area)) if 0 < area < 1 else 1.0

    def is_reached(x):
        at_end = scale(one, pulls[0], x) * q_one - scale(other, pulls[1], x) * q_other
        return (x - gap) ** 2 >= quantile**2 * (at_end**2).sum()

    ends = []
    for end, limit in ((low, -1.0), (high, 1.0)):
        points = np.linspace(end, limit, 20_001)
        index = next((index for index, x in enumerate(points) if is_reached(x)), None)
        if index in (0, None):
            ends.append(limit if index is None else end)
            continue
        near, far = points[index - 1], points[index]
        for _ in range(60):
            middle = (near + far) / 2
            near, far = (near, middle) if is_reached(middle) else (middle, far)
        ends.append(far)
    return tuple(ends)


# Figures at a threshold


def counts_by_patient(images, policy):
    """Counts tp, fp, tn, fn, boxed and found of each patient."""
    called, positive = images[f"decision_{policy}"].astype(bool), images["label"] == 1
    boxed = images["localised"].notna()
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


def leave_out(figure, sums):
    """Figure minus the figure without each patient, times the root of (n - 1) / n."""
    used = sums[sums.any(axis=1)]
    total = used.sum(axis=0)
    q = [figure(*total) - figure(*(total - row)) for row in used]
    return np.array(q) * np.sqrt((len(used) - 1) / len(used))


def inflation(counts):
    """Class inflation of the class with fewer effective patients."""
    positive = (counts["tp"] + counts["fn"]).to_numpy()
    negative = (counts["fp"] + counts["tn"]).to_numpy()
    n = positive + negative
    c = positive if effective(positive) <= effective(negative) else negative
    if not c.any():
        return 1.0
    n_more, c_more = (np.append(x, np.sqrt((n**2).mean())) for x in (n, c))
    beta = np.average(c_more / n_more, weights=c_more * n_more)
    return max(effective(c) / ((c / n).mean() * effective(n)) * beta, 1.0)


def share(counted, of, w=1.0):
    """Estimate and ends of a share of images."""
    if not of.sum():
        return np.nan, *NONE
    s, m = counted.sum() / of.sum(), effective(of)
    if np.count_nonzero(of) < 2:
        return s, *NONE
    m = max(m / w, min(m, 2)) if w > 1 else m
    if s in (0, 1):
        return s, *(exact(s, m) if m > 1 else NONE)
    q = leave_out(lambda c, d: c / d, np.column_stack([counted, of])) * np.sqrt(w)
    variance = (q**2).sum()
    if variance < LEAST:
        return s, *NONE
    ends = on_the_logit(s, variance, min(m - 1, satterthwaite(q)))
    ends = no_further(ends, exact(s, m)) if m > 1 else ends
    return s, min(ends[0], s), max(ends[1], s)


def brier(images):
    """Estimate and ends of the mean squared error of the probabilities, inflated as a precision."""
    label = images["label"]
    loss = (images["probability"] - label) ** 2
    sums = pd.DataFrame({"loss": loss, "tp": label, "fn": 0, "fp": 1 - label, "tn": 0})
    sums = sums.groupby(images["patient_id"]).sum().astype(float)
    return share(sums["loss"].to_numpy(), (sums["tp"] + sums["fp"]).to_numpy(), inflation(sums))


def balanced_accuracy(counts):
    """Estimate and ends of the mean of recall and specificity, from their intervals."""
    shares, q = [], np.zeros((2, len(counts)))
    for own, (right, wrong) in zip(q, (("tp", "fn"), ("tn", "fp")), strict=True):
        sums = np.column_stack([counts[right], counts[right] + counts[wrong]])
        shares.append(share(*sums.T))
        if sums[:, 1].any() and np.count_nonzero(sums[:, 1]) > 1:
            own[sums.any(axis=1)] = leave_out(lambda c, d: c / d, sums)
    (s1, low1, high1), (s2, low2, high2) = shares
    norm2 = (q**2).sum(axis=1)
    rho = (q[0] * q[1]).sum() / np.sqrt(norm2.prod()) if norm2.min() > LEAST else 0.0

    def reach(x, y):
        return np.sqrt(x * x + y * y + 2 * rho * x * y) / 2

    mean = (s1 + s2) / 2
    low, high = mean - reach(s1 - low1, s2 - low2), mean + reach(high1 - s1, high2 - s2)
    return mean, np.maximum(low, 0.0), np.minimum(high, 1.0)


def mcc(tp, fp, tn, fn):
    return (tp * tn - fp * fn) / np.sqrt((tp + fn) * (tn + fp) * (tp + fp) * (tn + fn))


def function(figure, counts, w=1.0):
    """Estimate and ends of a function of the four counts with values in [0, 1]."""
    sums = counts[["tp", "fp", "tn", "fn"]].to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        value = figure(*sums.sum(axis=0))
    positive, negative = sums[:, 0] + sums[:, 3], sums[:, 1] + sums[:, 2]
    if np.isnan(value) or min(np.count_nonzero(n) for n in (positive, negative)) < 2:
        return value, *NONE
    a1, a0 = (n.sum() / np.count_nonzero(n) for n in (positive, negative))
    added = np.vstack([sums, np.diag([a1, a0, a0, a1])])
    q = leave_out(figure, added) * np.sqrt(w)
    middle = figure(*added.sum(axis=0))
    ends = on_the_logit(middle, (q**2).sum(), satterthwaite(q))
    return value, min(ends[0], value), max(ends[1], value)


def at_threshold(metric, counts):
    """Estimate and ends of a figure of one system at its threshold."""
    w = inflation(counts) if metric in INFLATED else 1.0
    if metric in SHARES:
        found = share(*(counts[names].sum(axis=1).to_numpy() for names in SHARES[metric]), w)
        if metric == "accuracy" and counts[["tp", "fp", "tn", "fn"]].sum(axis=1).max() > 1:
            wide = function(lambda tp, fp, tn, fn: (tp + tn) / (tp + fp + tn + fn), counts)
            if not np.isnan([found[1], wide[1]]).any():
                found = found[0], min(found[1], wide[1]), max(found[2], wide[2])
        return tuple(2 * x / (1 + x) for x in found) if metric == "f1" else found
    if metric == "mcc":
        found = function(lambda *sums: (1 + mcc(*sums)) / 2, counts, w)
        return tuple(2 * x - 1 for x in found)
    assert metric == "balanced_accuracy", metric
    return balanced_accuracy(counts)


# Resampled figures


def resamples(patients, n_resamples, seed):
    """Weights of the patients, in the order of their names, ``(resamples, patients)``."""
    drawn = np.random.default_rng(seed).integers(0, patients, size=(n_resamples, patients))
    return np.stack([np.bincount(row, minlength=patients) for row in drawn])


def on_resamples(figure, images, weights):
    """Figure of label, score and the rest of a table on each resample of the patients."""
    owner = np.unique(images["patient_id"], return_inverse=True)[1]
    rows = np.arange(len(images))
    return np.array([figure(images.iloc[np.repeat(rows, row[owner])]) for row in weights])


def percentiles(drawn, estimate, n=None):
    """Ends of a resampled figure; n are the effective patients, None for refitted thresholds."""
    known = drawn[~np.isnan(drawn)]
    if len(drawn) - len(known) > 0.1 * len(drawn):
        return NONE
    tail = 0.025
    if n is not None and n > 1:
        tail = norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1))
    low, high = np.quantile(known, [tail, 1 - tail])
    inside = low - 1e-12 <= estimate <= high + 1e-12
    return (low, high) if low != high and inside else NONE


def resampled_p(drawn, n=None):
    known = drawn[~np.isnan(drawn)]
    p = min(1, 2 * (min((known <= 0).sum(), (known >= 0).sum()) + 1) / (len(known) + 1))
    if n is None or not n > 1:
        return p
    return 2 * t.cdf(norm.ppf(p / 2) * np.sqrt((n - 1) / n), n - 1)


def holm(p_values):
    """Holm's p-values in the order given."""
    order, adjusted, before = np.argsort(p_values, kind="stable"), np.empty(len(p_values)), 0.0
    for rank, place in enumerate(order):
        before = max(before, min(1.0, p_values[place] * (len(order) - rank)))
        adjusted[place] = before
    return adjusted


def is_of_boxes(metric):
    return metric in ("ap50", "ap") or metric.startswith("froc")


def corrected(rows, primary=(("auroc", ""),), joint="", with_boxes=()):
    """The corrected p-value of each row: finding, first, second, metric, policy and p-value.

    Differences of which the p-value is None have none.
    """
    families = {}
    for number, row in enumerate(rows):
        first, second, metric, policy, p_value = row[1:]
        if p_value is None:
            continue
        pair = (first, second)
        assert not is_of_boxes(metric) or set(pair) <= set(with_boxes), (pair, metric)
        name = [metric, policy]
        if joint and joint in pair:
            name += pair
        elif second == f"image-blind with {first}'s scores":
            name += ["image-blind"]
        elif (metric, policy) in primary:
            name = ["primary"]
        families.setdefault(tuple(name), []).append(number)
    found = [None] * len(rows)
    for numbers in families.values():
        adjusted = holm([rows[number][5] for number in numbers])
        for number, p_value in zip(numbers, adjusted, strict=True):
            found[number] = float(p_value)

    gates = (
        (lambda metric: metric != "pointing_accuracy" and not is_of_boxes(metric), "auroc"),
        (is_of_boxes, "ap50"),
    )
    for is_alike, usual in gates:
        leading = next((key for key in primary if is_alike(key[0])), (usual, ""))
        gate = {
            tuple(row[:3]): p for row, p in zip(rows, found, strict=True) if row[3:5] == leading
        }
        for number, row in enumerate(rows):
            if row[3:5] == leading or not is_alike(row[3]) or found[number] is None:
                continue
            before = gate.get(tuple(row[:3]))
            found[number] = None if before is None else max(found[number], before)
    return found


def require_corrected(tables, **families):
    """Require that `p_holm` of tables of figures, by finding, is that of the page of metrics."""
    columns = ["first", "second", "metric", "policy", "p_value"]
    rows = [
        (finding, *row[:4], None if np.isnan(row[4]) else row[4])
        for finding, table in tables.items()
        for row in table[columns].itertuples(index=False, name=None)
    ]
    got = np.concatenate([table["p_holm"].to_numpy(np.float64) for table in tables.values()])
    expected = np.array(corrected(rows, **families), dtype=np.float64)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    return int(np.isfinite(got).sum())


# Means over findings


def joined(values, ends, contributions):
    """Mean of figures and its ends, from those of each and their correlation."""
    q = np.stack(contributions)
    alike = q @ q.T / np.sqrt(np.outer((q**2).sum(axis=1), (q**2).sum(axis=1)))
    mean, gaps = np.mean(values), np.abs(np.transpose(ends) - values)  # (2, figures)
    below, above = (np.sqrt(gap @ alike @ gap) / len(values) for gap in gaps)
    return mean, max(mean - below, 0), min(mean + above, 1)


def mean_auroc(findings):
    """Estimate and ends of the mean AUROC of one system; a table of images for each finding."""
    values, *ends = zip(*map(auroc, findings), strict=True)
    return joined(values, np.transpose(ends), [auroc_parts(images)[1] for images in findings])


def mean_auroc_difference(first, second):
    """Estimate, ends and p-value of the difference of two means."""
    pairs = [
        (auroc_parts(one), auroc_parts(other)) for one, other in zip(first, second, strict=True)
    ]
    gap = np.mean([one[0] - other[0] for one, other in pairs])
    q = np.mean([one[1] - other[1] for one, other in pairs], axis=0)
    error, freedom = np.sqrt((q**2).sum()), satterthwaite(q)
    reach = t.ppf(0.975, freedom) * error
    return gap, gap - reach, gap + reach, 2 * t.cdf(-abs(gap) / error, freedom)


def mean_precision(estimates, ends, drawn):
    """Estimate and ends of the mean average precision; resamples are ``(findings, resamples)``."""
    filled = np.where(np.isnan(drawn), np.asarray(estimates)[:, None], drawn)
    mean, low, high = joined(estimates, ends, filled - filled.mean(axis=1, keepdims=True))
    return mean, max(low - 2 * max(filled.mean() - mean, 0), 0), high


def joint_score(scores, rule):
    """Joint score of images from the scores of each member."""
    total = rule["intercept"]
    for x, weight, at_zero in zip(scores, rule["weights"], rule["at_zero"], strict=True):
        total = total + np.where(x == 0, at_zero, weight * logit(np.clip(x, 1e-4, 1 - 1e-4)))
    return expit(total)
