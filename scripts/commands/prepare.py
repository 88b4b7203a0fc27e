"""`cxr prepare`: make a data set folder of a public download, or join several data sets."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, cast

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.own_parts import is_own_part
from cxr_compare.data_prep.contracts.table_files import is_table_file
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.store.identify_folder import folder_kind, require_kind
from cxr_compare.data_prep.work.shards import read_shard, refuse_shard
from cxr_compare.evaluation.sources.shortcuts import measure_shortcuts
from cxr_compare.scripts import console
from cxr_compare.scripts.next_steps import data_set_steps
from cxr_compare.scripts.options import (
    Names,
    Shards,
    open_workers,
    read_roles,
    read_target,
    shard_outcome,
)
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command


def _read_targets(
    value: Sequence[str] | Mapping[str, Sequence[str]],
) -> dict[str, tuple[str, ...]]:
    """Read targets of the user's own, from texts NAME=FINDING,FINDING or by name.

    Example:
        >>> _read_targets(["opacity=lung_opacity,pneumonia"])
        {'opacity': ('lung_opacity', 'pneumonia')}
    """
    if isinstance(value, Mapping):
        return {name: tuple(findings) for name, findings in value.items()}
    return dict(map(read_target, [value] if isinstance(value, str) else value))


def _label_format(path: Path) -> str | None:
    """Return the format of a file of labels; None for any other path.

    Example:
        >>> _label_format(Path("labels.XLSX")), _label_format(Path("out/rsna"))
        ('table', None)
    """
    if path.is_dir():
        return None
    if not path.exists():
        if path.suffix.lower() in (".json", ".xml"):
            raise InputError(f"{path}: no such file")
        return "table" if is_table_file(path) else None
    from cxr_compare.data_prep.sources.registry import all_formats, format_of_file

    kind = format_of_file(path)
    if kind is not None and not all_formats()[kind].takes_label_files:
        raise InputError(
            f"{path}: is a file of --format {kind}; give the folder that holds it and the images, "
            f"without this file: cxr prepare FOLDER OUT --format {kind}"
        )
    if kind is None and path.suffix.lower() == ".json":
        raise InputError(
            f"{path}: is no file of labels that is known; export the labels as COCO, Pascal VOC "
            "or YOLO"
        )
    return kind


@command
def prepare(
    *paths: Annotated[AnyPath, Argument(metavar="[LABELS ...] SOURCE OUT")],
    format: str | None = None,  # noqa: A002 - the option's own name
    out: AnyPath | None = None,
    name: str | None = None,
    size: list[int] | None = None,
    target: Annotated[Mapping[str, Sequence[str]] | None, Argument(read=_read_targets)] = None,
    split: str | None = None,
    val: float = 0.15,
    test: float = 0.2,
    reference: str = "majority",
    sheet: str | None = None,
    columns: Annotated[Sequence[str], Argument(read=read_roles)] = (),
    class_names: Names = (),
    raw_boxes: bool = False,
    patient_pattern: str | None = None,
    exclude: AnyPath | None = None,
    id_key: AnyPath | None = None,
    keep_ids: bool = False,
    add: bool = False,
    join: Shards = (),
    workers: Annotated[int | None, Argument(minimum=0)] = None,
) -> DataSet:
    r"""Make a data set folder: tables, split by patient, audit.

    If the command is interrupted, run it again: it continues. CXR_SHARD=3/64 decodes the third of
    64 shards of the images into the folder OUT-3-of-64, and --join joins all of them.

    Args:
        *paths: Folder of the data set as published, followed by the data set folder to make. If you
            have your own label tables (.csv, .tsv, .xlsx) or a file of CVAT, Label Studio or VIA,
            give them before these two folders. Label files of a tool in the folder of images are
            joined with the tables. With --out give the data set folders to join. MODULE:NAME of a
            torch Dataset of yours may stand in place of the folder (docs/own-parts.md); its images
            are written into OUT-source.
        format: Format of the source: rsna, nih, vindr, kermany, covid, roboflow, cvat, voc, yolo,
            labelme, via, label-studio, coco, folders, dicom or table (docs/formats.md). Left out,
            it is the only one that the folder fits.
        out: Data set folder to make of several others.
        name: Name of the data set in reports. By default it is the name of the folder.
        size: Also store the pixels of each image at this size, in px.
        target: Define a target (what is evaluated) as NAME=FINDING,FINDING. An image is positive if
            any of these findings is present. If NAME is one of them, the others count as spellings
            of it, and are no targets of their own unless you define them, too.
        split: Default split (which images are for training, validation and test). 'official' takes
            the split of the publisher. A CSV with image_id or patient_id and role (train, val or
            test) takes yours. Without the option the split is drawn by patient.
        val: Share of patients for validation, between 0 and 1.
        test: Share of patients for test, between 0 and 1.
        reference: How the labels of several readers of one image are joined: majority, any, all or
            reader:NAME.
        sheet: Name of the sheet to read, if a spreadsheet has several.
        columns: Columns of a table as ROLE=COLUMN, such as label=Finding,xmin=left; or a TOML file.
            For any format, box_form=xyxy (or xywh, cxcywh) and box_unit=share (or px, percent) say
            how its boxes are written.
        class_names: Names of numbered classes in their order, with commas. Files of YOLO and tables
            with class numbers need them.
        raw_boxes: Boxes are of the stored pixels of image files, before the EXIF orientation turns
            them. They are turned with the images. Without the option they are of the turned images.
        patient_pattern: Regular expression that finds the patient in the name of an image file,
            such as '(?P<nih>\d{8})_'.
        exclude: CSV of images to leave out (image_id, reason), such as exclude.csv of cxr check.
        id_key: File with the secret key by which ids and paths are replaced by hashes. It must lie
            outside the data set folder, and is made if it does not exist.
        keep_ids: Keep the ids of DICOM files, because they identify nobody. Without it --id-key is
            required for DICOM files.
        add: Add the new images of the source to a data set that is complete.
        workers: Number of processes that decode images, by default one for each processor. 0
            decodes in this process, which takes the least memory.

    Returns:
        The data set; its `summary` says how many images were read and what was left out. With
        CXR_SHARD, a text on the shard.

    Raises:
        InputError: The source has another format, holds nothing usable, or has changed; or the
            folder holds something else.

    Example:
        cxr prepare labels.csv images sets/own --columns label=Finding

        cxr prepare ~/rsna sets/rsna --format rsna --size 512

        cxr prepare sets/rsna sets/nih --out sets/both --target opacity=lung_opacity,pneumonia

        cxr prepare nih sets/nih --format nih --size 512 --join sets/nih-*-of-64
    """
    out = as_path(out)
    exclude = as_path(exclude)
    id_key = as_path(id_key)
    given = [as_path(path) for path in paths]
    own_dataset = bool(given) and is_own_part(str(given[0])) and not given[0].exists()
    if own_dataset:
        given = _write_dataset(given, out, class_names)
    tables, sources, named = _tables_and_sources(given, out)
    format_given = format is not None
    format = format or next(iter(named), None)  # noqa: A001
    read = ReadOptions(
        reference=reference,
        labels=tuple(tables),
        sheet=sheet,
        columns=tuple(columns),
        class_names=class_names,
        raw_boxes=raw_boxes,
        patient_pattern=patient_pattern,
    )
    shard = read_shard(join=bool(join))
    if shard is not None and add:
        refuse_shard("--add works on the whole data set")
    if add and join:
        raise InputError("--add and --join: choose one of them")
    several = out is not None and len(sources) > 1
    if several:
        refuse_shard("prepared data sets are joined as a whole")
    if several and join:
        raise InputError("--join: is for shards of one source; leave it out")
    if several and format is not None:
        raise InputError("--format: prepared sets have none; leave it out, or leave out --out")
    source: Path | None
    folder: Path
    source, folder = (None, Path(str(out))) if several else _source_and_out(sources, out, tables)
    _require_sources(sources if source is None else [source], prepared=several)
    if source is not None and named == ["table"] and not format_given:
        format = _format_beside_tables(source, tables)  # noqa: A001
    from cxr_compare.data_prep import prepare
    from cxr_compare.data_prep.assemble import combine

    rule = SplitRule(val=val, test=test)
    with open_workers(workers) as decoders:
        if source is None:
            summary = combine.combine(
                sources,
                folder,
                name=name,
                rule=rule,
                targets=target or {},
                exclude=exclude,
                measure_shortcuts=measure_shortcuts,
            )
            decoded_by = None if isinstance(decoders, int) else decoders
            for side in size or ():
                DataSet.open(folder).make_store(side, console, decoded_by)
        else:
            options = prepare.PrepareOptions(
                format=format,
                read=read,
                name=name,
                sizes=tuple(dict.fromkeys(size or ())),
                targets=target or {},
                rule=rule,
                split=split,
                exclude=exclude,
                id_key=id_key,
                keep_ids=keep_ids,
                add=add,
                join=tuple(map(as_path, join)),
                workers=decoders,
                progress=console,
                measure_shortcuts=measure_shortcuts,
            )
            if shard is not None:
                made = prepare.prepare_shard(source, folder, options, shard)
                # Whoever sets no variable gets a data set, so that is the declared type.
                return cast("DataSet", shard_outcome(*made))
            summary = prepare.prepare(source, folder, options)
    dataset = DataSet.open(folder)
    dataset.summary = summary
    dataset.next_steps = tuple(
        data_set_steps(dataset, source=source, tables=() if own_dataset else tables)
    )
    return dataset


def _tables_and_sources(
    given: Sequence[Path], out: Path | None
) -> tuple[list[Path], list[Path], list[str]]:
    """Divide paths into files of labels and other paths, and name the formats of these files."""
    # The last path is the folder to make, whatever its name, unless it is a file.
    named_last = given[-1:] if out is None else ()
    kinds = {
        path: None if path in named_last and not path.is_file() else _label_format(path)
        for path in given
    }
    tables = [path for path, kind in kinds.items() if kind is not None]
    # A table beside a file of an annotation tool adds to it.
    named = sorted({kind for kind in kinds.values() if kind}, key=lambda kind: kind == "table")
    tools = [kind for kind in named if kind != "table"]
    if len(tools) > 1:
        raise InputError(
            f"prepare: files of {' and '.join(tools)} are not read together; give those of one tool"
        )
    return tables, [path for path in given if path not in tables], named


def _write_dataset(given: list[Path], out: Path | None, class_names: Sequence[str]) -> list[Path]:
    """Write a Dataset of the user's own beside the folder to make; return it as paths to read."""
    if len(given) + (out is not None) != 2:
        raise InputError("prepare: with a Dataset give the folder to make, and nothing else")
    from cxr_compare.scripts.own_dataset import write_own_dataset

    made = out or given[1]
    source = made.with_name(f"{made.name}-source")
    table = write_own_dataset(str(given[0]), source, class_names, console.track)
    return [table, source, *given[1:]]


def _format_beside_tables(source: Path, tables: Sequence[Path]) -> str:
    """Return the format of a folder after tables, and say so if it has label files, too."""
    from cxr_compare.data_prep.sources.registry import format_beside_tables

    kind = format_beside_tables(source)
    if kind != "table":
        names = " and ".join(table.name for table in tables)
        console.say(
            f"{source}: read as --format {kind}, joined with {names}; say --format table to read "
            f"{names} alone"
        )
    return kind


def _require_sources(sources: list[Path], *, prepared: bool) -> None:
    """Check before anything heavy is imported that sources are there and of the right kind."""
    published = "give the folder of images and labels as it was published"
    for source in sources:
        kind = folder_kind(source)
        if prepared:
            require_kind(source, "data set")
        elif not source.exists():
            raise InputError(f"{source}: no such file or folder; {published}")
        elif kind is not None and kind.name not in ("data set", "phantom"):
            raise InputError(f"{source}: is {kind.with_article}; {published}")


def _source_and_out(
    paths: list[Path], out: Path | None, tables: Sequence[Path] = ()
) -> tuple[Path, Path]:
    """Tell the source from the folder to make.

    Raises InputError if there are not two folders; the message has the command with both.

    Example:
        >>> _source_and_out([Path("rsna"), Path("sets/rsna")], None)
        (PosixPath('rsna'), PosixPath('sets/rsna'))
    """
    both = [*paths, *([] if out is None else [out])]
    if len(both) == 2:
        return both[0], both[1]
    words = " ".join(shlex.quote(str(table)) for table in tables)
    if tables and len(both) < 2:
        made = shlex.quote(str(both[0])) if both else "OUT"
        advice = f"cxr prepare {words} IMAGES {made}"
        if both and any(both[0].glob("*")) and folder_kind(both[0]) is None:  # the images, then
            advice = f"cxr prepare {words} {made} OUT"
        raise InputError(
            "prepare: a folder is missing; give the folder with the images and the folder to make: "
            f"{advice}. Labels and scores without images are evaluated by cxr compare --truth "
            f"{shlex.quote(str(tables[0]))}"
        )
    if not both:
        raise InputError(
            "prepare: give the folder of images and labels, and the folder to make: cxr prepare "
            "[LABELS.csv] IMAGES OUT"
        )
    if len(both) == 1:
        from cxr_compare.data_prep.sources.registry import prepare_command

        folder = both[0]
        command = prepare_command(folder, "OUT") if folder.is_dir() else f"cxr prepare {folder} OUT"
        raise InputError(f"prepare: the folder to make is missing; run: {command}")
    from cxr_compare.data_prep.sources.registry import all_formats, likely_format

    for path in both[:-1]:
        kind = likely_format(path) if path.is_dir() else None
        if kind is not None and not all_formats()[kind].takes_label_files:
            table = f"; {tables[0]} is not read together with them" if tables else ""
            raise InputError(
                f"{path}: holds label files (--format {kind}), and {len(both)} folders are given; "
                "put the label files and the images into one folder, and give that and the folder "
                f"to make: cxr prepare FOLDER OUT --format {kind}{table}"
            )
    raise InputError(
        f"cxr prepare SOURCE OUT: {len(both)} folders given; give one folder of images and labels, "
        "and the folder to make; to put prepared sets into one, say cxr prepare SET SET ... --out "
        "OUT"
    )
