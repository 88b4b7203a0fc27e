"""Scores of images that come in patients, for the tests of statistics."""

import numpy as np
import pytest

from cxr_compare.evaluation.statistics.bootstrap import cluster_index


@pytest.fixture(scope="module")
def clustered_scores():
    """Labels and tied scores of 90 images, and the index of their 30 patients."""
    rng = np.random.default_rng(7)
    patients = rng.integers(0, 30, 90)
    y_true = (rng.random(90) < 0.3).astype(int)
    y_score = np.round(np.clip(rng.normal(0.4 + 0.2 * y_true, 0.2), 0, 1), 2)
    return y_true, y_score, cluster_index([f"p{p:02d}" for p in patients])
