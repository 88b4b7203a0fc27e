"""Readers who mark: equal modalities, and sites of an image that all readers may mark.

Evidence of a site is partly shared between readers and between modalities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import ndtri

from cxr_compare.evaluation.boxes.lesion_hits import LesionHits
from cxr_compare.studies.readers.reader_analysis import analyse_readers
from cxr_compare.studies.readers.reader_study import MarkedStudy
from tools.simulation.makers import LABELS_ALIKE, Floats, cluster_sizes
from tools.simulation.reader_designs import study_skills

_METRICS = ("wafroc", "afroc", "froc", "lesion_sensitivity", "false_marks", "auroc")
_SHARES = (0.10, 0.35, 0.15, 0.20, 0.20)
"""Shares of the variance of a site's evidence.

They belong to the patient, the site, the site with one modality, the site with one reader, and the
single reading.
"""
_LEVELS = np.array([0.4, 0.9, 1.4, 1.9, 2.4])
"""Levels of evidence. A site is marked from the first one on; the rating is the number reached."""
_DISTRACTORS = 1.2
_LESIONS = (0.65, 0.25, 0.10)
"""Mean number of sites without a lesion, and shares of positive images with 1, 2 and 3 lesions."""
_POSITIVE = 0.45
_OFFSET = -0.25  # of the shift of lesions from that of positive cases without marks
_TRUTH_IMAGES = 20_000
_TRUTH_READERS = 40
_SYSTEM = "system"


@dataclass(frozen=True)
class Design:
    """Assignment of readers to modalities and cases.

    Attributes:
        blocks: Number of readers of each block; each block has its own cases.
        patients: Number of patients of each block.
        clusters: Number of images of a patient, see `cluster_sizes`.
        nested: True if each reader reads with one modality only, so that there are twice as many.
        system: True if readers have one modality, and a system that is as good marks, too.
    """

    blocks: tuple[int, ...]
    patients: int = 100
    clusters: str = "one"
    nested: bool = False
    system: bool = False

    @property
    def readers(self) -> int:
        """Number of readers of each modality."""
        return sum(self.blocks)


def simulated_marks(
    rng: np.random.Generator, design: Design, system_skill: float = 0.0
) -> MarkedStudy:
    """Simulate a study of two equal modalities in which readers mark sites.

    Args:
        rng: Random generator.
        design: Assignment of readers to modalities and cases.
        system_skill: Shift of lesions for the system, if the design has one.

    Returns:
        The study.
    """
    skills = study_skills(rng, design.readers, nested=design.nested) + _OFFSET
    truths = []
    readings = []
    found = {}
    first = 0
    for block, readers in enumerate(design.blocks):
        of_block = skills[first : first + readers]
        truth, rated, finds = _block(rng, design, of_block, system_skill, f"{block}", first)
        truths = [*truths, truth]
        readings = [*readings, rated]
        found = found | finds
        first += readers
    rated = pd.concat(readings, ignore_index=True)
    of_system = rated["modality"] == ""
    nothing = pd.DataFrame({"reader": "", "modality": "", "counted": [True]})
    return MarkedStudy(
        pd.concat(truths),
        rated[~of_system],
        rated[of_system],
        marks=nothing,
        lesions=nothing,
        _found=found,
    )


def _block(
    rng: np.random.Generator,
    design: Design,
    skills: Floats,
    system_skill: float,
    block: str,
    first: int,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[tuple[str, str, bool], tuple[LesionHits, Floats]]]:
    """Simulate one block: truth, highest ratings, and the lesions that marks hit."""
    patients, positive = _images(rng, design)
    cases = np.array([f"{block}c{place:05d}" for place in range(len(patients))])
    image, is_lesion = _sites(rng, positive)
    names = [(f"r{first + r}", "AB"[m]) for r in range(len(skills)) for m in (0, 1)]
    if design.nested:
        names = [(f"{reader}{modality}", modality) for reader, modality in names]
    shift = skills.ravel()
    if design.system:  # readers with one modality, against it
        names = [*names[::2], (_SYSTEM, "")]
        shift = np.append(shift[::2], system_skill)
    evidence = _evidence(rng, patients[image], names) + is_lesion * shift[:, None]
    ratings = np.searchsorted(_LEVELS, evidence.ravel(), side="left").reshape(evidence.shape)
    of_lesion = image[is_lesion]
    weight = 1 / np.bincount(of_lesion)[of_lesion]
    highest = np.zeros((len(names), len(cases)))
    found = {}
    for name, row, rated in zip(names, highest, ratings.astype(float), strict=True):
        np.maximum.at(row, image, rated)
        best = np.where(rated[is_lesion] > 0, rated[is_lesion], -np.inf)
        marked = rated > 0
        hits = is_lesion[marked]
        finds = LesionHits(of_lesion, best, image[marked], rated[marked], ~hits, len(cases))
        found[(*name, False)] = finds, weight
    readers, modalities = (np.repeat(each, len(cases)) for each in zip(*names, strict=True))
    table = pd.DataFrame({"reader": readers, "modality": modalities})
    table = table.assign(case=np.tile(cases, len(names)), rating=highest.ravel())
    owner = [f"{block}p{patient}" for patient in patients]
    truth = pd.DataFrame({"label": positive, "patient": owner}, index=pd.Index(cases, name="case"))
    return truth, table, found


def _images(rng: np.random.Generator, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Draw the patient of each image and its label, with at least two patients of each class."""
    while True:
        sizes = cluster_sizes(rng, design.patients, design.clusters)
        patients = np.repeat(np.arange(design.patients), sizes)
        latent = np.sqrt(LABELS_ALIKE) * rng.standard_normal(design.patients)[patients]
        latent += np.sqrt(1 - LABELS_ALIKE) * rng.standard_normal(len(patients))
        positive = latent < ndtri(_POSITIVE)
        if min(len(np.unique(patients[of])) for of in (positive, ~positive)) >= 2:
            return patients, positive


def _sites(rng: np.random.Generator, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image of each site, lesions first, and True for lesions."""
    images = np.arange(len(positive))
    lesions = np.repeat(images, positive * rng.choice([1, 2, 3], len(positive), p=_LESIONS))
    others = np.repeat(images, rng.poisson(_DISTRACTORS, len(positive)))
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


def true_figures(rng: np.random.Generator) -> tuple[float, float]:
    """Compute the true mean weighted AFROC of readers, and the skill of an equally good system.

    Args:
        rng: Random generator.

    Returns:
        The mean figure, and the shift of lesions of a system with this figure.
    """
    skills = study_skills(rng, 4000, nested=False)[:, 0] + _OFFSET
    grid = np.linspace(skills.min(), skills.max(), _TRUTH_READERS)
    design = Design((1,), patients=_TRUTH_IMAGES, system=True)
    areas = [_area(np.random.default_rng(7), design, skill) for skill in grid]
    mean = float(np.interp(skills, grid, areas).mean())
    return mean, float(np.interp(mean, areas, grid))


def _area(rng: np.random.Generator, design: Design, skill: float) -> float:
    study = simulated_marks(rng, design, skill)
    rows = study.systems
    once = np.ones((1, 1), dtype=int)
    return float(study.figure("wafroc", rows, np.zeros(len(rows), dtype=int))(once)[0])


def mark_measure(design: Design, truth: float, skill: float) -> Callable[..., dict[str, float]]:
    """Return a simulation of one study of a design.

    Args:
        design: Assignment of readers to modalities and cases.
        truth: True mean weighted AFROC.
        skill: Shift of lesions of a system with this figure.

    Returns:
        A function of a random generator that returns wrong claims and coverage of one study.
    """

    def measure(rng: np.random.Generator) -> dict[str, float]:
        study = simulated_marks(rng, design, skill)
        found = {}
        analysis = analyse_readers(study)
        for metric in _METRICS:
            gaps = analysis.rows_of("difference", metric)
            for gap in gaps:
                name = f"{metric} system" if gap.second == _SYSTEM else metric
                found[name] = float(gap.decided)
        mean = analysis.rows_of("mean", "wafroc")[0]
        for kind, low, high in (
            ("covers", mean.ci_low, mean.ci_high),
            ("covers, cautious", mean.ci_low_all, mean.ci_high_all),
        ):
            if low is not None and high is not None:
                found[kind] = float(low <= truth <= high)
        return found

    return measure


def mark_designs() -> dict[str, Design]:
    """Return every design by its name on the page."""
    crossed = {f"{n} readers, crossed": Design((n,)) for n in (3, 5, 10)}
    split = {
        f"{sum(blocks)} readers in {len(blocks)} blocks": Design(blocks)
        for blocks in ((1, 1, 1), (3, 2), (5, 5))
    }
    nested = {"5 readers with each modality": Design((5,), nested=True)}
    one = {**crossed, **split, **nested}
    several = {name: replace(design, clusters="rsna") for name, design in one.items()}
    system = {f"{n} readers against a system": Design((n,), system=True) for n in (3, 5)}
    return {
        **{f"{name}, one image a patient": design for name, design in {**one, **system}.items()},
        **{f"{name}, images as in RSNA/NIH": design for name, design in several.items()},
    }
