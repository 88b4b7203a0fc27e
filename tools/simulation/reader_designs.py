"""Reader studies with a known truth: equal modalities, and readers drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logit, ndtr

from cxr_compare.evaluation.statistics.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    FREEDOM_OF_THE_OVERALL_TEST,
    Components,
    analyse_crossed,
    analyse_nested,
)
from cxr_compare.studies.readers.reader_analysis import analyse_readers
from cxr_compare.studies.readers.reader_study import ReaderStudy
from tools.simulation.makers import Floats, draw, skill_of

_BETWEEN_READERS = 0.25
_READER_BY_MODALITY = 0.15
"""Standard deviations of the shift of positive cases between readers, and of a reader's effect."""
LEVELS = np.array([-0.5, 0.4, 1.1, 2.0])
"""Levels of evidence between ratings 1 to 5; a rating of 3 or more calls a case positive."""
_CASES = 100
_TRUTH_READERS = 1500


def study_skills(rng: np.random.Generator, n_readers: int, *, nested: bool) -> Floats:
    """Draw the shift of positive cases of every reader with both modalities.

    Args:
        rng: Random generator.
        n_readers: Number of readers.
        nested: True if the two modalities have different readers.

    Returns:
        Shifts, shape ``(readers, 2)``.
    """
    mean = skill_of(0.85)
    if nested:
        spread = np.hypot(_BETWEEN_READERS, _READER_BY_MODALITY)
        return mean + spread * rng.standard_normal((n_readers, 2))
    reader = _BETWEEN_READERS * rng.standard_normal((n_readers, 1))
    return mean + reader + _READER_BY_MODALITY * rng.standard_normal((n_readers, 2))


def simulated_study(rng: np.random.Generator, n_readers: int, *, nested: bool) -> ReaderStudy:
    """Simulate ratings from 1 to 5 of two equal modalities.

    Args:
        rng: Random generator.
        n_readers: Number of readers of each modality.
        nested: True if each reader reads with one modality only.

    Returns:
        The study, with ratings and decisions.
    """
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
    """Compute the true AUROC of ratings from 1 to 5.

    Args:
        shifts: Shift of positive cases of each reader, shape ``(readers,)``.

    Returns:
        AUROC of each reader, shape ``(readers,)``.
    """
    ends = np.array([-np.inf, *LEVELS, np.inf])
    of_negative = np.diff(ndtr(ends))
    of_positive = np.diff(ndtr(ends - shifts[:, None]), axis=1)  # (readers, 5)
    below = np.cumsum(of_negative) - of_negative / 2
    return np.asarray((of_positive * below).sum(axis=1))


def true_auroc(rng: np.random.Generator) -> float:
    """Compute the true mean AUROC of readers."""
    return float(rated_auroc(study_skills(rng, _TRUTH_READERS, nested=False)[:, 0]).mean())


def reader_measure(
    rng: np.random.Generator, n_readers: int, nested: bool, truth: float
) -> dict[str, float]:
    """Simulate one reader study of two equal modalities.

    Args:
        rng: Random generator.
        n_readers: Number of readers of each modality.
        nested: True if each reader reads with one modality only.
        truth: True mean AUROC.

    Returns:
        By metric, 1 if a difference is claimed (which is wrong), else 0; and 1 if the interval of
        the mean contains the truth.
    """
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


@dataclass(frozen=True)
class ModelDesign:
    """A crossed study that is drawn from the model of Obuchowski and Rockette, without readings.

    Variances and covariances are those of the weighted AFROC in RJafroc's dataset04 (version 3.6.1;
    5 modalities, 4 readers, 200 cases), where ``Var(TR)`` was estimated as -0.0003.

    Attributes:
        modalities: Number of modalities.
        readers: Number of readers.
        interaction: ``Var(TR)``, variance between readers in the effect of a modality.
        cases: Number of cases.
    """

    modalities: int
    readers: int
    interaction: float
    cases: int = 200

    @property
    def name(self) -> str:
        """Name of the row on the page."""
        return f"{self.modalities} modalities, {self.readers} readers, Var(TR) {self.interaction:g}"


_MODEL = Components(
    reader=0.002209, interaction=0.0, cov1=0.000422, cov2=0.000336, cov3=0.000304, error=0.000928
)
_APART = 0.055
"""True difference of the first and the last modality where power is counted.

The other modalities lie at equal distances between them.
"""


def model_designs() -> list[ModelDesign]:
    """Return every size with both values of ``Var(TR)``, by degrees of freedom between readers."""
    sizes = [(t, r) for t in (2, 3, 4, 5) for r in (2, 3, 4, 5, 6, 8) if t == 2 or r < 5]
    sizes.sort(key=lambda size: ((size[0] - 1) * (size[1] - 1), size))
    return [ModelDesign(*size, interaction) for size in sizes for interaction in (0.0, 0.0003)]


def model_measure(design: ModelDesign) -> Callable[[np.random.Generator], dict[str, float]]:
    """Return a simulation of a crossed study, with equal modalities and with unequal ones.

    The covariance over cases is estimated in each study, from as many cases as RJafroc's data has.

    Args:
        design: Size and variance of the study.

    Returns:
        A function of a random generator that returns which claims one study makes.
    """
    shape = (design.modalities, design.readers)
    modality, reader = (index.ravel() for index in np.indices(shape))
    same_reader = reader[:, None] == reader
    covariance = np.where(
        modality[:, None] == modality,
        np.where(same_reader, _MODEL.error, _MODEL.cov2),
        np.where(same_reader, _MODEL.cov1, _MODEL.cov3),
    )
    of_cases = np.linalg.cholesky(design.cases * covariance)
    gaps = _APART * np.linspace(0, 1, design.modalities)[:, None]

    def measure(rng: np.random.Generator) -> dict[str, float]:
        by_case = rng.standard_normal((design.cases, len(covariance))) @ of_cases.T
        estimated = np.cov(by_case.T) / design.cases
        figures = 0.75 + by_case.mean(axis=0).reshape(shape)
        figures += np.sqrt(_MODEL.reader) * rng.standard_normal(design.readers)
        figures += np.sqrt(design.interaction) * rng.standard_normal(shape)
        found = _claims(figures, estimated)
        apart = _claims(figures + gaps, estimated)
        return found | {f"power, {name}": claimed for name, claimed in apart.items()}

    return measure


NESTED_SIZES = ((2, 2), (2, 4), (2, 10), (3, 3), (3, 10), (4, 4), (5, 5))
"""Numbers of readers of two modalities that have different readers."""


def nested_measure(
    sizes: tuple[int, int], cases: int = 200
) -> Callable[[np.random.Generator], dict[str, float]]:
    """Return a simulation of two equal modalities that different readers read with.

    Args:
        sizes: Number of readers of each modality.
        cases: Number of cases.

    Returns:
        A function of a random generator that returns which claims one study makes.
    """
    modality = np.repeat([0, 1], sizes)
    covariance = np.where(modality[:, None] == modality, _MODEL.cov2, _MODEL.cov3)
    np.fill_diagonal(covariance, _MODEL.error)
    of_cases = np.linalg.cholesky(cases * covariance)

    def measure(rng: np.random.Generator) -> dict[str, float]:
        by_case = rng.standard_normal((cases, len(covariance))) @ of_cases.T
        figures = by_case.mean(axis=0)
        figures += np.sqrt(_MODEL.reader) * rng.standard_normal(len(figures))
        groups = [figures[: sizes[0]], figures[sizes[0] :]]
        gap = analyse_nested(groups, np.cov(by_case.T) / cases).differences[0, 1]
        published = _any_excludes_zero([(gap.ci_low, gap.ci_high)])
        cautious = _any_excludes_zero([gap.cautious_interval_at(0.95)])
        claimed = cautious if gap.freedom_between < FREEDOM_OF_A_CLAIM else published
        return {
            "pair, published": float(published),
            "pair, cautious": float(cautious),
            "any claim": float(claimed),
        }

    return measure


def _claims(figures: Floats, covariance: Floats) -> dict[str, float]:
    """Return which claims a study makes: as published, cautiously, and by `cxr readers`."""
    study = analyse_crossed(figures, covariance)
    gaps = list(study.differences.values())
    freedom = gaps[0].freedom_between
    level = 1 - 0.05 / len(gaps)
    shown = {
        "pair, published": _any_excludes_zero([gap.interval_at(level) for gap in gaps]),
        "pair, cautious": _any_excludes_zero([gap.cautious_interval_at(level) for gap in gaps]),
    }
    pair = shown["pair, cautious" if freedom < FREEDOM_OF_A_CLAIM else "pair, published"]
    claims = {**shown, "pair": pair, "any claim": pair}
    if len(figures) > 2:
        overall = study.overall is not None and (study.overall.p_value or 0.0) < 0.05
        claims["overall, published"] = overall
        claims["overall"] = overall and (freedom >= FREEDOM_OF_THE_OVERALL_TEST or pair)
        claims["any claim"] = pair or claims["overall"]
    return {name: float(claimed) for name, claimed in claims.items()}


def _any_excludes_zero(intervals: Iterable[tuple[float, float] | None]) -> bool:
    return any(ends is not None and (ends[0] > 0 or ends[1] < 0) for ends in intervals)
