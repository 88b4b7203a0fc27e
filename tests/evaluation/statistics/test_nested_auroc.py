"""The AUROC on part of the images minus that on all: coverage of its interval in simulated sets.

``pytest -m long tests/evaluation/statistics/test_nested_auroc.py -s`` prints the figures of
docs/splits.md.
"""

import numpy as np
import pytest
from scipy.special import expit, logit

from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.statistics.nested_auroc import part_minus_whole
from tools.simulation.draw import Sample, draw, skill_of

SEED = 16
MEMORY = 0.8
"""Added to the scores of seen images that are ill, on the scale of the noise."""


def sample_with_seen(rng, n_patients, clusters, share, memory) -> tuple[Sample, np.ndarray]:
    """A set of which a share of the patients was seen, and better scores on these images."""
    sample = draw(rng, n_patients, [[skill_of(0.85)]], clusters=clusters)
    seen = (rng.random(sample.n_patients) < share)[sample.patients]
    scores = logit(sample.scores) + memory * (seen & sample.y_true)
    return Sample(sample.y_true, expit(scores), sample.patients), seen


def gap_of(sample: Sample, seen: np.ndarray):
    whole = auroc_parts(sample.y_true, sample.scores[0], sample.patients, sample.n_patients)
    rest = ~seen
    part = auroc_parts(
        sample.y_true[rest], sample.scores[0][rest], sample.patients[rest], sample.n_patients
    )
    return None if part is None or whole is None else part_minus_whole([part], [whole])


def coverage(n_patients, clusters, share, memory, n_sets):
    """Share of the sets whose 95 % interval holds the true difference, and that difference."""
    rng = np.random.default_rng(SEED)
    truth = 0.0
    if memory:
        sets = (sample_with_seen(rng, n_patients, clusters, share, memory) for _ in range(2_000))
        gaps = [gap_of(*each) for each in sets]
        truth = float(np.mean([gap.estimate for gap in gaps if gap is not None]))
    held = []
    for _ in range(n_sets):
        gap = gap_of(*sample_with_seen(rng, n_patients, clusters, share, memory))
        ends = None if gap is None else gap.interval_at(0.95)
        if ends is not None:
            held.append(ends[0] <= truth <= ends[1])
    return float(np.mean(held)), truth, len(held)


def test_the_interval_holds_the_true_difference_in_95_of_100_small_sets():
    share, _, n_sets = coverage(100, "rsna", 0.5, 0.0, 300)
    assert n_sets == 300
    assert 0.91 <= share <= 0.985


@pytest.mark.long
@pytest.mark.parametrize("memory", [0.0, MEMORY])
@pytest.mark.parametrize("seen", [0.3, 0.7])
@pytest.mark.parametrize(
    ("n_patients", "clusters"), [(60, "one"), (60, "rsna"), (200, "one"), (200, "rsna")]
)
def test_the_interval_holds_the_true_difference(n_patients, clusters, seen, memory):
    """Of 60 patients, of whom 30 % are unseen, about 5 are ill: too few for the interval."""
    share, truth, n_sets = coverage(n_patients, clusters, seen, memory, 1_000)
    case = f"{n_patients} patients, {clusters}, seen {seen}, memory {memory}"
    print(f"{case}: {share:.3f} of {n_sets} sets; true difference {truth:.4f}")
    assert (0.93 if n_patients >= 200 else 0.88) <= share
