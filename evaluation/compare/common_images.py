"""The test images that several systems are scored on, the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.evaluation.decisions.ground_truth import (
    EvaluationSet,
    GroundTruth,
    describe_images,
)
from cxr_compare.evaluation.decisions.system_output import System
from cxr_compare.evaluation.metrics.notes import (
    Note,
)

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

    Raises:
        InputError: The systems' images differ, or there is no common image.
    """
    labels = truth.labels_of("test")
    known = labels.dropna()
    notes: list[Note] = []
    if len(known) < len(labels):
        unknown = labels.index[labels.isna()]
        called = int(unknown.isin(truth.uncertain).sum())
        text = f"{counted(len(unknown), 'test image', 'have')} no known label for "
        text += truth.display_name
        text += f", {called:,} of them because readers were uncertain." if called else "."
        notes.append(Note("left_out", text))
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
        counts = "; ".join(f"{name} ran on {len(ids)}" for name, ids in ran.items())
        text = f"Evaluated on the {len(common)} test images that all systems ran on; {counts}."
        notes.append(Note("left_out", text))
    if images != "common":
        _refuse_failures(systems, known.index)
    if len(common) < len(known):
        text = (
            f"{len(known) - len(common)} of {counted(len(known), 'test image')} are not evaluated."
        )
        notes.append(Note("left_out", text))
    if not len(common):
        raise InputError(
            f"no test image of split '{truth.split}' with a known label was run by "
            f"{' and '.join(systems)}; predict the test images of this data set"
        )
    common = common.sort_values()
    if n_own := _count_assumed_patients(truth, common):
        which = "no patient is known" if n_own == len(common) else f"{n_own:,} patients are unknown"
        text = f"Intervals are by image, for {which}: too narrow where patients have several."
        notes.append(Note("by_image", text))
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
    """Note validation images that a system was fitted on: it knows them too well to choose on.

    The figures on test stay honest, but thresholds and calibration are of scores surer than those
    of new images: they miss the sensitivity or specificity that they were chosen for. An ensemble
    of the models of a cross-validation has such images by its making, so this is noted, not
    refused.
    """
    known = truth.labels_of("val").dropna().index
    fitted = known.intersection(system.facts.fitted_on)
    if not len(fitted):
        return []
    text = (
        f"{name} learned from patients or copies of {len(fitted)} of the {len(known)} validation "
        f"images of split '{truth.split}': its thresholds and calibration are of scores surer "
        "than on new images."
    )
    return [Note("validation", text)]


def _difference_line(ran: Mapping[str, pd.Index]) -> str:
    """Which images the systems do not share, up to five a side."""
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
