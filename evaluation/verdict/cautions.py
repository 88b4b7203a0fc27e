"""Cautions: notes on what may make the answer of a comparison wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.boxes.other_readings import other_readings
from cxr_compare.evaluation.evaluated_model import Models
from cxr_compare.evaluation.figures import Figure, Figures
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT, SHORTCUT
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics import image_metrics
from cxr_compare.evaluation.metrics.missing_sentences import (
    LeftOutFigure,
    figures_on_left_out,
    positives_without_boxes,
)
from cxr_compare.evaluation.metrics.notes import Note, NoteKind
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.figure_text import number, p_equation
from cxr_compare.evaluation.statistics.intervals import interval_text
from cxr_compare.evaluation.verdict.background import Background
from cxr_compare.evaluation.verdict.claims import against_chance

_FEW_PATIENTS = 20
"""Effective number of patients of a class below which a comparison carries a caution."""
_LARGE_SHARE = 0.1
"""Share of the images of a class from which a caution says that they are of one patient."""
_FIRST: tuple[NoteKind, ...] = (
    "scores",
    "other_reading",
    "operating_point",
    "by_image",
    "copies",
    "exposure",
)
"""Kinds of notes that are listed before all other cautions, because they are the most harmful."""
_NO_AUDIT = "Whether a patient is in both training and test data was not checked (run cxr check)."
_SYNTHETIC = "Synthetic images: the figures say nothing about patients."


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
        >>> figures = Figures("opacity", "image", ())
        >>> cautions = list_cautions(Background("RSNA"), figures, pd.DataFrame())
        >>> cautions[0].text
        'Whether a patient is in both training and test data was not checked (run cxr check).'
    """
    cautions = [item for item in notes if item.kind in _FIRST]
    cautions += [_audit_note(error) for error in background.audit or ()]
    if background.data_name and background.audit is None:
        cautions.append(Note("no_audit", _NO_AUDIT, {}))
    cautions += _chance_cautions(figures)
    cautions += _shortcut_cautions(failures)
    cautions += _training_cautions(background)
    if background.synthetic:
        cautions.append(Note("synthetic", _SYNTHETIC, {}))
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
        >>> ids = pd.Index([f"i{number}" for number in range(42)])
        >>> evaluated = LabelledImages.from_arrays(ids, [1] * 2 + [0] * 40)
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
    if not classes:
        return []
    values = {"classes": classes, "least": _FEW_PATIENTS}
    return [Note("few_patients", _few_patients_text(classes), values)]


def _few_patients_text(classes: Sequence[Mapping[str, Any]]) -> str:
    """Say how much the images of few patients say, and which part of them is of one patient."""
    texts = []
    few = [row for row in classes if row["few"]]
    for row in few:
        images = counted(row["n_images"], f"{row['name']} image")
        verb = "is" if row["n_images"] == 1 else "are"
        text = f"The {images} {verb} of {counted(row['n_patients'], 'patient')}"
        if row["n_images"] > row["n_patients"]:
            text += (
                f", and say as much as {counted(row['n_images'], 'image')} of "
                f"{row['effective']:.1f} patients with one image each would"
            )
        texts.append(f"{text}.")
    if few:
        texts.append(
            f"With fewer than {_FEW_PATIENTS} patients of a class, one patient more or less may "
            "change the answer."
        )
    texts += [
        f"One patient has {row['largest']:,} of the {row['n_images']:,} {row['name']} images "
        f"({100 * row['largest'] / row['n_images']:.0f} %)."
        for row in classes
        if row["largest"]
    ]
    return " ".join(texts)


def misread_boxes(models: Models, figures: Figures) -> list[Note]:
    """Note detectors of whose boxes none matches, or far more would if they were read otherwise.

    The known mistakes are tried with the true boxes; figures stay those of the boxes as read.
    """
    notes = []
    for name, members in models.items():
        detectors = [model for model in members if model.output.gives_boxes]
        found = []
        for model in detectors:
            images = model.images
            readings = other_readings(
                model.output.predicted_boxes,
                images.true_boxes,
                images.images[images.is_boxed],
                system=model.name,
            )
            if readings:
                values = {"name": model.name, **readings[0]._asdict()}
                found.append(Note("other_reading", readings[0].text(model.name), values))
        predicts = any(len(model.output.predicted_boxes) for model in detectors)
        if predicts and not found and figures.get(name, "ap50").estimate == 0:
            found.append(Note("no_box_hits", _no_box_hits_text(name), {"name": name}))
        notes += found
    return notes


def missing_boxes(estimates: Figures, evaluated: LabelledImages) -> list[Note]:
    """Make a note if some positive images lack boxes, on which localisation figures do not rest."""
    n_positive = int(evaluated.y_true.sum())
    n_without = int((evaluated.y_true & ~evaluated.is_boxed).sum())
    has_boxed_figure = any(
        figure.known and key.metric in METRICS and METRICS[key.metric].boxed
        for _, _, key, figure in estimates
    )
    if not n_without or not has_boxed_figure:
        return []
    text = positives_without_boxes(n_without, n_positive)
    return [Note("no_boxes", text, {"n_without": n_without, "n_positive": n_positive})]


def figures_left_out(
    models: Models,
    systems: Mapping[str, System],
    figures: Figures,
    images: LabelledImages,
) -> list[Note]:
    """Note the AUROC on labelled test images that are not evaluated.

    Only systems that ran on some of them are named. Over several training seeds it is the mean.
    """
    labels = images.labels_of("test").dropna()
    dropped = labels.index.difference(images.test.image_ids)
    of_systems = {}
    for name, members in models.items():
        ids = dropped
        for model in members:
            ids = ids.intersection(_answered(systems[model.name]))
        if not len(ids):
            continue
        positive = labels.reindex(ids).to_numpy() == 1
        areas = []
        for model in members:
            output = systems[model.name].output_on(ids)
            scores = output.scores(model.choices.reduction).to_numpy(np.float64)
            areas.append(image_metrics.auroc(positive, scores))
        known = [area for area in areas if area is not None]
        of_systems[name] = LeftOutFigure(
            float(np.mean(known)) if known else None,
            len(ids),
            int(positive.sum()),
            figures.get(name, "auroc").estimate,
        )
    if not of_systems:
        return []
    values = {name: figure._asdict() for name, figure in of_systems.items()}
    return [Note("left_out", figures_on_left_out(of_systems), {"systems": values})]


def _answered(system: System) -> pd.Index:
    """Return the ids of the images on which a system ran and, if it gives scores, has one."""
    if system.kind == "boxes":
        return system.images_run
    return system.images_run.intersection(pd.Index(system.scores["image_id"].unique()))


def _no_box_hits_text(name: str) -> str:
    return (
        f"No box of {name} matches a true box (AP50 is 0). Draw some of them: do they belong to "
        "these images, and are they in px of the original images?"
    )


def _audit_note(error: str) -> Note:
    return Note("audit", f"The audit of this data set found an error: {error}.", {"error": error})


def _chance_cautions(figures: Figures) -> list[Note]:
    """Note systems that were not shown to be better than chance, and those that were worse."""
    aurocs = {name: figures.get(name, "auroc") for name in figures.systems}
    of_standing: dict[str, dict[str, Figure]] = {}
    for name, auroc in aurocs.items():
        if auroc.bounded:
            of_standing.setdefault(against_chance(auroc), {})[name] = auroc
    cautions = []
    if "open" in of_standing:
        result = "not shown to be better than chance"
        cautions.append(_chance_note("chance", of_standing["open"], result))
    if "below" in of_standing:
        cautions.append(_chance_note("below_chance", of_standing["below"], "worse than chance"))
    return cautions


def _chance_note(kind: NoteKind, aurocs: Mapping[str, Figure], result: str) -> Note:
    """Note what the AUROCs of some systems, by their names, show against chance."""
    names = [
        f"{name} ({number(auroc.estimate)}, 95 % interval {interval_text(auroc)}, rank test by "
        f"patient {p_equation(auroc.p_value)})"
        for name, auroc in aurocs.items()
    ]
    systems = {
        name: {
            "estimate": auroc.estimate,
            "ci_low": auroc.ci_low,
            "ci_high": auroc.ci_high,
            "p_value": auroc.p_value,
        }
        for name, auroc in aurocs.items()
    }
    return Note(
        kind, f"By AUROC, {listing(names)} {_was(names)} {result} (0.5).", {"systems": systems}
    )


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


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
    texts = []
    for _, row in gaps.iterrows():
        gap = Figure.from_row(row)
        if gap.excludes_zero and gap.estimate > 0:
            continue
        auroc = guess.estimate + gap.estimate
        interval = f"95 % interval {interval_text(gap)}" if gap.bounded else "not tested"
        texts.append(
            f"{row['system']} ({number(auroc)}, difference {number(gap.estimate)}, {interval})"
        )
        systems[row["system"]] = {
            "auroc": auroc,
            "difference": gap.estimate,
            "ci_low": gap.ci_low,
            "ci_high": gap.ci_high,
            "bounded": gap.bounded,
        }
    if not systems:
        return []
    text = (
        f"The label can be predicted without the lungs, from {fact}, with AUROC "
        f"{number(guess.estimate)} in 5-fold cross-validation by patient. Compared with this "
        f"prediction on the same images, {listing(texts)} {_was(texts)} not shown to be better. "
        "Each of these AUROCs compares only images of the same fold, so it can differ from the "
        "system's AUROC elsewhere."
    )
    values = {"fact": fact, "auroc": guess.estimate, "systems": systems}
    return [Note("shortcut", text, values)]


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
    texts = []
    for data_sets, systems in systems_of.items():
        names = [
            f"“{name}”{' (other images)' if name == background.data_name else ''}"
            for name in data_sets
        ]
        texts.append(f"{listing(systems)} {_was(systems)} trained on data set {listing(names)}")
    text = f"{'; '.join(texts)}; evaluated on “{background.data_name}”."
    return [Note("elsewhere", text, {"groups": groups, "data_set": background.data_name})]
