"""Selection of the test images on which several systems are compared, the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.missing_sentences import (
    evaluated_in_common,
    left_out,
    unknown_labels,
)
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.output import System

Images = Literal["all", "common"]
_SHOWN = 5


def common_test_images(
    systems: Mapping[str, System], labelled: LabelledImages, *, images: Images = "all"
) -> tuple[LabelledImages, list[Note]]:
    """Select the test images of known label on which all systems are evaluated.

    With `images` ``all``, systems are refused that ran on different test images or failed on some
    of them; with ``common``, the images on which all systems ran are taken. The selected images are
    `LabelledImages.test` of the result; the notes for the report name images that are left out. An
    InputError is raised if no test image is left.

    Example:
        >>> labelled = LabelledImages.from_arrays(pd.Index(["a", "b"]), [1, 0])
        >>> ran = pd.DataFrame({"image_id": ["a", "b"], "status": "ok"})
        >>> images, notes = common_test_images({"A": System("A", "scores", ran)}, labelled)
        >>> images.test.image_ids.tolist(), images.test.y_true.tolist(), notes
        (['a', 'b'], [True, False], [])
    """
    labels = labelled.labels_of("test")
    known = labels.dropna()
    notes: list[Note] = []
    if len(known) < len(labels):
        unknown = labels.index[labels.isna()]
        n_uncertain = int(unknown.isin(labelled.uncertain).sum())
        text = unknown_labels(len(unknown), n_uncertain, labelled.shown_name)
        notes.append(Note("left_out", text, brief=f"{len(unknown):,} without a label"))
    ran = {
        name: known.index.intersection(system.images_run, sort=False)
        for name, system in systems.items()
    }
    common = known.index
    for ids in ran.values():
        common = common.intersection(ids, sort=False)
    differing = {name: ids.difference(common) for name, ids in ran.items()}
    differs = any(len(ids) for ids in differing.values())
    if differs and images != "common":
        raise InputError(_difference_line(ran))
    if images != "common":
        _refuse_failures(systems, known.index)
    if len(common) < len(known):
        dropped = known.drop(common)
        n_positive = int((dropped == 1).sum())
        counts = {name: len(ids) for name, ids in ran.items()}
        text = left_out(len(dropped), len(known), n_positive, int((known == 1).sum()))
        if differs:
            text = f"{evaluated_in_common(len(common), counts)} {text}"
        brief = f"{len(dropped):,} without an answer of every system"
        notes.append(Note("left_out", text, brief))
    if not len(common):
        raise InputError(
            f"no test image of split '{labelled.split}' with a known label was run by "
            f"{' and '.join(systems)}; predict the test images of this data set"
        )
    common = common.sort_values()
    notes += _unknown_patients(labelled, common)
    shared = labelled.shared_patients()
    if len(shared):
        by_role = {str(role): int(n) for role, n in shared["role"].value_counts().items()}
        roles = [
            f"{counted(count, 'patient')} of test images also in "
            f"{'validation' if role == 'val' else 'training'}"
            for role, count in sorted(by_role.items())
        ]
        text = (
            f"Patients have images in more than one role: {' and '.join(roles)}. Thresholds, "
            "models and figures know these patients: the figures are too good for new patients."
        )
        notes.append(Note("by_image", text))
    return replace(labelled, evaluated=pd.Index(common, name="image_id")), notes


def _unknown_patients(labelled: LabelledImages, common: pd.Index) -> list[Note]:
    """Make a note if evaluated images of unknown patients count as patients of their own."""
    n_unknown = labelled.of_unknown_patient(common)
    if not n_unknown:
        return []
    all_images = n_unknown == len(common)
    if all_images:
        # A report without patients rewords "patient", except in two phrases that this text uses.
        advice = " (name the patients, such as in a column patient_id of the truth)"
        text = (
            "Intervals are by image, because no patient is known: they are too narrow where "
            f"patients have several images{'' if labelled.data_name else advice}."
        )
    else:
        advice = "" if labelled.data_name else " (name the patients of these images, too)"
        text = (
            f"The patients of {counted(n_unknown, 'image')} are unknown, and each of these images "
            "counts as a patient of its own: intervals are too narrow where patients have several "
            f"of them{advice}."
        )
    return [Note("by_image", text)]


def validation_learned_from(name: str, system: System, truth: LabelledImages) -> list[Note]:
    """Make a note if a system was fitted on some of the validation images; return it in a list.

    The figures on test images are not affected. But the scores of a system separate the classes
    better on images that it was fitted on than on new images. A threshold that is chosen on such
    scores may therefore have another sensitivity or specificity on new images than it was chosen
    for. An ensemble of the models of a cross-validation always has such validation images, so they
    are noted and not refused.
    """
    labelled = truth.labels_of("val").dropna().index
    n_learned = len(labelled.intersection(system.facts.fitted_on))
    if not n_learned:
        return []
    text = (
        f"{name} learned from patients, or from copies, of {n_learned} of the {len(labelled)} "
        f"validation images of split '{truth.split}'. It scores these images more surely than new "
        "ones, so its thresholds and its calibration may not fit new images."
    )
    return [Note("validation", text)]


def _difference_line(ran: Mapping[str, pd.Index]) -> str:
    """Return the message that names the images which a system lacks, up to five for each system."""
    union = pd.Index(sorted(set().union(*ran.values())))
    sides = []
    for name, ids in ran.items():
        lacking = union.difference(ids)
        if len(lacking):
            shown = ", ".join(map(str, lacking[:_SHOWN]))
            more = ", ..." if len(lacking) > _SHOWN else ""
            sides.append(f"{name} lacks {len(lacking)} that others ran on ({shown}{more})")
    return (
        "the systems' test images differ: " + "; ".join(sides) + "; predict them, or compare on "
        "the images that all have with --images common"
    )


def _refuse_failures(systems: Mapping[str, System], known: pd.Index) -> None:
    """Refuse labelled test images on which the systems failed.

    Images on which only some of the systems failed have been refused before, as a difference.
    """
    for name, system in systems.items():
        rows = system.images[system.images["status"] == "failed"]
        rows = rows[is_member(rows["image_id"], known)]
        if len(rows):
            shown = ", ".join(map(str, rows["image_id"].sort_values()[:_SHOWN]))
            raise InputError(
                f"{system.source}: {name} failed on {counted(len(rows), 'test image')} ({shown}); "
                "predict them again, or compare on the images that all have with --images common, "
                "where failures are counted against and for a system beside"
            )
