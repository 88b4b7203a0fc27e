"""Format of any tree of DICOM files, with the labels in a table beside it.

What each file is, its header tells: names, extensions and SOP classes play no part. The image's id
is its SOPInstanceUID and the patient's is PatientID, so the folder that comes of it holds
identifiers unless they are replaced (`data_prep.contracts.pseudonyms`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.mirror import borrowed
from data_prep.contracts.object_store import StoreError
from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member
from data_prep.contracts.words import counted
from data_prep.contracts.workers import cpu_count, map_rows
from data_prep.formats.dicom_labels import find_rows, read_label_table
from data_prep.formats.label_files import (
    coverage_of_boxed_findings,
    rule_out_contradictions,
    with_boxed_findings,
)
from data_prep.formats.source import (
    Format,
    ReadOptions,
    SourceBuilder,
    SourceTables,
    files_below,
    one_target_each,
    require_folder,
)
from data_prep.images.decoded_image import MAX_FILE_BYTES
from data_prep.images.dicom_header import has_preamble
from data_prep.images.radiograph import DicomFile, look_at_file

_FIRST_FILES = 500  # that detection opens
_FEW_FILES = 5000  # a header takes 0.6 ms, starting worker processes some seconds


def _look_at_files(root: Path, skip: frozenset[str] = frozenset()) -> Iterator[DicomFile]:
    """Look at every file below a folder, whatever its name; hidden ones are passed over."""
    paths = [path for path in sorted(files_below(root)) if path not in skip]
    workers = cpu_count() if len(paths) > _FEW_FILES else 1
    return map_rows(_look_at_file, [(root, path) for path in paths], workers=workers, lost=_lost)


def _look_at_file(task: tuple[Path, str]) -> DicomFile:
    root, path = task
    try:
        with borrowed(root / path, MAX_FILE_BYTES) as file:
            return look_at_file(task, file)
    except StoreError:
        raise
    except InputError as error:
        return DicomFile(path, str(error).removeprefix(f"{root / path}: "))


def _lost(task: tuple[Path, str]) -> DicomFile:
    return DicomFile(task[1], "reading its header crashed or ran out of memory")


_SAME_PATIENT_EVERYWHERE = 0.5
_ENOUGH_TO_TELL = 20


def _read_dicom_tree(source: Path, options: ReadOptions) -> SourceTables:
    """Read the headers of every file below a folder; no pixel is decoded."""
    require_folder(source)
    labels = options.labels
    table = read_label_table(labels) if labels else None
    skip = frozenset(_inside(labels, source))
    seen = _without_second_copies(list(_look_at_files(source, skip)))
    taken = [file for file in seen if file.reason is None]
    if not taken:
        raise InputError(
            f"{source}: no chest radiograph among {counted(len(seen), 'file')}; {_reasons(seen)}"
        )
    files = pd.DataFrame(taken).drop(columns="reason")
    builder = SourceBuilder("dicom", source, notes=_notes(seen, files))
    notes, out = builder.notes, builder.out
    left_out = pd.DataFrame(
        {
            "path": [file.path for file in seen if file.reason],
            "stage": "header",
            "reason": [file.reason for file in seen if file.reason],
        }
    ).astype("str")
    images = _images(files, builder)
    findings, boxed = empty_table("findings"), {}
    if table is None:
        notes.append("no --labels: no image has a label, so nothing can be trained or judged")
    else:
        stated, boxes = find_rows(table, files, source, notes)
        rule_out_contradictions(builder, stated, boxes)
        boxes = out.keep(boxes).assign(reader=REFERENCE_READER)
        stated = out.keep(stated).assign(reader=REFERENCE_READER, origin="consensus")
        findings = with_boxed_findings(stated.astype("str"), boxes)
        images = out.keep(images)
        if images.empty:
            raise InputError(f"{labels}: rules out every image; {next(iter(out.reasons.values()))}")
        unknown = int((~is_member(images["image_id"], findings["image_id"])).sum())
        if unknown:
            notes.append(f"{counted(unknown, 'image', 'have')} no label: unknown, not negative")
        boxed = {"boxes": boxes, "box_coverage": coverage_of_boxed_findings(findings, boxes)}
    return builder.tables(
        images,
        findings,
        one_target_each(findings["finding"]),
        paths=dict(zip(files["image_id"], files["path"], strict=True)),
        excluded=left_out,
        **boxed,
    )


def _inside(labels: Path | None, source: Path) -> list[str]:
    """The label table's own path in the tree, if it lies there."""
    if labels is None or not labels.resolve().is_relative_to(source.resolve()):
        return []
    return [labels.resolve().relative_to(source.resolve()).as_posix()]


def _without_second_copies(seen: list[DicomFile]) -> list[DicomFile]:
    """Leave out files whose SOPInstanceUID an earlier file has: it names one image."""
    first: dict[str, str] = {}
    kept = []
    for file in seen:
        if file.reason is None and first.setdefault(file.image_id, file.path) != file.path:
            file = DicomFile(file.path, "its SOPInstanceUID is that of an earlier file")
        kept.append(file)
    return kept


def _images(files: pd.DataFrame, builder: SourceBuilder) -> pd.DataFrame:
    """The ``images`` table; of the header's names it holds image, patient and study alone."""
    given = files["patient"] != ""
    study = files["study"] != ""
    assumed = ("study-" + files["study"]).where(study, "image-" + files["image_id"])
    patient = files["patient"].where(given, assumed)
    if not given.all():
        builder.warn_of_own_patients(
            f"{counted(int((~given).sum()), 'image', 'carry')} no PatientID",
            which="each of their studies",
        )
    most = patient[given].value_counts()
    share = int(most.iloc[0]) / len(files) if len(most) else 0.0
    if share > _SAME_PATIENT_EVERYWHERE and len(files) >= _ENOUGH_TO_TELL:
        builder.notes.append(
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
    notes = [f"{len(files)} of {counted(len(seen), 'file')} are taken as chest radiographs"]
    if len(files) < len(seen):
        notes[0] += f"; left out: {_reasons(seen)}"
    for column, what in (("view", "view"), ("states_chest", "body part")):
        unknown = files[column].isna() | (files[column] == False)  # noqa: E712 - bool or text
        if unknown.any():
            taken = "frontal" if what == "view" else "chests"
            notes.append(
                f"{counted(int(unknown.sum()), 'image', 'do')} not state the {what}: taken as "
                f"{taken}; look at them"
            )
    return notes


def _reasons(seen: list[DicomFile]) -> str:
    counts = Counter(file.reason for file in seen if file.reason)
    listed = [f"{count} x {reason}" for reason, count in counts.most_common(8)]
    return ", ".join(listed) + (", ..." if len(counts) > len(listed) else "")


def _holds_dicom(folder: Path) -> bool:
    """Whether one of the first files below a folder is DICOM by its content."""
    files = (path for path in islice(folder.rglob("*"), _FIRST_FILES) if path.is_file())
    return any(map(has_preamble, files))


DICOM = Format(
    name="dicom",
    title="any tree of DICOM files",
    folder="DICOM files, whatever their names, with a table of labels given by `--labels`",
    detect=_holds_dicom,
    read=_read_dicom_tree,
    options=("labels",),
)
