"""The formats that `cxr prepare` reads, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from data_prep.contracts.errors import InputError
from data_prep.formats.coco import read_coco
from data_prep.formats.covid import read_covid
from data_prep.formats.csv_tables import read_csv_set
from data_prep.formats.dicom_folder import read_dicom_tree
from data_prep.formats.kermany import read_kermany
from data_prep.formats.nih import read_nih
from data_prep.formats.rsna import read_rsna
from data_prep.formats.source import ReadOptions, SourceTables, detect_format
from data_prep.formats.vindr import read_vindr
from data_prep.formats.voc import read_voc
from data_prep.formats.yolo import read_yolo


@dataclass(frozen=True)
class Reader:
    """How a format is read.

    Attributes:
        read: From a folder and the user's options to its tables; decodes no pixel.
        uses: The `ReadOptions` that mean something to it.
    """

    read: Callable[[Path, ReadOptions], SourceTables]
    uses: frozenset[str] = frozenset()


READERS: dict[str, Reader] = {
    "rsna": Reader(lambda source, _: read_rsna(source)),
    "nih": Reader(lambda source, _: read_nih(source)),
    "kermany": Reader(
        lambda source, o: read_kermany(source, o.patient_pattern), frozenset({"patient_pattern"})
    ),
    "covid": Reader(
        lambda source, o: read_covid(source, o.patient_pattern), frozenset({"patient_pattern"})
    ),
    "csv": Reader(lambda source, _: read_csv_set(source)),
    "vindr": Reader(lambda source, o: read_vindr(source, o.reference), frozenset({"reference"})),
    "dicom": Reader(lambda source, o: read_dicom_tree(source, o.labels), frozenset({"labels"})),
    "coco": Reader(read_coco, frozenset({"patient_pattern"})),
    "voc": Reader(read_voc, frozenset({"patient_pattern"})),
    "yolo": Reader(read_yolo, frozenset({"patient_pattern", "class_names"})),
}


def read_source(source: Path, format: str | None, options: ReadOptions) -> SourceTables:  # noqa: A002
    """Read a source folder in the format that the user named.

    Args:
        source: The data set as its publisher gives it.
        format: Name of a reader.
        options: What the user told beside it.

    Returns:
        Its tables.

    Raises:
        InputError: The format is not given or not known (the message names the likely one), an
            option means nothing to it, or the folder is not of it.
    """
    if all((source / name).exists() for name in ("dataset.json", "images.parquet")):
        raise InputError(
            f"{source}: is a prepared set already; to put several into one, say cxr prepare SET "
            "SET ... --out OUT"
        )
    if format not in READERS:
        likely = detect_format(source) if source.is_dir() else None
        what = "no --format given" if format is None else f"--format {format} is not known"
        advice = (
            f"it looks like --format {likely}" if likely else f"use one of {', '.join(READERS)}"
        )
        raise InputError(f"{source}: {what}; {advice}")
    reader = READERS[format]
    for option in fields(options):
        given = getattr(options, option.name)
        if given != option.default and option.name not in reader.uses:
            users = ", ".join(name for name, r in READERS.items() if option.name in r.uses)
            raise InputError(
                f"--{option.name.replace('_', '-')}: means nothing to --format {format}; "
                f"only {users} uses it"
            )
    try:
        return reader.read(source, options)
    except UnicodeEncodeError as error:  # tables hold UTF-8, file systems hold bytes
        name = error.object.encode(errors="replace").decode()
        raise InputError(f"{source}: the name {name!r} is not UTF-8; rename the file") from None
