"""Format `dicom`: a folder tree of DICOM files, with the labels in a table.

The headers describe the files. The id of an image is its SOPInstanceUID and that of a patient is
its PatientID, so the data set contains identifiers unless they are replaced
(`data_prep.contracts.pseudonyms`). No message quotes a cell of the label table, because a column
may contain names of patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.images.dicom_header import has_preamble
from cxr_compare.data_prep.images.radiograph_check import DicomFile, check_dicom_file
from cxr_compare.data_prep.sources.image_files import files_below
from cxr_compare.data_prep.sources.label_rows import table_statements
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.patients import named_patients, warn_of_unknown_patients
from cxr_compare.data_prep.sources.source_tables import Format, ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import Source, build
from cxr_compare.data_prep.sources.table_roles import read_tables, recognise_tables
from cxr_compare.data_prep.work.map_images import map_images

_KEYS = ("file", "study", "patient")  # roles by which a table may name images, the finest first
_FIRST_FILES = 500  # number of files that detection opens
_FEW_FILES = 5000  # a header takes 0.6 ms, starting worker processes some seconds
_SAME_PATIENT_EVERYWHERE = 0.5
_ENOUGH_TO_TELL = 20


def read_headers(root: Path, skip: Container[str] = ()) -> Iterator[DicomFile]:
    """Read the DICOM header of every file below a folder, in the order of the paths.

    Hidden files and those in `skip` (paths relative to `root`) are not read. If a file cannot be
    used, for example because it is no frontal chest radiograph, the field ``reason`` says why.
    """
    paths = [path for path in sorted(files_below(root)) if path not in skip]
    workers = cpu_count() if len(paths) > _FEW_FILES else 1
    crashed = "reading its header crashed or ran out of memory"
    tasks = [(root, path) for path in paths]
    return map_images(
        _look_at_file,
        tasks,
        workers,
        on_crash=lambda task: DicomFile(task[1], crashed),
        together=64,  # sending a file alone takes a third of the time for reading its header
    )


def _look_at_file(task: tuple[Path, str]) -> DicomFile:
    return check_dicom_file(*task)


def _read_dicom_tree(root: Path, options: ReadOptions, show: Show) -> SourceTables:
    """Read the headers of every file below a folder; no pixel is decoded."""
    source = Source("dicom", root, options, show)
    tables = []
    if options.labels:
        texts = read_tables(source, options.labels)
        tables = recognise_tables(texts, source, keys=_KEYS, names_people=True)
    inside = [path.resolve() for path in options.labels]
    inside = [path for path in inside if path.is_relative_to(root.resolve())]
    skip = {path.relative_to(root.resolve()).as_posix() for path in inside}
    headers = list(read_headers(root, skip))
    first = {file.image_id: file for file in reversed(headers) if file.reason is None}
    copied = "its SOPInstanceUID is that of an earlier file"
    headers = [
        file if file.reason or file is first[file.image_id] else DicomFile(file.path, copied)
        for file in headers
    ]
    usable = [file for file in headers if file.reason is None]
    if not usable:
        raise InputError(
            f"{root}: no chest radiograph among {counted(len(headers), 'file')}; "
            f"{_reasons(headers)}"
        )
    files = pd.DataFrame(usable).drop(columns="reason")
    source.notes += _notes(headers, files)
    source.images = _images(source, files)
    if tables:
        _match_rows(source, tables, files)
        table_statements(source, tables)
        made = build(source, coverage="localised")
    else:
        source.notes.append(
            "No image has a label, so nothing can be trained or evaluated; give a table of "
            "labels before the folder"
        )
        made = build(source)
    return replace(made, excluded=pd.concat([_unusable(headers), made.excluded]))


def _unusable(headers: Sequence[DicomFile]) -> pd.DataFrame:
    """Return the table of the files that are left out because of their headers."""
    reasons = {file.path: file.reason for file in headers if file.reason}
    if not reasons:
        return empty_table("excluded")
    columns = {"path": list(reasons), "stage": "header", "reason": list(reasons.values())}
    return pd.DataFrame(columns).reindex(columns=empty_table("excluded").columns)


def _match_rows(source: Source, tables: Sequence[LabelTable], files: pd.DataFrame) -> None:
    """Match the rows of label tables to the images that they name."""
    for table in tables:
        key = next(key for key in _KEYS if table.has(key))
        cells = table.cells(key)
        names = _names(files, key)
        if key == "file":
            cells = _relative(cells, source.root)
        named = pd.DataFrame({"key": cells, "row": range(len(cells))})
        matches = named.merge(names, on="key").sort_values("row", kind="stable")
        if matches.empty:
            raise InputError(
                f"{table.path}: none of its {cells.nunique()} {cells.name} is that of an image in "
                f"{source.root}; check the column, or name the images in another one (--columns "
                "file=COLUMN)"
            )
        missing = int((~is_member(cells, names["key"])).sum())
        if missing:
            source.notes.append(
                f"{table.path.name}: {missing} of {len(cells)} rows name an image that is missing "
                "or was left out"
            )
        table.keep_matches(matches)


def _names(files: pd.DataFrame, key: str) -> pd.DataFrame:
    """List every name of each image for a kind of key: columns ``key, image_id, path``."""
    suffix = r"\.[A-Za-z][A-Za-z0-9]{0,5}$"  # not the last number of a UID
    bare = files["path"].str.replace(suffix, "", regex=True)
    names, stems = (paths.str.rsplit("/", n=1).str[-1] for paths in (files["path"], bare))
    names_by_key = {
        "file": [files["path"], bare, names, stems, files["image_id"]],
        "study": [files["study"], files["accession_number"]],
        "patient": [files["patient_id"]],
    }[key]
    pairs = [files[["image_id", "path"]].assign(key=column) for column in names_by_key]
    unique = pd.concat(pairs, ignore_index=True).astype(TEXT).drop_duplicates()
    return unique[unique["key"] != ""].reset_index(drop=True)


def _relative(keys: pd.Series, root: Path) -> pd.Series:
    """Write paths with ``/`` and relative to the root."""
    slashed = keys.str.replace("\\", "/", regex=False).str.removeprefix("./")
    for folder in dict.fromkeys((root, root.resolve())):
        slashed = slashed.str.removeprefix(folder.as_posix().rstrip("/") + "/")
    return slashed


def _images(source: Source, files: pd.DataFrame) -> pd.DataFrame:
    """Build the ``images`` table, with the ids of image, patient and study."""
    study = files["study"].where(files["study"] != "")
    issuers = [
        patient.removesuffix(plain_id)
        for patient, plain_id in zip(files["patient"], files["patient_id"], strict=True)
    ]
    named = pd.concat(
        named_patients(of_issuer["patient_id"], f"{source.root}: PatientID", of_issuer["path"])
        for _, of_issuer in files.groupby(issuers)
    )
    stated = files["patient"].where(named.reindex(files.index).notna()).astype(TEXT)
    is_known = stated.notna()
    if not is_known.all():
        n_unknown = counted(int((~is_known).sum()), "image", "carry")
        warn_of_unknown_patients(source, f"{n_unknown} no PatientID, so each of their studies")
    assumed = ("study-" + study).fillna("image-" + files["image_id"])
    most = stated.value_counts()
    share = int(most.iloc[0]) / len(files) if len(most) else 0.0
    if share > _SAME_PATIENT_EVERYWHERE and len(files) >= _ENOUGH_TO_TELL:
        source.notes.append(
            f"WARNING: one PatientID is on {share:.0%} of the images. If an anonymiser gave the "
            "same PatientID to all, no split by patient can be drawn"
        )
    return pd.DataFrame(
        {
            "image_id": files["image_id"],
            "patient_id": "dicom:" + stated.fillna(assumed).astype(TEXT),
            "patient_id_source": is_known.map({True: "given", False: "assumed_image"}),
            "study_id": study,
            "source": "dicom",
            "path": files["path"],
            "view": files["view"].astype(TEXT),
            "sex": files["sex"].astype(TEXT),
            "age_years": files["age_years"].astype("float64"),
        }
    )


def _notes(seen: list[DicomFile], files: pd.DataFrame) -> list[str]:
    notes = [f"{len(files)} of {counted(len(seen), 'file')} are taken as chest radiographs"]
    if len(files) < len(seen):
        notes[0] += f"; the others were left out: {_reasons(seen)}"
    for column, what in (("view", "view"), ("states_chest", "body part")):
        unknown = files[column].isna() | (files[column] == False)  # noqa: E712 - bool or text
        if unknown.any():
            assumed = "frontal" if what == "view" else "chests"
            notes.append(
                f"{counted(int(unknown.sum()), 'image', 'do')} not state the {what}; such images "
                f"are taken as {assumed}; look at them"
            )
    return notes


def _reasons(seen: list[DicomFile]) -> str:
    counts = Counter(file.reason for file in seen if file.reason)
    listed = [f"{count} x {reason}" for reason, count in counts.most_common(8)]
    return ", ".join(listed) + (", ..." if len(counts) > len(listed) else "")


def _holds_dicom(folder: Path) -> bool:
    """Return True if one of the first files below a folder is DICOM by its content."""
    files = (path for path in islice(folder.rglob("*"), _FIRST_FILES) if path.is_file())
    return any(map(has_preamble, files))


DICOM = Format(
    name="dicom",
    title="any tree of DICOM files",
    folder="DICOM files of any name; a table of labels is given before the folder",
    detect=_holds_dicom,
    read=_read_dicom_tree,
    options=("labels", "sheet", "columns", "reference", "class_names"),
)
