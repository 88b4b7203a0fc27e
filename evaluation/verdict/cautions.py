"""Cautions: notes on what may make the answer of a comparison wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    auroc_on_left_out,
    positives_without_boxes,
)
from cxr_compare.evaluation.metrics.notes import CAUTIONS, Note, NoteKind
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.statistics.arrays import Integers
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.figure_text import number, p_equation
from cxr_compare.evaluation.statistics.intervals import interval_text
from cxr_compare.evaluation.verdict.claims import CHANCE, against_chance

_FEW_PATIENTS = 20
"""Effective number of patients of a class below which a comparison carries a caution."""
_LARGE_SHARE = 0.1
"""Share of the images of a class from which a caution says that they are of one patient."""
_NO_AUDIT = "Whether a patient is in both training and test data was not checked (run cxr check)."
_ALL_SYNTHETIC = "Synthetic images: the figures say nothing about patients."


def list_cautions(notes: Sequence[Note]) -> tuple[Note, ...]:
    """List the notes on what may make the conclusion of a comparison wrong, most harmful first.

    Example:
        >>> notes = [Note("few_patients", "Few."), Note("seeds", "Two."), Note("copies", "One.")]
        >>> [note.kind for note in list_cautions(notes)]
        ['copies', 'few_patients']
    """
    order = list(CAUTIONS)
    cautions = [note for note in notes if note.caution]
    return tuple(sorted(cautions, key=lambda note: order.index(note.kind)))


def data_notes(images: LabelledImages, models: Models, audit: Sequence[str] | None) -> list[Note]:
    """Note errors that ``cxr check`` found, training on other data, and synthetic images.

    `audit` has a sentence for each error; None if nothing was checked.
    """
    notes = [_audit_note(error) for error in audit or ()]
    if images.data_name and audit is None:
        notes.append(Note("no_audit", _NO_AUDIT))
    notes += _training_notes(images, models)
    n_synthetic, n_images = images.n_synthetic, len(images.test.image_ids)
    if n_synthetic:
        some = (
            f"{n_synthetic:,} of the {n_images:,} test images are synthetic, drawn by a program: "
            "figures on all of them together are not figures of patients."
        )
        notes.append(Note("synthetic", some if n_synthetic < n_images else _ALL_SYNTHETIC))
    return notes


def few_patients(evaluated: LabelledImages) -> list[Note]:
    """Make a note if a class has few patients, or if one patient has many of its images.

    The classes are the positive and the negative images; one note covers both. A class has few
    patients if its effective number of patients (how many patients with one image each would give
    as much information) is below 20. One patient has many images if they are at least a tenth of
    the class.

    Example:
        >>> ids = pd.Index([f"i{number}" for number in range(42)])
        >>> evaluated = LabelledImages.from_arrays(ids, [1] * 2 + [0] * 40)
        >>> few_patients(evaluated)[0].text.partition(".")[0]
        'The 2 positive images are of 2 patients'
    """
    few = []
    largest = []
    for name, of_class in (("positive", evaluated.y_true), ("negative", ~evaluated.y_true)):
        images = np.bincount(evaluated.patients[of_class])
        n_images = int(images.sum())
        if not n_images:
            continue
        effective = effective_patients(images)
        if effective < _FEW_PATIENTS:
            few.append(_few_patients_text(name, images, effective))
        most = int(images.max())
        if most > 1 and most >= _LARGE_SHARE * n_images:
            share = f"{100 * most / n_images:.0f} %"
            largest.append(f"One patient has {most:,} of the {n_images:,} {name} images ({share}).")
    if few:
        few.append(
            f"With fewer than {_FEW_PATIENTS} patients of a class, one patient more or less may "
            "change the answer."
        )
    return [Note("few_patients", " ".join([*few, *largest]))] if few or largest else []


def _few_patients_text(name: str, images: Integers, effective: float) -> str:
    """Say how much the images of few patients of a class say, from the images of each patient."""
    n_images = int(images.sum())
    n_patients = int(np.count_nonzero(images))
    verb = "is" if n_images == 1 else "are"
    text = f"The {counted(n_images, f'{name} image')} {verb} of {counted(n_patients, 'patient')}"
    if n_images > n_patients:
        text += f", and say as much as {effective:.1f} patients with one image each would"
    return f"{text}."


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
                found.append(Note("other_reading", readings[0].text(model.name)))
        predicts = any(len(model.output.predicted_boxes) for model in detectors)
        if predicts and not found and figures.get(name, "ap50").estimate == 0:
            found.append(Note("no_box_hits", _no_box_hits_text(name)))
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
    return [Note("no_boxes", positives_without_boxes(n_without, n_positive))]


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
    texts = []
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
        mean = float(np.mean(known)) if known else None
        evaluated = figures.get(name, "auroc").estimate
        texts.append(auroc_on_left_out(name, mean, len(ids), int(positive.sum()), evaluated))
    if not texts:
        return []
    return [Note("left_out", f"On the images that are not evaluated, {'; '.join(texts)}.")]


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
    return Note("audit", f"The audit of this data set found an error: {error}.")


def chance_notes(figures: Figures) -> list[Note]:
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
    return Note(kind, f"By AUROC, {listing(names)} {_was(names)} {result} (0.5).")


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def shortcut_notes(failures: pd.DataFrame) -> list[Note]:
    """Note systems that were not shown to exceed the prediction from metadata and image borders.

    There is no note if this prediction itself was not shown to be better than chance.
    """
    if failures.empty:
        return []
    gaps = failures[failures["topic"] == BEYOND_SHORTCUT]
    if gaps.empty:
        return []
    fact = str(gaps["group"].iloc[0])
    guesses = failures[(failures["topic"] == SHORTCUT) & (failures["group"] == fact)]
    guess = Figure.from_row(guesses.iloc[0])
    if not guess.ci_low > CHANCE:
        return []
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
    if not texts:
        return []
    text = (
        f"The label can be predicted without the lungs, from {fact}, with AUROC "
        f"{number(guess.estimate)} in 5-fold cross-validation by patient. Compared with this "
        f"prediction on the same images, {listing(texts)} {_was(texts)} not shown to be better. "
        "Each of these AUROCs compares only images of the same fold, so it can differ from the "
        "system's AUROC elsewhere."
    )
    return [Note("shortcut", text)]


def _training_notes(images: LabelledImages, models: Models) -> list[Note]:
    """Note systems that were trained on other data sets than the one that they are evaluated on."""
    content_id = images.ids.get("content_id")
    systems_of: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    for system, members in models.items():
        trained_on = [each for model in members for each in model.facts.trained_on]
        others = dict.fromkeys(name for name, made_of in trained_on if made_of != content_id)
        is_also = content_id in [made_of for _, made_of in trained_on]
        if others:
            systems_of.setdefault((tuple(others), is_also), []).append(system)
    if not systems_of:
        return []
    texts = []
    for (data_sets, is_also), systems in systems_of.items():
        names = [
            f"“{name}”{' (other images)' if name == images.data_name else ''}" for name in data_sets
        ]
        was = f"{_was(systems)} also" if is_also else _was(systems)
        texts.append(f"{listing(systems)} {was} trained on data set {listing(names)}")
    text = f"{'; '.join(texts)}; evaluated on “{images.data_name}”."
    return [Note("elsewhere", text)]
