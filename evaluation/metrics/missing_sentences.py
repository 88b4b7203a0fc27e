"""Sentences on images and thresholds that figures lack: functions that return text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.notes import WARNING, Note
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number


def unknown_labels(n_images: int, n_uncertain: int, finding: str) -> str:
    """Say how many test images have no known label, and of how many of them readers doubted."""
    text = f"{counted(n_images, 'test image', 'have')} no known label for {finding}"
    if n_uncertain:
        text += f", {n_uncertain:,} of them because readers were uncertain"
    return f"{text}."


def uncertain_as(label: str, n_images: int) -> str:
    """Say that test images of uncertain label count as ``positive`` or as ``negative``."""
    if not n_images:
        return f"No test image has an uncertain label, so none counts as {label}."
    verb = "counts" if n_images == 1 else "count"
    return (
        f"{WARNING}Sensitivity analysis: {counted(n_images, 'test image')} of uncertain label "
        f"{verb} as {label}. Thresholds are those of validation images of certain label."
    )


def operating_point(system: str) -> str:
    """Say what a system whose boxes have no scores is compared by."""
    return (
        f"The boxes of {system} have no scores, so it is one operating point, as a reader is: an "
        "image with a box is called positive at every threshold of the others. AUROC, average "
        "precision and FROC need scores and are undefined. Its point is the centre of the largest "
        "box."
    )


def not_tuned(systems: Sequence[str]) -> str:
    """Say that the thresholds of some systems were chosen during the comparison."""
    return f"The thresholds of {listing(systems)} were chosen now, on the validation images."


def no_validation(systems: Sequence[str], *, declared: bool) -> str:
    """Say that some systems have no validation images; they may have declared thresholds."""
    has, subject = ("has", "it") if len(systems) == 1 else ("have", "they")
    also = " and figures at declared thresholds" if declared else ""
    return (
        f"{listing(systems)} {has} no validation images, so {subject} {has} only figures that "
        f"need no threshold{also}."
    )


def evaluated_in_common(n_images: int, ran: Mapping[str, int]) -> str:
    """Say on how many images all systems ran; ``ran`` holds the number of each system."""
    each = ", ".join(f"{name} ran on {count:,}" for name, count in ran.items())
    return f"Evaluated on the {n_images:,} test images that all systems ran on ({each})."


def left_out(n_images: int, n_labelled: int, n_positive: int, n_labelled_positive: int) -> str:
    """Say how many labelled test images are not evaluated, with both prevalences."""
    evaluated = n_labelled - n_images
    verb = "is" if n_images == 1 else "are"
    text = f"{n_images:,} of {counted(n_labelled, 'labelled test image')} {verb} not evaluated: "
    text += f"{_positive(n_positive, n_images)}"
    if evaluated:
        kept = _positive(n_labelled_positive - n_positive, evaluated)
        text += f", against {kept} of the evaluated ones"
    return f"{text}."


def auroc_on_left_out(
    system: str, auroc: float | None, n_images: int, n_positive: int, evaluated: float
) -> str:
    """Give the AUROC of a system on images that are left out, beside that on the evaluated ones."""
    images = f"{counted(n_images, 'image')}, {n_positive:,} positive"
    if auroc is None:
        return f"{system} has no AUROC ({images})"
    return (
        f"{system} has an AUROC of {number(auroc)} ({images}), against {number(evaluated)} on the "
        "evaluated images"
    )


def positives_without_boxes(n_without: int, n_positive: int) -> str:
    """Say on how many positive images localisation figures rest."""
    verb = "lacks" if n_without == 1 else "lack"
    return (
        f"{n_without:,} of {counted(n_positive, 'positive test image')} {verb} boxes of their "
        f"lesions: localisation figures rest on the {n_positive - n_without:,} others, and all "
        "other figures on all."
    )


def boxed_positives(n_boxed: int, n_positive: int) -> str:
    """Name in a few words the positive images with boxes, beside a localisation figure."""
    return f"on the {n_boxed:,} of {n_positive:,} positive images that have boxes"


def beside_count(notes: Sequence[Note]) -> str:
    """Name in a few words the test images that are left out, beside the number of evaluated ones.

    The result is empty if none is left out.
    """
    parts = [note.brief for note in notes if note.brief]
    return f"left out: {listing(parts)}" if parts else ""


def _positive(n_positive: int, n_images: int) -> str:
    """Return a number of positive images with their share."""
    return f"{n_positive:,} positive ({100 * n_positive / n_images:.1f} %)"
