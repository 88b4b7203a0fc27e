"""Reader of any tree of DICOM files, with the labels in a table beside it.

What each file is, its header tells: names, extensions and SOP classes play no part. The image's id
is its SOPInstanceUID and the patient's is PatientID, so the folder that comes of it holds
identifiers unless they are replaced (`data_prep.contracts.pseudonyms`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member
from data_prep.formats.common import one_target_each
from data_prep.formats.dicom_labels import find_rows, read_label_table
from data_prep.formats.dicom_tree import DicomFile, look_at_files
from data_prep.formats.folder_marks import require_folder
from data_prep.formats.label_rules import (
    coverage_of_boxed_findings,
    rule_out_contradictions,
    with_boxed_findings,
)
from data_prep.formats.source import Exclusions, SourceTables, no_roles

_SAME_PATIENT_EVERYWHERE = 0.5
_ENOUGH_TO_TELL = 20


def read_dicom_tree(source: Path, labels: Path | None = None) -> SourceTables:
    """Read the headers of every file below a folder; no pixel is decoded.

    Args:
        source: The folder.
        labels: Label table, as for `data_prep.formats.dicom_labels.read_label_table`; None for none.

    Returns:
        The files that are or may be frontal radiographs of the chest; the others are in
        ``excluded`` at stage ``header``, with the reason. A target a finding.

    Raises:
        InputError: The folder is missing or empty, no file is a radiograph, or the label table is
            malformed or names none of them.
    """
    require_folder(source)
    table = read_label_table(labels) if labels else None
    skip = frozenset(_inside(labels, source))
    seen = _without_second_copies(list(look_at_files(source, skip)))
    taken = [file for file in seen if file.reason is None]
    if not taken:
        raise InputError(f"{source}: no chest radiograph among {len(seen)} files; {_reasons(seen)}")
    files = pd.DataFrame(taken).drop(columns="reason")
    notes = _notes(seen, files)
    left_out = pd.DataFrame(
        {
            "path": [file.path for file in seen if file.reason],
            "stage": "header",
            "reason": [file.reason for file in seen if file.reason],
        }
    ).astype("str")
    images = _images(files, notes)
    out = Exclusions("labels")
    findings, boxes = empty_table("findings"), empty_table("boxes")
    if table is None:
        notes.append("no --labels: no image has a label, so nothing can be trained or judged")
    else:
        stated, boxed = find_rows(table, files, source, notes)
        rule_out_contradictions(out, stated, boxed)
        boxes = out.keep(boxed).assign(reader=REFERENCE_READER)
        stated = out.keep(stated).assign(reader=REFERENCE_READER, origin="consensus")
        findings = with_boxed_findings(stated.astype("str"), boxes)
        images = out.keep(images)
        if images.empty:
            raise InputError(f"{labels}: rules out every image; {next(iter(out.reasons.values()))}")
        unknown = int((~is_member(images["image_id"], findings["image_id"])).sum())
        if unknown:
            notes.append(f"{unknown} images have no label: unknown, not negative")
    paths = dict(zip(files["image_id"], files["path"], strict=True))
    return SourceTables(
        format="dicom",
        root=source,
        images=images,
        findings=findings,
        boxes=boxes,
        box_coverage=coverage_of_boxed_findings(findings, boxes)
        if len(findings)
        else empty_table("box_coverage"),
        excluded=pd.concat([left_out, out.table(paths)], ignore_index=True),
        targets=one_target_each(findings["finding"]),
        split=no_roles(),
        notes=tuple(notes),
    )


def _inside(labels: Path | None, source: Path) -> list[str]:
    """The label table's own path in the tree, if it lies there."""
    if labels is None or not labels.resolve().is_relative_to(source.resolve()):
        return []
    return [labels.resolve().relative_to(source.resolve()).as_posix()]


def _without_second_copies(seen: list[DicomFile]) -> list[DicomFile]:
    """Leave out files whose SOPInstanceUID an earlier file has: it names one picture."""
    first: dict[str, str] = {}
    kept = []
    for file in seen:
        if file.reason is None and first.setdefault(file.image_id, file.path) != file.path:
            file = DicomFile(file.path, "its SOPInstanceUID is that of an earlier file")
        kept.append(file)
    return kept


def _images(files: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The ``images`` table; of the header's names it holds image, patient and study alone."""
    given = files["patient"] != ""
    study = files["study"] != ""
    assumed = ("study-" + files["study"]).where(study, "image-" + files["image_id"])
    patient = files["patient"].where(given, assumed)
    if not given.all():
        notes.append(
            f"WARNING: {int((~given).sum())} images carry no PatientID, so each of their studies "
            "counts as a patient of its own: the same person may be in training and test, and "
            "figures come out too good"
        )
    most = patient[given].value_counts()
    share = int(most.iloc[0]) / len(files) if len(most) else 0.0
    if share > _SAME_PATIENT_EVERYWHERE and len(files) >= _ENOUGH_TO_TELL:
        notes.append(
            f"WARNING: one PatientID is on {share:.0%} of the images: where an anonymiser gave all "
            "the same, no split by patient can be drawn"
        )
    return pd.DataFrame(
        {
            "image_id": files["image_id"],
            "patient_id": "dicom:" + patient,
            "patient_id_source": given.map({True: "given", False: "assumed_image"}).astype("str"),
            "study_id": files["study"].where(study),
            "source": "dicom",
            "path": files["path"],
            "view": files["view"].astype("str"),
            "sex": files["sex"].astype("str"),
            "age_years": files["age_years"].astype("float64"),
        }
    )


def _notes(seen: list[DicomFile], files: pd.DataFrame) -> list[str]:
    notes = [f"{len(files)} of {len(seen)} files are taken as chest radiographs"]
    if len(files) < len(seen):
        notes[0] += f"; left out: {_reasons(seen)}"
    for column, what in (("view", "view"), ("states_chest", "body part")):
        unknown = files[column].isna() | (files[column] == False)  # noqa: E712 - bool or text
        if unknown.any():
            notes.append(
                f"{int(unknown.sum())} images do not state their {what}: taken as "
                + ("frontal" if what == "view" else "chests")
                + "; look at them"
            )
    return notes


def _reasons(seen: list[DicomFile]) -> str:
    counts = Counter(file.reason for file in seen if file.reason)
    listed = [f"{count} x {reason}" for reason, count in counts.most_common(8)]
    return ", ".join(listed) + (", ..." if len(counts) > len(listed) else "")
