"""Thresholds of guarantees, by the definitions of their tests and a loop over all thresholds.

Thresholds are tried from the safe end until one fails (learn then test). A share of images is
tested exactly if each patient has one image; else with as many independent images as the variance
by patient implies (Korn and Graubard 1998), with one further patient of mean size and no hit, and
at most with those of one intraclass correlation (Ridout, Demetrio and Firth 1999).
"""

from itertools import pairwise

import numpy as np
from scipy.stats import beta, t


def effective(sizes):
    """Number of patients of one image each that say as much."""
    return sizes.sum() ** 2 / (sizes**2).sum()


def independent(hits, sizes, error):
    """Number of independent images with the variance of these images by patient."""
    total = sizes.sum()
    hits, sizes = np.append(hits, 0.0), np.append(sizes, sizes.mean())
    share, n = hits.sum() / sizes.sum(), len(sizes)
    variance = 0.0
    for hit, size in zip(hits, sizes, strict=True):
        weight = size / sizes.sum()
        variance += ((hit - share * size) / sizes.sum() / (1 - weight)) ** 2 * (n - 1) / n
    students = t.ppf(1 - error, total - 1) / t.ppf(1 - error, effective(sizes) - 1)
    return min(total, share * (1 - share) * students**2 / max(variance, 1e-300))


def alike(hits, sizes):
    """Intraclass correlation of the images of a patient, by analysis of variance, in [0, 1]."""
    total, n = sizes.sum(), len(sizes)
    share = hits.sum() / total
    between = sum(m * (h / m - share) ** 2 for h, m in zip(hits, sizes, strict=True)) / (n - 1)
    within = sum(h * (1 - h / m) for h, m in zip(hits, sizes, strict=True)) / (total - n)
    typical = (total - (sizes**2).sum() / total) / (n - 1)
    both = between + (typical - 1) * within
    return min(max((between - within) / both, 0.0), 1.0) if both > 0 else 0.0


def p_value(hits, sizes, floor, error):
    """Chance of at least so many hits if the share were the floor."""
    total = sizes.sum()
    share, trials = hits.sum() / total, total
    if total > len(sizes):
        effect = 1 + ((sizes**2).sum() / total - 1) * alike(hits, sizes)
        trials = min(independent(hits, sizes, error), total / effect)
    counted = share * trials
    return beta.cdf(floor, counted, trials - counted + 1) if counted > 0 else 1.0


def threshold(labels, scores, patients, figure, floor, confidence):
    """Furthest threshold that passes with all before it; None without, and below 100 patients."""
    counted = labels if figure == "sensitivity" else ~labels
    owners = sorted(set(patients[counted]))
    if len(owners) < 100:
        return None
    owner = np.searchsorted(owners, patients[counted])
    sizes = np.bincount(owner).astype(float)
    used = effective(sizes) / len(sizes)
    error = used * (1 - confidence)
    tried = [low + (high - low) / 2 for low, high in pairwise(sorted(set(scores)))]
    chosen = None
    for cut in tried if figure == "sensitivity" else reversed(tried):
        right = (scores >= cut) == (figure == "sensitivity")
        hits = np.bincount(owner, right[counted])
        if p_value(hits, sizes, floor, error) > error:
            break
        chosen = cut
    return chosen
