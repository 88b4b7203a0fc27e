"""Cautions: notes on what may make the answer of a comparison wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.notes import Note, unknown_training
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.policies import is_given
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.statistics.arrays import Flags, Integers
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.figure_text import number, range_text, score_text
from cxr_compare.evaluation.statistics.intervals import Interval, interval_text
from cxr_compare.evaluation.truth import Truth
from cxr_compare.evaluation.verdict.box_checks import box_notes
from cxr_compare.evaluation.verdict.budgets import budget_notes
from cxr_compare.evaluation.verdict.claims import against_chance
from cxr_compare.evaluation.verdict.prose import listing, was
from cxr_compare.evaluation.verdict.score_checks import score_notes

_NEARLY_NONE = 0.05
"""Share of the images that are called otherwise than all others."""
_MOST_DETAILED = 2
"""Systems of which a caution states threshold and calls."""
FEW_PATIENTS = 20
"""Effective number of patients of a class below which a comparison carries a caution."""
_LARGE_SHARE = 0.1
"""Share of the images of a class from which a caution says that they are of one patient."""


def cautions(comparison: Comparison) -> list[Note]:
    """Return all notes that follow from the figures and the evaluated images of a comparison."""
    single = {name: comparison.systems[name] for name in comparison.single}
    outputs = {name: system.output for name, system in single.items()}
    positive = comparison.truth.positive
    return [
        *score_notes(single),
        *box_notes(single),
        *missing_boxes(comparison.figures, comparison.truth),
        *one_class(comparison.truth),
        *few_patients(comparison.truth, {"positive": positive, "negative": ~positive}),
        *few_validation_patients(single, comparison.main_policy, comparison.units),
        *no_box_hits(comparison.figures, single),
        *all_alike(comparison.systems, comparison.main_policy, comparison.units),
        *synthetic_images(comparison.truth),
        *unequal_training(outputs),
        *budget_notes(outputs),
        *chance_notes(comparison.figures, list(comparison.systems)),
        *shortcut_note(comparison.figures, list(comparison.systems), comparison.truth.shortcut),
    ]


def one_on_training(notes: Sequence[Note], systems: Sequence[str]) -> list[Note]:
    """Return notes of which one is on all unknown trainings; it names them unless all are."""
    names = [note.untrained for note in notes if note.untrained]
    if len(names) < 2:
        return list(notes)
    which = "these systems" if set(names) == set(systems) else listing(names)
    others = [note for note in notes if not note.untrained]
    return [*others, unknown_training(which, several=True)]


def all_alike(systems: Mapping[str, SystemFigures], policy: str, units: str) -> list[Note]:
    """Note systems that call nearly every evaluated image positive, or nearly none.

    At most one of 20 images is called otherwise than the others then, and fewer than half as many
    as are of that class: where few images are positive, few are called by a good system, too.
    """
    texts = []
    for name, system in systems.items():
        threshold = system.choices.thresholds.get(policy)
        if threshold is None:
            continue
        called, positive = system.scores >= threshold, system.truth.positive
        if called.sum() * 2 > len(called):
            called, positive = ~called, ~positive
        if called.mean() <= _NEARLY_NONE and 2 * called.sum() < max(1, positive.sum()):
            texts.append(f"{name} calls {int((system.scores >= threshold).sum()):,}")
    if not texts:
        return []
    truth = next(iter(systems.values())).truth
    of_all = f"of the {len(truth.ids):,} test {units} positive; {int(truth.positive.sum()):,} are."
    return [Note(f"{listing(texts)} {of_all}", "all_alike")]


def synthetic_images(truth: Truth) -> list[Note]:
    """Note how many of the evaluated images are synthetic."""
    n_images, n_synthetic = len(truth.ids), truth.n_synthetic
    if not n_synthetic:
        return []
    text = "Synthetic images: the figures say nothing about patients."
    if n_synthetic < n_images:
        text = (
            f"{n_synthetic:,} of the {n_images:,} test images are synthetic, drawn by a program: "
            "figures on all of them together are not figures of patients."
        )
    return [Note(text, "synthetic")]


def unequal_training(outputs: Mapping[str, Output]) -> list[Note]:
    """Note which images the systems learned from, if it is known and they are not the same."""
    learned = {name: output.record.get("learned_from") for name, output in outputs.items()}
    alike: dict[str, list[str]] = {}
    for name, images in learned.items():
        if images:
            alike.setdefault(images["digest"], []).append(name)
    if len(alike) < 2:
        return []
    texts = []
    for names in alike.values():
        images = learned[names[0]] or {}
        positive = images["positive"]
        of_them = "" if positive is None else f" ({positive:,} positive)"
        texts.append(f"{listing(names)} from {images['images']:,}{of_them}")
    text = f"The systems did not learn from the same images: {listing(texts)}."
    return [Note(text, "unequal_training")]


def without_scores(names: Sequence[str]) -> list[str]:
    """Say how systems decide whose boxes have no scores; empty without such systems."""
    verb = "gives" if len(names) == 1 else "give"
    text = "boxes without scores: an image is positive where it has a box, at no threshold."
    return [f"{listing(names)} {verb} {text}"] if names else []


def few_patients(evaluated: Truth, of_classes: Mapping[str, Flags]) -> list[Note]:
    """Make a note if a class has few patients, or if one patient has many of its images.

    Where no patient is known, images are counted.

    A class, such as the positive images, has few patients if its effective number of
    patients (how many patients with one image each would give as much information) is below 20. One
    patient has many images if they are at least a tenth of the class.
    """
    few, largest = [], []
    for name, of_class in of_classes.items():
        images = np.bincount(evaluated.patients[of_class])
        n_images = int(images.sum())
        if not n_images:
            continue
        if effective_patients(images) < FEW_PATIENTS:
            few.append(_few_patients_text(name, images, are_known=evaluated.patients_known))
        most = int(images.max())
        if most > 1 and most >= _LARGE_SHARE * n_images:
            share = f"{100 * most / n_images:.0f} %"
            largest.append(f"One patient has {most:,} of the {n_images:,} {name} images ({share}).")
    if few:
        unit = "patient" if evaluated.patients_known else "image"
        few.append(f"With so few, one {unit} more or less may change the answer.")
    return [Note(" ".join([*few, *largest]), "few_patients")] if few or largest else []


def _few_patients_text(name: str, images: Integers, *, are_known: bool) -> str:
    """Say how many images and patients a class has, from the images of each patient."""
    n_images, n_patients = int(images.sum()), int(np.count_nonzero(images))
    verb = "is" if n_images == 1 else "are"
    if not are_known:
        return f"There {verb} {counted(n_images, f'{name} image')}."
    return f"The {counted(n_images, f'{name} image')} {verb} of {counted(n_patients, 'patient')}."


def few_validation_patients(
    systems: Mapping[str, SystemFigures], policy: str, units: str
) -> list[Note]:
    """Note systems whose threshold few validation patients of a class chose.

    They are few if their effective number is below 20, as for a class of test patients.
    """
    if not policy or is_given(policy):
        return []
    chosen: dict[str, dict[str, str]] = {}
    for name, system in systems.items():
        truth, threshold = system.choices.truth, system.choices.thresholds.get(policy)
        if truth is None or threshold is None or not system.output.ranks:
            continue
        classes = [truth.patients[in_class] for in_class in (truth.positive, ~truth.positive)]
        if min(effective_patients(np.bincount(in_class)) for in_class in classes) >= FEW_PATIENTS:
            continue
        number_of = f"{len(truth.ids):,}, of which {len(classes[0]):,} are positive"
        called = int((system.scores >= threshold).sum())
        share = f"{called:,} of {len(system.scores):,} test {units} are called"
        text = f"{name}: {score_text(threshold)}, {share}"
        chosen.setdefault(number_of, {})[name] = text
    return [
        Note(
            f"The threshold of {listing([*texts])} was chosen on few validation {units}. They are "
            f"{number_of}; others would choose another one.{_detailed(texts)}",
            "few_validation",
        )
        for number_of, texts in chosen.items()
    ]


def _detailed(texts: Mapping[str, str]) -> str:
    """Return the texts of one or two systems as a sentence; empty for several."""
    return f" {'; '.join(texts.values())}." if len(texts) <= _MOST_DETAILED else ""


def no_box_hits(figures: pd.DataFrame, systems: Mapping[str, SystemFigures]) -> list[Note]:
    """Note systems of whose boxes none matches a true box; boxes cut from a map often miss."""
    rows = figures[(figures["metric"] == "ap50") & (figures["second"] == "")]
    drawn = [name for name, system in systems.items() if system.output.boxes is not None]
    names = rows.loc[rows["first"].isin(drawn) & (rows["estimate"] == 0), "first"].tolist()
    if not names:
        return []
    text = (
        f"No box of {listing(names)} matches a true box (AP50 is 0). Draw some of them: do "
        "they belong to these images, and are they in px of the original images?"
    )
    return [Note(text, "no_box_hits")]


def missing_boxes(figures: pd.DataFrame, evaluated: Truth) -> list[Note]:
    """Make a note if some positive images lack boxes, on which localisation figures do not rest."""
    n_positive = int(evaluated.positive.sum())
    n_without = int((evaluated.positive & ~evaluated.is_boxed).sum())
    defined = figures[figures["estimate"].notna()]
    if not n_without or not any(METRICS[name].boxed for name in defined["metric"].unique()):
        return []
    text = (
        f"{n_without:,} of the {n_positive:,} positive test images have no boxes: localisation "
        "figures do not rest on them."
    )
    return [Note(text, "no_boxes")]


def one_class(evaluated: Truth) -> list[Note]:
    """Make a note if all evaluated images are positive, or all are negative."""
    text = ""
    if evaluated.positive.all():
        text = (
            "No test image is negative: average precision, AP50 and FROC rest on positive images "
            "alone, so a false alarm on a negative image cannot count."
        )
    elif not evaluated.positive.any():
        text = (
            "No test image is positive: the figures say nothing of whether a system finds positive "
            "images."
        )
    return [Note(text, "one_class")] if text else []


def chance_notes(figures: pd.DataFrame, systems: Sequence[str]) -> list[Note]:
    """Note systems that were not shown to be better than chance, and those that were worse."""
    rows = figures[(figures["metric"] == "auroc") & (figures["second"] == "")]
    of_standing: dict[str, dict[str, Interval]] = {}
    for row in rows[rows["first"].isin(systems)].to_dict("records"):
        auroc = Interval.from_row(row)
        of_standing.setdefault(against_chance(auroc), {})[row["first"]] = auroc
    notes = []
    if "open" in of_standing:
        notes.append(_chance_note("chance", of_standing["open"], "not shown to be better than"))
    if "below" in of_standing:
        notes.append(_chance_note("below_chance", of_standing["below"], "worse than"))
    return notes


def _chance_note(kind: str, aurocs: Mapping[str, Interval], result: str) -> Note:
    """Note what the AUROCs of some systems, by their names, show against chance."""
    names = [
        f"{name} ({number(auroc.estimate)}"
        + (f", 95 % interval {interval_text(auroc)})" if auroc.bounded else ", no interval)")
        for name, auroc in aurocs.items()
    ]
    return Note(f"By AUROC, {listing(names)} {was(names)} {result} chance (0.5).", kind)


def shortcut_note(
    figures: pd.DataFrame, systems: Sequence[str], shortcut: Mapping[str, Any] | None
) -> list[Note]:
    """Note systems that may have learned what predicts the label without the lungs.

    There is no note if the 95 % interval of the AUROC of every system lies above the AUROC of this
    shortcut.
    """
    if shortcut is None:
        return []
    rows = figures[(figures["metric"] == "auroc") & (figures["second"] == "")]
    lower_ends = rows.set_index("first")["ci_low"].reindex(list(systems))
    names = [name for name in systems if not lower_ends[name] > shortcut["auroc"]]
    if not names:
        return []
    ends = range_text(shortcut["ci_low"], shortcut["ci_high"])
    text = (
        f"On {shortcut['n_known']:,} images of the data set, the audit predicted the label without "
        f"the lungs, from {shortcut['fact']}, with AUROC {number(shortcut['auroc'])} (95 % "
        f"interval {ends}; data.html). {listing(names)} {was(names)} not shown to exceed it, and "
        "may have learned this in place of the finding."
    )
    return [Note(text, page="docs/metrics.md#shortcuts")]
