"""Cautions: notes on what may make the answer of a comparison wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.evaluation.boxes.box_checks import spread_ratio
from cxr_compare.evaluation.figures import Figure, Figures
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT, SHORTCUT
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import Note, NoteKind
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.figure_text import p_equation
from cxr_compare.evaluation.system_result import SystemResult
from cxr_compare.evaluation.verdict.background import Background
from cxr_compare.evaluation.verdict.claims import against_chance
from cxr_compare.evaluation.wording.sentences import note

_FEW_PATIENTS = 20
"""Effective number of patients of a class below which a comparison carries a caution."""
_LARGE_SHARE = 0.1
"""Share of the images of a class from which a caution says that they are of one patient."""
_FIRST: tuple[NoteKind, ...] = ("scores", "by_image", "copies", "exposure")
"""Kinds of notes that are listed before all other cautions, because they are the most harmful."""


def list_cautions(
    background: Background,
    figures: Figures,
    failures: pd.DataFrame,
    notes: Sequence[Note] = (),
) -> tuple[Note, ...]:
    """List what may make the conclusion of a comparison wrong, the most harmful first.

    Args:
        background: Facts about the data set and the training of the systems.
        figures: Figures of all systems and their paired differences, with intervals.
        failures: Table of the failure analysis, as `failure_table` returns it. Its rows on how well
            the label can be predicted from metadata and image borders alone are used. The table may
            be empty.
        notes: Notes of the comparison for its report. Those that say what may make the conclusion
            wrong are included.

    Returns:
        Notes on what may be wrong, such as few patients or test images that a system has seen in
        training, the most harmful first.

    Example:
        >>> figures = Figures("opacity", "image", systems={}, differences={})
        >>> cautions = list_cautions(Background("RSNA"), figures, pd.DataFrame())
        >>> cautions[0].text
        'Whether a patient is in both training and test data was not checked (run cxr check).'
    """
    cautions = [item for item in notes if item.kind in _FIRST]
    cautions += [note("audit", error=error) for error in background.audit or ()]
    if background.data_name and background.audit is None:
        cautions.append(note("no_audit"))
    cautions += _chance_cautions(figures)
    cautions += _shortcut_cautions(failures)
    cautions += _training_cautions(background)
    if background.synthetic:
        cautions.append(note("synthetic"))
    cautions += [item for item in notes if item.caution and item.kind not in _FIRST]
    return tuple(cautions)


def few_patients(evaluated: LabelledImages) -> list[Note]:
    """Make a note if a class has few patients, or if one patient has many of its images.

    The classes are the positive and the negative images. A class has few patients if its effective
    number of patients (how many patients with one image each would give as much information) is
    below 20. One patient has many images if they are at least a tenth of the class.

    Args:
        evaluated: The evaluated images with their labels and patients.

    Returns:
        A list with one note that covers both classes, or an empty list.

    Example:
        >>> from cxr_compare.evaluation.labelled_images import no_boxes
        >>> labels = np.array([True] * 2 + [False] * 40)
        >>> patients = np.arange(42)
        >>> evaluated = LabelledImages(
        ...     pd.Index(patients), labels, patients, 42, np.zeros(42, dtype=bool), no_boxes())
        >>> [row["name"] for row in few_patients(evaluated)[0].values["classes"]]
        ['positive']
    """
    classes = []
    for name, of_class in (("positive", evaluated.y_true), ("negative", ~evaluated.y_true)):
        images = np.bincount(evaluated.patients[of_class])
        n_images = int(images.sum())
        if not n_images:
            continue
        effective = effective_patients(images)
        largest = int(images.max())
        classes.append(
            {
                "name": name,
                "n_images": n_images,
                "n_patients": int(np.count_nonzero(images)),
                "effective": effective,
                "few": effective < _FEW_PATIENTS,
                # Number of images of the patient with the most, if this is a large share; else 0.
                "largest": largest if largest > 1 and largest >= _LARGE_SHARE * n_images else 0,
            }
        )
    classes = [row for row in classes if row["few"] or row["largest"]]
    return [note("few_patients", classes=classes, least=_FEW_PATIENTS)] if classes else []


def no_box_hits(
    systems: Mapping[str, SystemResult], estimates: Figures, truth: pd.DataFrame
) -> list[Note]:
    """Note each detector whose AP50 is exactly 0, although there are predicted and true boxes."""
    notes = []
    for name, system in systems.items():
        # Boxes that are cut out of an activation map may well miss every lesion.
        if system.boxes is None or system.boxes.empty or system.maps is not None:
            continue
        if estimates.get(name, "ap50").estimate == 0:
            ratio = spread_ratio(system.boxes, truth)
            notes.append(note("no_box_hits", name=name, ratio=ratio))
    return notes


def _interval_values(figure: Figure) -> dict[str, Any]:
    return {
        "estimate": figure.estimate,
        "ci_low": figure.ci_low,
        "ci_high": figure.ci_high,
        "p_value": p_equation(figure.p_value),
    }


def _chance_cautions(figures: Figures) -> list[Note]:
    """Note systems that were not shown to be better than chance, and those that were worse."""
    cautions = []
    kinds: dict[str, NoteKind] = {"open": "chance", "below": "below_chance"}
    for standing, kind in kinds.items():
        systems = {
            name: _interval_values(auroc)
            for name in figures.systems
            if (auroc := figures.get(name, "auroc")).bounded and against_chance(auroc) == standing
        }
        if systems:
            cautions.append(note(kind, systems=systems))
    return cautions


def _shortcut_cautions(failures: pd.DataFrame) -> list[Note]:
    """Note systems that were not shown to exceed the prediction from metadata and image borders."""
    if failures.empty:
        return []
    gaps = failures[failures["topic"] == BEYOND_SHORTCUT]
    if gaps.empty:
        return []
    fact = str(gaps["group"].iloc[0])
    guesses = failures[(failures["topic"] == SHORTCUT) & (failures["group"] == fact)]
    guess = Figure.from_row(guesses.iloc[0])
    systems = {}
    for _, row in gaps.iterrows():
        gap = Figure.from_row(row)
        if gap.excludes_zero and gap.estimate > 0:
            continue
        systems[row["system"]] = {
            "auroc": guess.estimate + gap.estimate,
            "difference": gap.estimate,
            "ci_low": gap.ci_low,
            "ci_high": gap.ci_high,
            "bounded": gap.bounded,
        }
    if not systems:
        return []
    return [note("shortcut", fact=fact, auroc=guess.estimate, systems=systems)]


def _training_cautions(background: Background) -> list[Note]:
    """Note systems that were trained on other data sets than the one that they are evaluated on."""
    systems_of: dict[tuple[str, ...], list[str]] = {}
    for name, data_sets in background.elsewhere.items():
        systems_of.setdefault(data_sets, []).append(name)
    if not systems_of:
        return []
    groups = [
        {"systems": systems, "data_sets": list(data_sets)}
        for data_sets, systems in systems_of.items()
    ]
    return [note("elsewhere", groups=groups, data_set=background.data_name)]
