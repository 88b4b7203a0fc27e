"""`cxr prepare`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from cxr_compare.commands import console
from cxr_compare.commands.options import (
    AnyPath,
    AnyPaths,
    AnyTargets,
    Engine,
    Sides,
    Texts,
    comma_parts,
    require_engine,
    roles_of,
)
from cxr_compare.data_prep.base.errors import InputError, as_typed, require_extra
from cxr_compare.data_prep.base.files import refuse_special, require_there
from cxr_compare.data_prep.base.folders import folder_kind

if TYPE_CHECKING:
    from cxr_compare.data_prep.dataset import DataSet
else:
    DataSet = Any  # the help needs no pandas

_FIRST, _READ, _MADE, _IDS, _WORK = (
    Parameter(group=Group(title, sort_key=place))
    for place, title in enumerate(
        (
            "Often needed",
            "How the source is read",
            "What is made of it",
            "Ids of patients and images",
            "How it works",
        )
    )
)
_FORM = "cxr prepare [LABELS ...] IMAGES OUT"


def prepare(
    *paths: Annotated[
        AnyPaths,
        Parameter(help="Labels, images and the folder to make. Labels may lie among the images."),
    ],
    format: Annotated[str | None, _READ] = None,  # noqa: A002 - the name of the option
    name: Annotated[str | None, _MADE] = None,
    size: Annotated[Sides | None, _MADE] = None,
    target: Annotated[AnyTargets | None, _MADE] = None,
    split: Annotated[str | None, _MADE] = None,
    val: Annotated[float, _MADE] = 0.15,
    test: Annotated[float, _MADE] = 0.2,
    reference: Annotated[str, _READ] = "majority",
    sheet: Annotated[str | None, _READ] = None,
    columns: Annotated[Texts | None, _FIRST] = None,
    class_names: Annotated[Texts | None, _READ] = None,
    patient_pattern: Annotated[str | None, _FIRST] = None,
    exclude: Annotated[AnyPath | None, _READ] = None,
    id_key: Annotated[AnyPath | None, _IDS] = None,
    keep_ids: Annotated[bool, _IDS] = False,
    without_pictures: Annotated[bool, _WORK] = False,
    workers: Annotated[int | None, _WORK] = None,
    engine: Annotated[Engine, _WORK] = "local",
) -> DataSet:
    """Make a data set of images and labels, with a split by patient and an audit.

    Files are labels, one folder holds the images, and the last word is the folder to make. A call
    that was stopped goes on with the same command.

    Args:
        format: Format of the source: rsna, nih, vindr, kermany, covid, voc, yolo, coco, labelme,
            folders, dicom or table. Without it, the only one that the folder fits.
        name: Name of the data set in reports; without it "this data set".
        size: Side of squares to store now, px; may be repeated.
        target: What is evaluated, as NAME=FINDING,FINDING, positive where any of the findings is;
            may be repeated. Without it each finding is a target.
        split: Roles in the data set: official for the publisher's, or a table with the role
            (train, val, test) of each image or patient. Without it they are drawn by patient.
        val: Share of the patients for validation.
        test: Share of the patients for the test.
        reference: Label of an image that several have read: majority, any, all, or reader:NAME.
        sheet: Sheet to read, where a spreadsheet has several.
        columns: Roles of columns of a table as ROLE=COLUMN, with commas, such as
            label=Finding,xmin=left; means:TEXT=normal says what a text means. For any format,
            box_form=xyxy (or xywh, cxcywh) and box_unit=share (or px, percent, thousandth) say how
            its boxes are written.
        class_names: Names of numbered classes, in their order, with commas.
        patient_pattern: Regular expression that finds the patient in the name of an image file, or
            in its path below the folder if no name matches or it has a /.
        exclude: Table of images to leave out (image_id, reason), such as exclude.csv of cxr check.
        id_key: File with a secret key, by which ids and paths are replaced by hashes. It is made
            if it does not exist, and must lie outside the data set.
        keep_ids: Keep the ids of DICOM files, which then must name nobody.
        without_pictures: Show no X-ray on the page of the data set, data.html.
        workers: Processes that decode images, one a processor without it; 0 decodes in this one.
    """
    require_extra("prepare", "images")
    from cxr_compare.data_prep import prepare as preparing
    from cxr_compare.data_prep.base.provenance import cpu_count
    from cxr_compare.data_prep.new_set import Options
    from cxr_compare.data_prep.sources.source import ReadOptions
    from cxr_compare.data_prep.splits import SplitRule
    from cxr_compare.evaluation.inputs.file_facts import measure_shortcuts

    listed = (
        [argument] if isinstance(argument, str | os.PathLike) else argument for argument in paths
    )
    listed_paths = [Path(path) for argument in listed for path in argument]
    labels, folders, formats = _labels_and_folders(listed_paths)
    if workers is not None and workers < 0:
        raise InputError(f"{as_typed({'workers': workers})}: give 0 or more")
    require_engine(engine)
    options = Options(
        format=format,
        read=ReadOptions(
            reference=reference,
            labels=tuple(labels),
            sheet=sheet,
            columns=roles_of(columns),
            class_names=comma_parts(class_names),
            patient_pattern=patient_pattern,
        ),
        name=name,
        sizes=tuple(dict.fromkeys([size] if isinstance(size, int) else size or ())),
        targets=_targets(target or ()),
        rule=SplitRule(val=val, test=test),
        split=None if split is None else str(split),
        exclude=None if exclude is None else Path(exclude),
        id_key=None if id_key is None else Path(id_key),
        keep_ids=keep_ids,
        workers=cpu_count() if workers is None else workers,
        engine=engine,
        progress=console,
        measure_shortcuts=measure_shortcuts,
        pictures=not without_pictures,
    )
    source, folder = _source_and_out(folders, labels)
    _require_source(source)
    if format is None and formats:
        label_format, format_lines = (
            _format_beside(source, labels) if formats == ["table"] else (formats[0], ())
        )
        options = replace(options, format=label_format, said=format_lines)
    dataset = preparing.prepare(source, folder, options)
    return _shown(dataset, without_pictures=without_pictures)


def _shown(dataset: DataSet, *, without_pictures: bool) -> DataSet:
    """Return the data set, write its page if it lacks, and say what its audit found."""
    from cxr_compare.data_prep.audit import Audit
    from cxr_compare.data_prep.base.files import folder_lock
    from cxr_compare.data_prep.dataset import AUDIT, DATA_PAGE
    from cxr_compare.evaluation.report.data_page import write_data_page

    audit = Audit.read(dataset.folder / AUDIT)
    hides = without_pictures and dataset.info.pictures
    if hides or not (dataset.folder / DATA_PAGE).exists():
        with folder_lock(dataset.folder):
            write_data_page(dataset, audit, pictures=not without_pictures)
    for problem in audit.problems:
        console.say(f"check: {problem.line}")
        if problem.severity == "error" and problem.advice:
            console.say(f"    what to do: {problem.advice}")
    console.say(f"check: {audit.verdict}")
    return dataset


def _targets(
    targets_given: str | Iterable[str] | Mapping[str, Sequence[str]],
) -> dict[str, tuple[str, ...]]:
    """Read targets from texts NAME=FINDING,FINDING, or from Python by name."""
    if isinstance(targets_given, Mapping):
        return {name: tuple(findings) for name, findings in targets_given.items()}
    targets = {}
    for text in [targets_given] if isinstance(targets_given, str) else targets_given:
        name, _, members = text.partition("=")
        findings = comma_parts(members)
        if not name.strip() or not findings:
            raise InputError(f"{as_typed({'target': text})}: write NAME=FINDING,FINDING")
        targets[name.strip()] = findings
    return targets


def _labels_and_folders(paths: list[Path]) -> tuple[list[Path], list[Path], list[str]]:
    """Divide paths into files of labels and folders, and name the formats of these files."""
    named_last = paths[-1:]  # the folder to make, whatever its name
    kinds = {
        path: None if path in named_last and not path.is_file() else _label_format(path)
        for path in paths
    }
    labels = [path for path, kind in kinds.items() if kind is not None]
    # A table beside the files of an annotation tool adds to them.
    formats = sorted({kind for kind in kinds.values() if kind}, key=lambda kind: kind == "table")
    tools = [kind for kind in formats if kind != "table"]
    if len(tools) > 1:
        raise InputError(
            f"prepare: files of {' and '.join(tools)} are not read together; give those of one tool"
        )
    return labels, [path for path in paths if path not in labels], formats


def _label_format(path: Path) -> str | None:
    """Return the format of a file of labels; None for a folder."""
    from cxr_compare.data_prep.base.user_tables import is_table_file, refuse_other_kind
    from cxr_compare.data_prep.sources.registry import FORMATS, likely_format

    if path.is_dir():
        return None
    refuse_special(path)
    if not path.exists():
        if path.suffix.lower() in (".json", ".xml"):
            raise InputError(f"{path}: no such file")
        return "table" if is_table_file(path) else None
    refuse_other_kind(path)
    kind = likely_format(path)
    if kind is not None and not FORMATS[kind].takes_label_files:
        raise InputError(
            f"{path}: is a file of format {kind}; give the folder that holds it and the images, "
            "without this file"
        )
    if kind is None:
        raise InputError(
            f"{path}: is no file of labels that is known; export the labels as COCO, Pascal VOC "
            "or YOLO, or write a table"
        )
    return kind


def _source_and_out(folders: list[Path], labels: list[Path]) -> tuple[Path, Path]:
    """Tell the folder of the images from the folder to make."""
    if len(folders) == 2:
        return folders[0], folders[1]
    arguments = " ".join(map(str, [*labels, *folders]))
    if len(folders) < 2:
        hint = "; labels and scores without images are for cxr compare" if labels else ""
        raise InputError(f"prepare {arguments}: a folder is missing; write {_FORM}{hint}")
    from cxr_compare.data_prep.sources.registry import FORMATS, likely_format

    for path in folders[:-1]:
        kind = likely_format(path) if path.is_dir() else None
        if kind is not None and not FORMATS[kind].takes_label_files:
            raise InputError(
                f"{path}: holds label files (format {kind}), and {len(folders)} folders are given; "
                "put labels and images into one folder, and give that and the folder to make"
            )
    raise InputError(
        f"prepare: {len(folders)} folders are given; write {_FORM}; of several sets write one "
        "table of labels first"
    )


def _require_source(source: Path) -> None:
    published = "give the folder of images and labels as it was published"
    kind = folder_kind(source)
    require_there(source, f"; {published}")
    if kind is not None and kind.name not in ("data set", "phantom"):
        raise InputError(f"{source}: is {kind.with_article}; {published}")


def _format_beside(source: Path, tables: list[Path]) -> tuple[str, tuple[str, ...]]:
    """Return the format of a folder after tables, and the lines by which it is said."""
    from cxr_compare.data_prep.sources.registry import format_beside_tables

    kind = format_beside_tables(source)
    if kind == "table":
        return kind, ()
    line = "images: read as format dicom"
    if kind != "dicom":
        names = " and ".join(table.name for table in tables)
        line = (
            f"images: read in format {kind}, joined with {names}; take format table to read "
            f"{names} alone"
        )
    console.say(line)
    return kind, (line,)
