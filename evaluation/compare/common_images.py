"""Test images that several systems are scored on, the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.evaluation.compare.sentences import note
from cxr_compare.evaluation.decisions.ground_truth import (
    EvaluationSet,
    GroundTruth,
    describe_images,
)
from cxr_compare.evaluation.decisions.sentences import note as decision_note
from cxr_compare.evaluation.decisions.system_output import System
from cxr_compare.evaluation.metrics.notes import Note

Images = Literal["all", "common"]
_SHOWN = 5


def common_test_images(
    systems: Mapping[str, System], truth: GroundTruth, *, images: Images = "all"
) -> tuple[EvaluationSet, list[Note]]:
    """Return the test images of known label that all systems are scored on, and what to note.

    Args:
        systems: Systems by display name.
        truth: Ground truth, whose ``test`` images count.
        images: ``all`` refuses systems that ran on different test images, or failed on some;
            ``common`` takes the images that all ran on.

    Returns:
        The images with their truth, and notes on images that are left out.

    Raises:
        InputError: The systems' images differ, or there is no common image.
    """
    labels = truth.labels_of("test")
    known = labels.dropna()
    notes: list[Note] = []
    if len(known) < len(labels):
        unknown = labels.index[labels.isna()]
        n_uncertain = int(unknown.isin(truth.uncertain).sum())
        notes.append(
            note(
                "left_out",
                "unknown_labels",
                n_images=len(unknown),
                finding=truth.display_name,
                n_uncertain=n_uncertain,
            )
        )
    ran = {
        name: known.index.intersection(system.images_run, sort=False)
        for name, system in systems.items()
    }
    common = known.index
    for ids in ran.values():
        common = common.intersection(ids, sort=False)
    differing = {name: ids.difference(common) for name, ids in ran.items()}
    if any(len(ids) for ids in differing.values()):
        if images != "common":
            raise InputError(_difference_line(ran))
        counts = {name: len(ids) for name, ids in ran.items()}
        notes.append(note("left_out", "common_images", n_images=len(common), ran=counts))
    if images != "common":
        _refuse_failures(systems, known.index)
    if len(common) < len(known):
        n_left_out = len(known) - len(common)
        notes.append(note("left_out", "not_evaluated", n_images=n_left_out, n_labelled=len(known)))
    if not len(common):
        raise InputError(
            f"no test image of split '{truth.split}' with a known label was run by "
            f"{' and '.join(systems)}; predict the test images of this data set"
        )
    common = common.sort_values()
    n_unknown = _count_assumed_patients(truth, common)
    if n_unknown:
        all_images = n_unknown == len(common)
        notes.append(
            note("by_image", "unknown_patients", n_images=n_unknown, all_images=all_images)
        )
    for system in systems.values():
        notes += system.facts.notes
    return describe_images(truth, common, known), notes


def _count_assumed_patients(truth: GroundTruth, image_ids: pd.Index) -> int:
    """Count the images whose patient is not known, so that each counts as its own patient."""
    if "patient_id_source" not in truth.images:
        return 0
    sources = truth.images.set_index("image_id")["patient_id_source"].reindex(image_ids)
    return int((sources == "assumed_image").sum())


def validation_learned_from(name: str, system: System, truth: GroundTruth) -> list[Note]:
    """Note validation images that a system was fitted on, since it knows them too well to choose.

    The figures on test stay honest. Thresholds and calibration, however, come from scores that are
    surer than those of new images, and miss the sensitivity or specificity that they were chosen
    for. An ensemble of the models of a cross-validation has such images by its construction, so
    this is noted and not refused.

    Args:
        name: Display name of the system.
        system: The system.
        truth: Ground truth.

    Returns:
        One note, or none.
    """
    labelled = truth.labels_of("val").dropna().index
    n_learned = len(labelled.intersection(system.facts.fitted_on))
    if not n_learned:
        return []
    return [
        decision_note(
            "validation",
            "validation_learned",
            system=name,
            n_learned=n_learned,
            n_validation=len(labelled),
            split=truth.split,
        )
    ]


def _difference_line(ran: Mapping[str, pd.Index]) -> str:
    """Explain which images the systems do not share, up to five for each system."""
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
    """Refuse images that every system failed on; those of some are refused as different."""
    for name, system in systems.items():
        rows = system.images[system.images["status"] == "failed"]
        rows = rows[rows["image_id"].isin(known)]
        if len(rows):
            shown = ", ".join(map(str, rows["image_id"].sort_values()[:_SHOWN]))
            raise InputError(
                f"{system.source}: {name} failed on {counted(len(rows), 'test image')} ({shown}); "
                "predict them again, or compare on the images that all have with --images common, "
                "where failures are counted against and for a system beside"
            )
