"""Systems and truth that are given by ``--truth``: files of other software, or values in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted, nearest_name
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.tables import frame_digest, require_members
from cxr_compare.evaluation.compare import EligibleSystems
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import WARNING
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.sources.eligible import eligible_in_memory
from cxr_compare.evaluation.sources.known_images import KnownImages
from cxr_compare.scripts import console
from cxr_compare.scripts.given_systems import (
    GivenSystem,
    GivenValues,
    same_name,
    seeds_to_join,
    values_caption,
)
from cxr_compare.scripts.options import read_target

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.data_prep.store.predictions import Predictions
    from cxr_compare.evaluation.common_images import Images
    from cxr_compare.evaluation.sources.pixels import Pixels
    from cxr_compare.scripts.result_columns import ResultColumns


@dataclass(frozen=True)
class GivenTruth:
    """Ground truth in a file or in memory, by each target that is evaluated.

    Attributes:
        truths: Labels, roles, patients and true boxes by name of the target.
        known: Images and findings that predictions may be about.
        of_finding: Function that returns the ground truth of one finding of a target.
        order: Image ids in the order and with the index of labels in memory; None for a file.
        coco: COCO annotation file of the truth, which says what ids in COCO results mean; None for
            another source.
    """

    truths: Mapping[str, LabelledImages]
    known: KnownImages
    of_finding: Callable[[str], LabelledImages]
    order: pd.Series | None = None
    coco: Path | None = None


def open_truth(
    truth: Any,
    boxes: Any,
    patients: Any,
    columns: tuple[str, ...] = (),
    target_names: list[str] | None = None,
    label: str | None = None,
    uncertain: Literal["positive", "negative"] | None = None,
) -> GivenTruth:
    """Read true labels and true boxes that the user gives in files or in memory, for each target.

    `truth` is a file of labels (CSV with ``image_id`` and ``label``), a file or folder of true
    boxes, or labels in memory as an array, a Series or a frame. `boxes` is a table with the columns
    ``image_id,x1,y1,x2,y2`` in px of the original image; `patients` has ``image_id,patient_id``, or
    values in the order of labels in memory. `columns` of the CSV file are texts ROLE=COLUMN, such
    as ``label=Finding``; for a frame `label` names one. `target_names` may define targets as
    NAME=FINDING,FINDING for labels in a file. `uncertain` None leaves out test images of uncertain
    label. Raises InputError if an input is malformed, or there is no such target.
    """
    if isinstance(truth, Path):
        return _of_file(truth, boxes, patients, columns, target_names, uncertain)
    from cxr_compare.evaluation.boxes.read_boxes import is_coco, is_detector_output
    from cxr_compare.evaluation.sources.from_frames import truth_from_values

    if is_detector_output(truth):
        if boxes is not None:
            raise InputError("truth: holds true boxes itself; leave boxes out")
        if is_coco(truth):
            raise InputError("truth: a list of COCO annotations lacks the images; give the file")
        truth, boxes = [int(len(target["boxes"]) > 0) for target in truth], truth
    labelled, order = truth_from_values(
        truth, boxes=boxes, patients=patients, label=label, uncertain=uncertain
    )
    for name in target_names or ():
        if name not in (labelled.finding, "all"):
            raise InputError(
                f"--target {name}: there is no such target; "
                f"{nearest_name(name, [labelled.finding], f'truth is of {labelled.finding!r}')}"
            )
    truths = {labelled.finding: labelled}
    return GivenTruth(truths, KnownImages.of_truth(labelled), truths.__getitem__, order)


def _of_file(
    truth: Path,
    boxes: Any,
    patients: Any,
    columns: tuple[str, ...],
    target_names: list[str] | None,
    uncertain: Literal["positive", "negative"] | None,
) -> GivenTruth:
    # Readers of label files load much that values in memory do not need.
    from cxr_compare.data_prep.contracts.finding_names import Target
    from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
    from cxr_compare.evaluation.sources.truth_files import truth_set
    from cxr_compare.scripts.targets import chosen_targets, without_definitions

    if not truth.exists():
        raise InputError(f"{truth}: no such file or folder")
    further = [value for value in (boxes, patients) if value is not None]
    if any(not isinstance(value, Path) for value in further):
        raise InputError("compare: with truth in a file, boxes and patients are files, too")
    defined = dict(read_target(text) for text in target_names or () if "=" in text)
    recognised: list[str] = []
    try:
        dataset = truth_set(truth, patients, recognised.append, boxes, columns, defined)
    except InputError:
        for line in recognised:  # where nothing is refused, a note names the columns
            console.say(line)
        raise

    def of_finding(finding: str) -> LabelledImages:
        return LabelledSplit(dataset, Target(finding, (finding,), finding)).truth

    try:
        targets = chosen_targets(dataset, without_definitions(target_names))
    except InputError as error:  # the cautions of reading may name the cause
        cautions = [note for note in dataset.info.notes if note.startswith(WARNING)]
        reasons = [caution.removeprefix(WARNING) for caution in cautions]
        raise InputError(". ".join([str(error), *reasons])) from None
    splits = {
        target.name: LabelledSplit(dataset, target, uncertain=uncertain) for target in targets
    }
    return GivenTruth(
        {name: split.truth_with_facts for name, split in splits.items()},
        KnownImages.of_data_set(dataset),
        of_finding,
        coco=truth if truth.suffix.lower() == ".json" else None,
    )


def refuse_shared_patients(ground_truth: LabelledImages, table: Any, *, allowed: bool) -> None:
    """Refuse labels in which a patient of test images has images in another role, too."""
    shared = ground_truth.shared_patients()
    if allowed or shared.empty:
        return
    names = {"val": "validation", "train": "training"}
    counts = " and ".join(
        f"{counted(count, 'patient', 'have')} images in test and {names[str(role)]}"
        for role, count in shared["role"].value_counts().items()
    )
    first = shared["patient_id"].iloc[0]
    raise InputError(
        f"{_caption(table)}: {counts}, such as '{first}'; give each patient one role, or say "
        "--allow-shared-patients (the figures are then too good for new patients)"
    )


def _caption(table: Any) -> str:
    return str(table) if isinstance(table, Path) else values_caption(table)


@dataclass(frozen=True)
class GivenPredictions:
    """Predictions of one model, as they were read from a file or from memory.

    `caption` is the name of the file, or a description of the values such as ``<list of 2>``.
    `read` are scores or boxes, checked against the images of the truth; or predictions that were
    joined in memory.
    """

    caption: str
    read: System | Predictions

    @property
    def content_id(self) -> str:
        """Digest of the predictions."""
        if isinstance(self.read, System):
            return str(self.read.facts.inference_id)
        return str(self.read.info.inference_id)

    @property
    def findings(self) -> set[str]:
        """Findings that the rows are about; empty if unknown."""
        if not isinstance(self.read, System):
            return set(self.read.info.findings)
        return {*self.read.scores["finding"], *self.read.boxes["finding"]}

    def of_target(self, truth: LabelledImages) -> System:
        """Return the predictions of the findings of a target."""
        if isinstance(self.read, System):
            return self.read.of_findings(truth.findings)
        return _system(self.read, truth)

    def predictions(self, truth: LabelledImages) -> Predictions:
        """Return the predictions with the record and the tables of a predictions folder."""
        from cxr_compare.data_prep.store.prediction_info import MadeOn
        from cxr_compare.evaluation.sources.import_folder import as_predictions

        if not isinstance(self.read, System):
            return self.read
        content_id = f"truth-{truth_digest(truth)}"
        made_on = MadeOn(name=truth.title, content_id=content_id, split=truth.split)
        return as_predictions(self.read, made_on, self.caption)


def _system(predictions: Predictions, truth: LabelledImages) -> System:
    """Return a system of predictions in memory, such as those of a joint system."""
    from cxr_compare.data_prep.contracts.finding_names import Target
    from cxr_compare.evaluation.sources.read_predictions import read_system
    from cxr_compare.evaluation.sources.stored_predictions import record_of

    require_members(predictions.images["image_id"], truth.images, predictions.folder)
    target = Target(truth.finding, truth.findings, truth.shown_name)
    system = read_system(predictions, target)
    record = {**record_of(predictions), "trained_on": "unknown"}
    return replace(system, facts=replace(system.facts, record=record))


def open_given_systems(
    systems: Sequence[GivenSystem],
    given: GivenTruth,
    columns: ResultColumns | None = None,
    scales: Mapping[str, float] | None = None,
) -> dict[str, list[GivenPredictions]]:
    """Read files and values in memory with the predictions of systems.

    Each training seed of a system has its file or values. `scales` has the factor from the px of
    the boxes of a system to px of the original image. Raises InputError if a file is malformed, a
    detector's file holds no box, or two systems have one name.
    """
    names = [_system_name(system, number) for number, system in enumerate(systems, start=1)]
    for name in scales or ():
        if name not in names:
            near = nearest_name(name, names, f"the systems are {', '.join(names)}")
            raise InputError(f"--scale {name}: there is no such system; {near}")
    if columns is not None:
        columns.require_known(names, [path for system in systems for path in system.paths])
    opened: dict[str, list[GivenPredictions]] = {}
    for name, system in zip(names, systems, strict=True):
        scale = (scales or {}).get(name)
        if name in opened:
            other = systems[names.index(name)]
            raise same_name(name, other.members[0], system.members[0])
        opened[name] = []
        for member in system.members:
            read = _read_member(member, name, given, columns, scale)
            if read.kind == "boxes" and read.boxes.empty:
                raise InputError(f"{member}: holds no box; give results that have some")
            caption = member.name if isinstance(member, Path) else str(member)
            opened[name].append(GivenPredictions(caption, read))
    return opened


def _system_name(system: GivenSystem, number: int) -> str:
    """Return the name of a system: the given one, that of its first file, or its number."""
    first = system.members[0]
    return system.name or (first.stem if isinstance(first, Path) else f"system {number}")


def _read_member(
    member: Path | Predictions | GivenValues,
    name: str,
    given: GivenTruth,
    columns: ResultColumns | None,
    scale: float | None,
) -> System | Predictions:
    from cxr_compare.evaluation.boxes.reading_advice import advice_for_result_file
    from cxr_compare.evaluation.sources.from_frames import predictions_from_values
    from cxr_compare.evaluation.sources.import_options import ImportOptions
    from cxr_compare.evaluation.sources.imported import read_rows

    if isinstance(member, GivenValues):
        own_columns = None if columns is None else columns.names(name)
        return predictions_from_values(
            name, member.value, given.known, given.order, columns=own_columns, scale=scale
        )
    if not isinstance(member, Path):  # predictions in memory
        return member
    usual = None
    if len(given.truths) == 1:  # rows without a finding are about the only target
        ((target, truth),) = given.truths.items()
        usual = target if target in truth.findings else truth.findings[0]
    options = ImportOptions(
        name,
        coco_truth=given.coco,
        usual_finding=usual,
        scale=scale,
        advice=advice_for_result_file(name, names_columns=columns is not None),
    )
    if columns is not None:
        options = replace(options, columns=columns.names(name, member))
    return read_rows(member, given.known, options)


def truth_digest(truth: LabelledImages) -> str:
    """Return a digest of images, labels, roles, patients, groups and true boxes."""
    ids = truth.images["image_id"]
    images = truth.images.assign(
        label=truth.label.reindex(ids).to_numpy(),
        role=truth.roles.reindex(ids).to_numpy(),
        is_boxed=is_member(ids, truth.boxes_trusted),
        is_uncertain=is_member(ids, truth.uncertain),
    )
    boxes = truth.true_boxes[["image_id", *EDGES]]
    return frame_digest(images, images.columns) + frame_digest(boxes, boxes.columns)


@dataclass(frozen=True)
class FromTruth:
    """Systems to compare on one target, and its ground truth, which no data set holds.

    `of_finding` returns the ground truth of one finding of the target. `pixels` is None without
    image files.
    """

    systems: Mapping[str, Sequence[GivenPredictions]]
    truth: LabelledImages
    of_finding: Callable[[str], LabelledImages]
    pixels: Pixels | None = None

    def record(self) -> dict[str, Any]:
        """Return what a report records of its systems and of its data."""
        systems = {
            name: [{"name": one.caption, "inference_id": one.content_id} for one in members]
            for name, members in self.systems.items()
        }
        return {"systems": systems, "data": {"truth": truth_digest(self.truth)}}

    def findings_of_systems(self) -> dict[str, set[str]]:
        """Return the findings that each system says something about; empty if unknown."""
        return {name: members[0].findings for name, members in self.systems.items()}

    def files(self, out: Path) -> list[Path]:
        """Return no files: what was read is recorded by its digest."""
        del out
        return []

    def read(
        self, folder: Path, *, images: Images, joined_by: str | None = None
    ) -> EligibleSystems:
        """Select the test images on which all systems are compared.

        The options are those of `FromDataSet.read`; `folder` is not used. Raises InputError if the
        systems ran on different test images, or cannot be joined.
        """
        del folder
        systems: dict[str, Sequence[System]] = {
            name: [one.of_target(self.truth) for one in members]
            for name, members in self.systems.items()
        }
        if joined_by is not None:
            name, members = self._joint(joined_by)
            systems[name] = members
        return eligible_in_memory(systems, self.truth, images)

    def _joint(self, joined_by: str) -> tuple[str, list[System]]:
        from cxr_compare.evaluation.sources.ensemble import join_both, joined_predictions

        name, seeds = seeds_to_join(self.systems)
        console.say(f"Joining {name}")
        truths = {finding: self.of_finding(finding) for finding in self.truth.findings}
        sizes = self.truth.images.reindex(columns=["image_id", "width", "height"])
        joint = []
        for of_seed in seeds:
            members = [one.predictions(self.truth) for one in of_seed]
            joined = join_both(members, truths, sizes, boxes_by=joined_by)
            joint.append(_system(joined_predictions(members, joined, name), self.truth))
        return name, joint
