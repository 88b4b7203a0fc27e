"""Simulations of the annex: reader studies, verdicts by reader, wrong labels, plans and curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri

import cxr_compare
from cxr_compare.evaluation.boxes.lesion_hits import LesionHits
from cxr_compare.evaluation.statistics.clustered_auroc import (
    AurocParts,
    auroc_over_seeds,
    auroc_parts,
)
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    FREEDOM_OF_THE_OVERALL_TEST,
    Components,
    analyse_crossed,
    analyse_nested,
)
from cxr_compare.evaluation.statistics.patient_images import IMAGES_PER_PATIENT
from cxr_compare.studies.curve.learning_curve import fit_learning_curves
from cxr_compare.studies.plan.plan_basis import plans_assumed
from cxr_compare.studies.plan.sample_size import Plan, PlannedStudy, fewest_patients
from cxr_compare.studies.readers.reader_analysis import analyse_readers
from cxr_compare.studies.readers.reader_study import MarkedStudy, ReaderStudy
from cxr_compare.studies.wrong_labels.reference_error import (
    ReferenceAccuracy,
    corrected_auroc,
    corrected_auroc_difference,
    corrected_rates,
)
from tools.simulation.claims import Found, Question, sample_auroc
from tools.simulation.draw import Floats, Sample, draw, skill_of

Measure = Callable[[np.random.Generator], Found]

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


def _rated_measure(n_readers: int, *, nested: bool) -> Measure:
    """Return a simulation of a study of two equal modalities with ratings from 1 to 5."""
    shifts = study_skills(np.random.default_rng(n_readers), 1500, nested=False)[:, 0]
    truth = float(rated_auroc(shifts).mean())

    def measure(rng: np.random.Generator) -> Found:
        analysis = analyse_readers(simulated_study(rng, n_readers, nested=nested))
        found = {
            f"readers @ {metric}": float(analysis.rows_of("difference", metric)[0].decided)
            for metric in ("auroc", "recall", "specificity")
        }
        mean = analysis.rows_of("mean", "auroc")[0]
        if mean.ci_low is not None and mean.ci_high is not None:
            found["misses readers"] = float(not mean.ci_low <= truth <= mean.ci_high)
        return found

    return measure


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


def model_measure(design: ModelDesign) -> Measure:
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

    def measure(rng: np.random.Generator) -> Found:
        by_case = rng.standard_normal((design.cases, len(covariance))) @ of_cases.T
        estimated = np.cov(by_case.T) / design.cases
        figures = 0.75 + by_case.mean(axis=0).reshape(shape)
        figures += np.sqrt(_MODEL.reader) * rng.standard_normal(design.readers)
        figures += np.sqrt(design.interaction) * rng.standard_normal(shape)
        found = _claims(figures, estimated)
        apart = _claims(figures + gaps, estimated)
        return found | {"power readers": apart["readers, model"]}

    return measure


NESTED_SIZES = ((2, 2), (2, 4), (2, 10), (3, 3), (3, 10), (4, 4), (5, 5))
"""Numbers of readers of two modalities that have different readers."""


def nested_measure(sizes: tuple[int, int], cases: int = 200) -> Measure:
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

    def measure(rng: np.random.Generator) -> Found:
        by_case = rng.standard_normal((cases, len(covariance))) @ of_cases.T
        figures = by_case.mean(axis=0)
        figures += np.sqrt(_MODEL.reader) * rng.standard_normal(len(figures))
        groups = [figures[: sizes[0]], figures[sizes[0] :]]
        gap = analyse_nested(groups, np.cov(by_case.T) / cases).differences[0, 1]
        published = _any_excludes_zero([(gap.ci_low, gap.ci_high)])
        cautious = _any_excludes_zero([gap.cautious_interval_at(0.95)])
        claimed = cautious if gap.freedom_between < FREEDOM_OF_A_CLAIM else published
        return {
            "readers, published @ pair": float(published),
            "readers, model": float(claimed),
        }

    return measure


def _claims(figures: Floats, covariance: Floats) -> Found:
    """Return which claims a study makes: by the published tests, and by `cxr readers`."""
    study = analyse_crossed(figures, covariance)
    gaps = list(study.differences.values())
    freedom = gaps[0].freedom_between
    level = 1 - 0.05 / len(gaps)
    published = _any_excludes_zero([gap.interval_at(level) for gap in gaps])
    cautious = _any_excludes_zero([gap.cautious_interval_at(level) for gap in gaps])
    pair = cautious if freedom < FREEDOM_OF_A_CLAIM else published
    found = {"readers, published @ pair": published, "readers, model": pair}
    if len(figures) > 2:
        overall = study.overall is not None and (study.overall.p_value or 0.0) < 0.05
        told = overall and (freedom >= FREEDOM_OF_THE_OVERALL_TEST or pair)
        found |= {"readers, published @ overall": overall, "readers, model": pair or told}
    return {name: float(claimed) for name, claimed in found.items()}


def _any_excludes_zero(intervals: Iterable[tuple[float, float] | None]) -> bool:
    return any(ends is not None and (ends[0] > 0 or ends[1] < 0) for ends in intervals)


_BETWEEN = 0.29
"""Standard deviation between readers of the shift of positive cases."""


def few_readers_measure(readers: int, cases: int) -> Measure:
    """Return a simulation of a few readers of one modality and an equally good system."""
    rng = np.random.default_rng([readers, cases])
    skill = np.sqrt(2) * ndtri(0.85)
    shifts = skill + _BETWEEN * rng.standard_normal(4000)
    truth = float(rated_auroc(shifts).mean())
    of_system = float(brentq(lambda shift: rated_auroc(np.array([shift]))[0] - truth, 0.5, 3.0))

    def measure(rng: np.random.Generator) -> Found:
        own = [[skill + _BETWEEN * rng.standard_normal()] for _ in range(readers)]
        sample = draw(rng, cases, [*own, [of_system]], prevalence=0.45)
        ratings = (logit(sample.scores)[:, None, :] > LEVELS[None, :, None]).sum(axis=1)
        parts = [auroc_parts(sample.y_true, each, sample.patients, cases) for each in ratings]
        added = np.column_stack([each.contributions for each in parts])
        figures = np.array([each.value for each in parts])
        found = analyse_nested(
            [figures[:-1], figures[-1:]], added.T @ added, readers=["random", "fixed"]
        )
        mean = found.systems[0]
        gap = found.differences[0, 1]
        (low, high), (from_, to) = (mean.ci_low, mean.ci_high), (gap.ci_low, gap.ci_high)
        if readers - 1 < FREEDOM_OF_A_CLAIM:
            low, high = mean.cautious_interval_at(0.95)
            from_, to = gap.cautious_interval_at(0.95)
        return {
            "readers, few": float(from_ > 0 or to < 0),
            "misses readers": float(not low <= truth <= high),
        }

    return measure


_SHARES = (0.10, 0.35, 0.15, 0.20, 0.20)
"""Shares of the variance of the evidence of a site of an image that readers may mark.

They belong to the patient, the site, the site with one modality, the site with one reader, and the
single reading.
"""
_LEVELS = np.array([0.4, 0.9, 1.4, 1.9, 2.4])
"""Levels of evidence. A site is marked from the first one on; the rating is the number reached."""
_OFFSET = -0.25  # of the shift of lesions from that of positive cases without marks
_SYSTEM = "system"


def simulated_marks(
    rng: np.random.Generator,
    readings: list[tuple[str, str]],
    shifts: Floats,
    *,
    patients: int = 100,
    clusters: str = "one",
) -> MarkedStudy:
    """Simulate a study in which readers mark sites of the same images.

    Args:
        rng: Random generator.
        readings: Reader and modality of each reading; a system has no modality.
        shifts: Shift of lesions of each reading, shape ``(readings,)``.
        patients: Number of patients.
        clusters: Number of images of a patient, see `cluster_sizes`.
    """
    sample = draw(rng, patients, [[0.0]], clusters=clusters, prevalence=0.45)
    owner, positive = sample.patients, sample.y_true
    cases = np.array([f"c{number:05d}" for number in range(len(owner))])
    image, is_lesion = _sites(rng, positive)
    evidence = _evidence(rng, owner[image], readings) + is_lesion * shifts[:, None]
    ratings = np.searchsorted(_LEVELS, evidence.ravel(), side="left").reshape(evidence.shape)
    of_lesion = image[is_lesion]
    weight = 1 / np.bincount(of_lesion)[of_lesion]
    highest = np.zeros((len(readings), len(cases)))
    found = {}
    for name, row, rated in zip(readings, highest, ratings.astype(float), strict=True):
        np.maximum.at(row, image, rated)
        best = np.where(rated[is_lesion] > 0, rated[is_lesion], -np.inf)
        marked = rated > 0
        hits = is_lesion[marked]
        finds = LesionHits(of_lesion, best, image[marked], rated[marked], ~hits, len(cases))
        found[(*name, False)] = finds, weight
    readers, modalities = (np.repeat(each, len(cases)) for each in zip(*readings, strict=True))
    table = pd.DataFrame({"reader": readers, "modality": modalities})
    table = table.assign(case=np.tile(cases, len(readings)), rating=highest.ravel())
    of_system = table["modality"] == ""
    truth = pd.DataFrame(
        {"label": positive, "patient": [f"p{number}" for number in owner]},
        index=pd.Index(cases, name="case"),
    )
    nothing = pd.DataFrame({"reader": "", "modality": "", "counted": [True]})
    return MarkedStudy(
        truth, table[~of_system], table[of_system], marks=nothing, lesions=nothing, _found=found
    )


def _sites(rng: np.random.Generator, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image of each site, lesions first, and True for lesions."""
    images = np.arange(len(positive))
    lesions = np.repeat(
        images, positive * rng.choice([1, 2, 3], len(positive), p=(0.65, 0.25, 0.10))
    )
    others = np.repeat(images, rng.poisson(1.2, len(positive)))
    image = np.concatenate([lesions, others])
    return image, np.arange(len(image)) < len(lesions)


def _evidence(
    rng: np.random.Generator, patients: np.ndarray, names: list[tuple[str, str]]
) -> Floats:
    """Draw noise of variance 1 of every reading on each site, shape ``(readings, sites)``."""
    n_sites = len(patients)

    def of(keys: list[str]) -> Floats:
        place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        noise = rng.standard_normal((len(place), n_sites))
        return noise[[place[key] for key in keys]]

    parts = (
        np.tile(rng.standard_normal(patients.max() + 1)[patients], (len(names), 1)),
        of(["site"] * len(names)),
        of([modality for _, modality in names]),
        of([reader for reader, _ in names]),
        of([str(number) for number in range(len(names))]),
    )
    return sum(np.sqrt(share) * part for share, part in zip(_SHARES, parts, strict=True))


@cache
def _true_marks() -> tuple[float, float]:
    """Return the true mean weighted AFROC of readers, and the shift of an equally good system."""
    skills = study_skills(np.random.default_rng(7), 4000, nested=False)[:, 0] + _OFFSET
    grid = np.linspace(skills.min(), skills.max(), 40)
    areas = []
    for skill in grid:
        rng = np.random.default_rng(7)
        study = simulated_marks(
            rng, [("r", "A"), (_SYSTEM, "")], np.full(2, skill), patients=20_000
        )
        rows = study.systems
        once = np.ones((1, 1), dtype=int)
        figure = study.figure("wafroc", rows, np.zeros(len(rows), dtype=int))
        areas.append(float(figure(once)[0]))
    mean = float(np.interp(skills, grid, areas).mean())
    return mean, float(np.interp(mean, areas, grid))


def _mark_measure(readers: int, clusters: str, kind: str) -> Measure:
    """Return a simulation of readers who mark: crossed, nested, or against an equal system."""
    truth, system = _true_marks()

    def measure(rng: np.random.Generator) -> Found:
        skills = study_skills(rng, readers, nested=kind == "nested") + _OFFSET
        names = [(f"r{number}", modality) for number in range(readers) for modality in "AB"]
        shifts = skills.ravel()
        if kind == "nested":
            names = [(f"{reader}{modality}", modality) for reader, modality in names]
        elif kind == "system":
            names, shifts = [*names[::2], (_SYSTEM, "")], np.append(shifts[::2], system)
        analysis = analyse_readers(simulated_marks(rng, names, shifts, clusters=clusters))
        found: Found = {}
        for metric in ("wafroc", "afroc", "lesion_sensitivity", "false_marks"):
            gap = analysis.rows_of("difference", metric)[0]
            found[f"readers, marks @ {metric}"] = float(gap.decided)
        mean = analysis.rows_of("mean", "wafroc")[0]
        if mean.ci_low is not None and mean.ci_high is not None:
            found["misses marks"] = float(not mean.ci_low <= truth <= mean.ci_high)
        return found

    return measure


_AUROCS = (0.85, 0.80)
_CUT = 0.75
"""Threshold of the first system, as a normal quantile of its scores on negative images."""


@dataclass(frozen=True)
class WrongLabels:
    """A row of the designs of wrong labels.

    Attributes:
        patients: Number of patients.
        clusters: Number of images of a patient.
        prevalence: Share of truly positive images.
        sensitivity: Sensitivity of the labels.
        specificity: Specificity of the labels.
        errors: Which images have wrong labels: ``images`` at random, whole ``patients`` at random,
            or ``hard`` images.
    """

    patients: int
    clusters: str
    prevalence: float
    sensitivity: float
    specificity: float
    errors: str = "images"

    @property
    def name(self) -> str:
        """Name of the design."""
        return (
            f"wrong labels, {self.patients} patients, {self.clusters}, {self.prevalence:g} "
            f"positive, sensitivity {self.sensitivity:g} and specificity {self.specificity:g}, "
            f"{self.errors}"
        )

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw the true labels and the scores of both systems."""
        skills = [[skill_of(auroc)] for auroc in _AUROCS]
        return draw(rng, self.patients, skills, clusters=self.clusters, prevalence=self.prevalence)

    def labels(self, rng: np.random.Generator, sample: Sample) -> np.ndarray:
        """Draw the labels with errors."""
        count = len(sample.y_true)
        share = np.where(sample.y_true, 1 - self.sensitivity, 1 - self.specificity)
        drawn = rng.random(count)
        if self.errors == "patients":
            drawn = rng.random(self.patients)[sample.patients]
        elif self.errors == "hard":  # those whose scores are on the wrong side, more often
            evidence = logit(sample.scores).mean(axis=0) - skill_of(0.825) * sample.y_true
            wrong = np.where(sample.y_true, evidence, -evidence)
            noise = 0.3 * wrong + rng.standard_normal(count)
            drawn = np.empty(count)
            for of_class in (sample.y_true, ~sample.y_true):
                drawn[of_class] = noise[of_class].argsort().argsort() / of_class.sum()
        return np.asarray(sample.y_true ^ (drawn < share))

    def measure(self) -> Measure:
        """Return a simulation of figures that are corrected for the errors."""
        rng = np.random.default_rng(self.patients)
        sets = [self.sample(rng) for _ in range(1500)]
        swapped = [Sample(each.y_true, each.scores[::-1], each.patients) for each in sets]
        first, second = (float(np.mean([*map(sample_auroc, of)])) for of in (sets, swapped))
        accuracy = ReferenceAccuracy(self.sensitivity, self.specificity)
        kind = ", hard" if self.errors == "hard" else ""
        recall, specificity = float(ndtr(skill_of(_AUROCS[0]) - _CUT)), float(ndtr(_CUT))

        def measure(rng: np.random.Generator) -> Found:
            sample = self.sample(rng)
            labels = self.labels(rng, sample)
            one, other = sample.scores
            owner = sample.patients
            rates = corrected_rates(labels, one >= expit(_CUT), accuracy, owner)
            gap = corrected_auroc_difference(labels, one, other, accuracy, owner)
            return {
                f"misses corrected{kind} @ auroc": _misses(
                    corrected_auroc(labels, one, accuracy, owner), first
                ),
                f"misses corrected{kind} @ difference": _misses(gap, first - second),
                f"misses corrected{kind} @ sensitivity": _misses(rates["recall"], recall),
                f"misses corrected{kind} @ specificity": _misses(rates["specificity"], specificity),
            }

        return measure


def _misses(estimate: ClusteredEstimate | None, truth: float) -> float:
    if estimate is None or not estimate.has_interval:
        return np.nan
    return float(not estimate.ci_low <= truth <= estimate.ci_high)


_WRONG_LABELS = (
    WrongLabels(150, "one", 0.3, 0.95, 0.95),
    WrongLabels(150, "rsna", 0.3, 0.95, 0.95),
    WrongLabels(400, "one", 0.3, 0.90, 0.90),
    WrongLabels(400, "rsna", 0.3, 0.90, 0.90),
    WrongLabels(400, "rsna", 0.5, 0.80, 0.90),
    WrongLabels(400, "rsna", 0.1, 0.90, 0.98),
    WrongLabels(400, "nih", 0.3, 0.95, 0.98),
    WrongLabels(1000, "one", 0.05, 0.95, 0.98),
    WrongLabels(250, "1-3", 0.15, 0.85, 0.95, "patients"),
    WrongLabels(250, "1-3", 0.35, 0.85, 0.95, "patients"),
    WrongLabels(250, "1-3", 0.15, 0.85, 0.95, "hard"),
    WrongLabels(250, "1-3", 0.35, 0.85, 0.95, "hard"),
)


def _verdict_measure(n_patients: int, aurocs: tuple[float, float]) -> Measure:
    """Return a simulation of verdicts by three equal readers, and by their majority.

    A reader calls 80 % of the positive and 5 % of the negative images positive, so that Cohen's
    kappa of two readers is 0.6.
    """

    def higher(sample: Sample, labels: np.ndarray) -> str | None:
        truth = pd.DataFrame({"label": labels * 1.0, "patient_id": sample.patients.astype(str)})
        systems = dict(zip("AB", sample.scores, strict=True))
        report = cxr_compare.compare(systems, truth=truth, replicates=100)
        (claim,) = report.answer.claims
        name: str | None = claim["higher"]
        return name

    def measure(rng: np.random.Generator) -> Found:
        sample = draw(rng, n_patients, [[skill_of(auroc)] for auroc in aurocs])
        labels = rng.random((3, n_patients)) < np.where(sample.y_true, 0.80, 0.05)
        reference, *readers = (higher(sample, y) for y in (labels.sum(axis=0) > 1.5, *labels))
        others = [name for name in readers if name != reference]
        return {
            "another verdict @ one reader": len(others) / 3,
            "another verdict @ any of three": float(bool(others)),
            "verdict reversed": float({reference, *readers} >= {"A", "B"}),
        }

    return measure


def _normals(rng: np.random.Generator, owner: np.ndarray, variance: float, within: float) -> Floats:
    """Draw noise of images, of whose variance the share `within` belongs to the patient."""
    of_patient = np.sqrt(within) * rng.standard_normal(owner[-1] + 1)[owner]
    own = np.sqrt(1 - within) * rng.standard_normal(len(owner))
    return np.asarray(np.sqrt(variance) * (of_patient + own))


def plan_measure(
    aurocs: tuple[float, float],
    prevalence: float,
    *,
    images: int | str = 1,
    within: float = 0.4,
    seeds: int = 1,
    deviation: float = 0.0,
    alike: float = 1.0,
) -> Measure:
    """Return a simulation of studies of the size that is planned for a power of 0.80.

    The studies are drawn by other code than that of the plan.

    Args:
        aurocs: True AUROCs of both systems.
        prevalence: Share of positive patients.
        images: Number of images of a patient, or the name of a data set.
        within: Correlation of one system's scores on images of a patient.
        seeds: Number of trainings of each system.
        deviation: Standard deviation of the AUROC between trainings.
        alike: Correlation of two trainings' scores within a class.

    Returns:
        A function of a random generator that returns 1 if the difference is shown, else 0, and the
        planned and found half-width.
    """
    assumed = {
        **({} if images == 1 else {"within": within}),
        **({} if seeds == 1 else {"seed_deviation": deviation, "seed_correlation": alike}),
    }
    gap = aurocs[0] - aurocs[1]
    between = 0.5
    plan = plans_assumed(
        aurocs, prevalence, correlation=between, images=[images], seeds=[seeds], **assumed
    ).first
    study = _of_power(plan, gap)

    def measure(rng: np.random.Generator) -> Found:
        sizes = np.full(study.patients, images)
        if isinstance(images, str):
            table = IMAGES_PER_PATIENT[images]
            shares = np.array(list(table.values())) / sum(table.values())
            sizes = rng.choice(list(table), study.patients, p=shares)
        owner = np.repeat(np.arange(study.patients), sizes)
        truth = owner < study.positives
        common = _normals(rng, owner, between, within)
        systems = []
        for auroc in aurocs:
            of_system = common + _normals(rng, owner, alike - between, within)
            trained = []
            for _ in range(seeds):
                true = auroc + (deviation * rng.standard_normal() if seeds > 1 else 0.0)
                own = of_system + _normals(rng, owner, 1 - alike, within)
                scores = own + np.sqrt(2) * ndtri(true) * truth
                trained.append(auroc_parts(truth, scores, owner, study.patients))
            systems.append(trained)
        return _shown(auroc_over_seeds(*systems), study)

    return measure


def reader_plan_measure(
    aurocs: tuple[float, float], prevalence: float, readers: int, deviation: float
) -> Measure:
    """Return a simulation of reader studies of the size that is planned without a pilot.

    Args:
        aurocs: True AUROCs of both modalities.
        prevalence: Share of positive cases.
        readers: Number of readers.
        deviation: Standard deviation of the AUROC between readers.

    Returns:
        A function of a random generator that returns 1 if the difference is shown, else 0, and the
        planned and found half-width.
    """
    plan = plans_assumed(aurocs, prevalence, readers=[readers], reader_deviation=deviation).first
    study = _of_power(plan, aurocs[0] - aurocs[1])
    # Ratings that correlate so give AUROCs whose errors correlate by 0.30 and 0.47.
    all_alike = 0.32
    same_reader = 0.495

    def measure(rng: np.random.Generator) -> Found:
        cases = np.arange(study.patients)
        truth = cases < study.positives
        common = np.sqrt(all_alike) * rng.standard_normal(study.patients)
        parts = np.empty((2, readers), dtype=object)
        for reader in range(readers):
            shared = np.sqrt(same_reader - all_alike) * rng.standard_normal(study.patients)
            apart = np.sqrt(0.8) * rng.standard_normal()
            for modality, auroc in enumerate(aurocs):
                skill = auroc + deviation * (apart + np.sqrt(0.2) * rng.standard_normal())
                own = np.sqrt(1 - same_reader) * rng.standard_normal(study.patients)
                ratings = common + shared + own + np.sqrt(2) * ndtri(skill) * truth
                parts[modality, reader] = auroc_parts(truth, ratings, cases, study.patients)
        added = np.column_stack([each.contributions for each in parts.ravel()])
        figures = np.array([[each.value for each in row] for row in parts])
        return _shown(analyse_crossed(figures, added.T @ added).differences[0, 1], study)

    return measure


def _of_power(plan: Plan, gap: float) -> PlannedStudy:
    study = fewest_patients(plan, lambda study: study.power(gap) >= 0.8)
    assert study is not None
    return study


def _shown(found: ClusteredEstimate, study: PlannedStudy) -> Found:
    low, high = found.ci_low, found.ci_high
    return {
        "shown": float(found.p_value is not None and found.p_value < 0.05),
        "planned": study.half_width(),
        "found": (high - low) / 2,
    }


def _power_of(make: Callable[[], Measure]) -> Measure:
    """Return a simulation of planned studies that only counts those that show the difference."""
    planned = make()
    return lambda rng: {"power plan": planned(rng)["shown"]}


_SIZES = np.array([100.0, 200.0, 400.0, 800.0])


def trained_arms(
    rng: np.random.Generator, lacks: Floats, patients: int
) -> tuple[Floats, Floats, float]:
    """Simulate the AUROCs of trainings of several models, on patients that all share.

    Scores are binormal. The effect of a patient has parts that are shared by all trainings, by
    those of one model, by those of one size, and a part of each single training.

    Args:
        rng: Random generator.
        lacks: 1 minus the true AUROC of each training, shape ``(models, sizes, seeds)``.
        patients: Number of test patients.

    Returns:
        AUROCs in the same shape, their covariance over patients, and its degrees of freedom.
    """
    truth = np.arange(patients) < 0.3 * patients
    scores = (np.sqrt(2) * ndtri(1 - np.minimum(lacks, 0.6)))[..., None] * truth
    for variance, levels in ((0.5, 0), (0.15, 1), (0.1, 2), (0.25, 3)):
        common = lacks.shape[:levels] + (1,) * (3 - levels)
        scores = scores + np.sqrt(variance) * rng.standard_normal((*common, patients))
    owner = np.arange(patients)
    parts = [auroc_parts(truth, each, owner, patients) for each in scores.reshape(-1, patients)]
    added = np.column_stack([each.contributions for each in parts])
    figures = np.array([each.value for each in parts]).reshape(lacks.shape)
    return figures, added.T @ added, AurocParts.mean(parts).freedom


def curve_measure(patients: int, *, plateau: bool) -> Measure:
    """Return a simulation of two models with the same learning curve, at four sizes.

    Args:
        patients: Number of test patients.
        plateau: True for a curve that ends in a plateau, False for a power law.

    Returns:
        A function of a random generator that counts bands of the first model that miss the truth.
    """
    lacks = 0.12 + 0.18 * (_SIZES / 100) ** -0.9 if plateau else 0.3 * (_SIZES / 100) ** -0.25
    shape = (2, len(_SIZES), 3)

    def measure(rng: np.random.Generator) -> Found:
        apart = np.exp(0.1 * rng.standard_normal(shape) - 0.1**2 / 2)
        figures, covariance, freedom = trained_arms(rng, lacks[:, None] * apart, patients)
        curves = fit_learning_curves([_SIZES] * 2, figures, covariance, freedom)
        band = curves[0].at(_SIZES)
        holds = (band.low <= 1 - lacks) & (1 - lacks <= band.high)
        beyond = curves[0].at([2 * _SIZES[-1]])
        last = 1 - (0.12 + 0.18 * 16**-0.9 if plateau else 0.3 * 16**-0.25)
        return {
            "misses curve": float(not holds[1]),
            "misses curve beyond": float(not beyond.low[0] <= last <= beyond.high[0]),
            "lack of fit": float((curves[0].lack_of_fit or 1.0) < 0.05),
        }

    return measure


_PLANS: dict[str, Callable[[], Measure]] = {
    "0.85 and 0.80, images as in RSNA": partial(plan_measure, (0.85, 0.80), 0.5, images="rsna"),
    "0.85 and 0.80, images as in NIH": partial(plan_measure, (0.85, 0.80), 0.3, images="nih"),
    "0.85 and 0.80, 3 images each": partial(plan_measure, (0.85, 0.80), 0.5, images=3),
    "0.90 and 0.84, 2 seeds": partial(
        plan_measure, (0.90, 0.84), 0.3, seeds=2, deviation=0.005, alike=0.8
    ),
    "0.90 and 0.84, 3 seeds": partial(
        plan_measure, (0.90, 0.84), 0.3, seeds=3, deviation=0.015, alike=0.8
    ),
    "0.85 and 0.80, 2 seeds without deviation": partial(
        plan_measure, (0.85, 0.80), 0.3, seeds=2, alike=0.6
    ),
    "readers, 0.85 and 0.78, 5 readers": partial(reader_plan_measure, (0.85, 0.78), 0.5, 5, 0.03),
    "readers, 0.80 and 0.75, 10 readers": partial(reader_plan_measure, (0.80, 0.75), 0.3, 10, 0.05),
}
_MODALITIES = [(t, r) for t in (2, 3, 4, 5) for r in (2, 3, 4, 5, 6, 8) if t == 2 or r < 5]
DESIGNS: dict[str, Callable[[], Measure]] = {
    **{
        f"readers, {n} with {'own cases' if nested else 'both modalities'}": partial(
            _rated_measure, n, nested=nested
        )
        for n, nested in ((3, False), (5, False), (5, True))
    },
    **{
        f"readers by the model, {t} modalities, {r} readers, Var(TR) {interaction:g}": partial(
            model_measure, ModelDesign(t, r, interaction)
        )
        for t, r in _MODALITIES
        for interaction in (0.0, 0.0003)
    },
    **{
        f"readers by the model, {a} and {b} readers": partial(nested_measure, (a, b))
        for a, b in ((2, 2), (2, 4), (2, 10), (3, 3), (3, 10), (4, 4), (5, 5))
    },
    **{
        f"few readers, {readers} and a system, {cases} cases": partial(
            few_readers_measure, readers, cases
        )
        for readers, cases in ((2, 100), (3, 100), (3, 300), (4, 100), (5, 100))
    },
    **{
        f"marks, {readers} readers, {kind}, {clusters}": partial(
            _mark_measure, readers, clusters, kind
        )
        for readers, kind in (
            (3, "crossed"),
            (5, "crossed"),
            (10, "crossed"),
            (5, "nested"),
            (3, "system"),
            (5, "system"),
        )
        for clusters in ("one", "rsna")
    },
    **{each.name: each.measure for each in _WRONG_LABELS},
    **{
        f"reader verdicts, AUROC {a:.2f} and {b:.2f}, {n} patients": partial(
            _verdict_measure, n, (a, b)
        )
        for a, b in ((0.85, 0.85), (0.90, 0.85), (0.90, 0.80))
        for n in (60, 200, 1000)
    },
    **{f"plan, {name}": partial(_power_of, make) for name, make in _PLANS.items()},
    **{
        f"curve, {'level at 0.88' if plateau else 'power law'}, {patients} patients": partial(
            curve_measure, patients, plateau=plateau
        )
        for plateau in (False, True)
        for patients in (150, 700)
    },
}
QUESTIONS = {
    "readers": Question("two equal modalities are said to differ: ratings", "at most 5"),
    "readers, model": Question("equal modalities are said to differ: Obuchowski-Rockette", "5"),
    "readers, published": Question("the same, by the published tests alone"),
    "readers, few": Question("few readers are said to differ from an equal system", "at most 5"),
    "readers, marks": Question("equal modalities or systems are said to differ: marks", "5"),
    "power readers": Question("modalities that lie over 0.055 are said to differ"),
    "misses readers": Question("interval of the readers' mean AUROC misses", "5"),
    "misses marks": Question("interval of the readers' mean weighted AFROC misses", "5"),
    "misses corrected": Question("interval of a figure corrected for wrong labels misses", "5"),
    "misses corrected, hard": Question("the same, where hard images have the wrong labels"),
    "another verdict": Question("another of three equal readers gives another verdict"),
    "verdict reversed": Question("readers' verdicts contradict each other"),
    "power plan": Question("a study of the planned size shows the difference", "80"),
    "misses curve": Question("band of a learning curve at 200 images misses", "5"),
    "misses curve beyond": Question("band at 1,600 images, which no page draws, misses"),
    "lack of fit": Question("the test of fit rejects a power law"),
}
