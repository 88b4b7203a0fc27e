"""Reader studies with a known truth: equal modalities, readers drawn at random."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import logit, ndtr

from cxr_compare.evaluation.studies.reader_analysis import analyse_readers
from cxr_compare.evaluation.studies.reader_study import ReaderStudy
from tools.simulation.makers import Floats, draw, skill_of

_BETWEEN_READERS = 0.25
_READER_BY_MODALITY = 0.15
"""Standard deviations of the shift of positive cases."""
LEVELS = np.array([-0.5, 0.4, 1.1, 2.0])
"""Where a rating of 1 to 5 changes; 3 and more calls a case positive."""
_CASES = 100
_TRUTH_READERS = 1500


def study_skills(rng: np.random.Generator, n_readers: int, *, nested: bool) -> Floats:
    """The shift of every reader with both modalities, shape ``(readers, 2)``."""
    mean = skill_of(0.85)
    if nested:
        spread = np.hypot(_BETWEEN_READERS, _READER_BY_MODALITY)
        return mean + spread * rng.standard_normal((n_readers, 2))
    reader = _BETWEEN_READERS * rng.standard_normal((n_readers, 1))
    return mean + reader + _READER_BY_MODALITY * rng.standard_normal((n_readers, 2))


def simulated_study(rng: np.random.Generator, n_readers: int, *, nested: bool) -> ReaderStudy:
    """Ratings from 1 to 5 of two equal modalities; nested: each reader reads with one."""
    skills = study_skills(rng, n_readers, nested=nested)
    # Nested: all readings are of different people, so no two share more than the case.
    groups = [[each] for each in skills.ravel()] if nested else skills.tolist()
    sample = draw(rng, _CASES, groups, prevalence=0.45)
    ratings = 1 + (logit(sample.scores)[:, None, :] > LEVELS[None, :, None]).sum(axis=1)
    cases = [f"c{place:03d}" for place in range(_CASES)]
    truth = pd.DataFrame({"label": sample.y_true, "patient": cases}, index=pd.Index(cases))
    tables = []
    for row, given in enumerate(ratings):
        reader, modality = divmod(row, 2)
        name = f"r{reader}{'ab'[modality] if nested else ''}"
        table = pd.DataFrame({"reader": name, "modality": "AB"[modality], "case": cases})
        tables.append(table.assign(rating=given.astype(float), decision=(given >= 3) * 1.0))
    readings = pd.concat(tables, ignore_index=True)
    return ReaderStudy(truth, readings, readings.iloc[:0])


def rated_auroc(shifts: Floats) -> Floats:
    """The AUROC of ratings from 1 to 5 for each shift of positive cases, shape ``(readers,)``."""
    ends = np.array([-np.inf, *LEVELS, np.inf])
    of_negative = np.diff(ndtr(ends))
    of_positive = np.diff(ndtr(ends - shifts[:, None]), axis=1)  # (readers, 5)
    below = np.cumsum(of_negative) - of_negative / 2
    return np.asarray((of_positive * below).sum(axis=1))


def true_auroc(rng: np.random.Generator) -> float:
    """The mean AUROC of readers like these."""
    return float(rated_auroc(study_skills(rng, _TRUTH_READERS, nested=False)[:, 0]).mean())


def reader_measure(
    rng: np.random.Generator, n_readers: int, nested: bool, truth: float
) -> dict[str, float]:
    """Claims and coverage of one study."""
    study = simulated_study(rng, n_readers, nested=nested)
    analysis = analyse_readers(study)
    found = {}
    for metric in ("auroc", "recall", "specificity"):
        gap = analysis.rows_of("difference", metric)[0]
        found[metric] = float(gap.decided)
    mean = analysis.rows_of("mean", "auroc")[0]
    if mean.ci_low is not None and mean.ci_high is not None:
        found["covers"] = float(mean.ci_low <= truth <= mean.ci_high)
    return found
