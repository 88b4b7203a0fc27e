"""Format `table`: one or more label tables with any columns, and a folder of images."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.box_values import BoxReading
from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import spelling_key
from cxr_compare.data_prep.contracts.schemas import ROLE_NAMES, ROLES
from cxr_compare.data_prep.contracts.table_files import is_spreadsheet, is_table_file, read_header
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line, to_numbers
from cxr_compare.data_prep.formats.columns import FACTS, SIDES
from cxr_compare.data_prep.formats.folder_scan import IMAGE_SUFFIXES
from cxr_compare.data_prep.formats.image_index import ImageIndex
from cxr_compare.data_prep.formats.label_files import add_name_space
from cxr_compare.data_prep.formats.label_table import LabelTable, read_label_tables
from cxr_compare.data_prep.formats.label_values import LONGEST_SIDE_PX
from cxr_compare.data_prep.formats.labels import tables_from_labels
from cxr_compare.data_prep.formats.patients import named_patients, patients_from_names
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables
from cxr_compare.data_prep.formats.statements import read_labels_and_boxes
from cxr_compare.data_prep.formats.views import normal_views


def _read_table_set(builder: SourceBuilder) -> SourceTables:
    """Read the label tables of the user and find the images that they name."""
    tables = read_label_tables(builder)
    names = pd.concat([table.cells("file") for table in tables]).unique().tolist()
    paths = pd.Series(_find_images(names, builder), dtype=TEXT)
    bare = paths.map(_bare).str[1:]
    stem = bare.map(posixpath.basename)
    alone = stem.groupby(stem).transform(lambda same: paths[same.index].nunique()) == 1
    files = pd.DataFrame({"path": paths, "image_id": stem.where(alone, bare)})
    for table in tables:
        named = pd.DataFrame({"name": table.cells("file"), "row": range(len(table.text))})
        table.keep_matches(named.merge(files, left_on="name", right_index=True))
    if builder.root.is_file():
        _require_labelled(tables, files["image_id"])
    images = _facts(tables, builder).merge(files.drop_duplicates(), on="path")
    if "view" in images:
        lateral = normal_views(images["view"]) == "LL"
        builder.exclusions.add(images.loc[lateral, "image_id"], "lateral view")
    labels, boxes = read_labels_and_boxes(builder, tables)
    sides = [(t, high, side) for t in tables for _, high, side, _ in SIDES if t.has(high)]
    advice = ",".join(f"{side}={table.columns[high][0]}" for table, high, side in sides)
    path = tables[0].path
    of_boxes = next((table for table in tables if table.box_roles), None)
    where = str(tables[0].path if of_boxes is None else of_boxes.path)
    reading = BoxReading(if_widths=f"Say --columns {advice}", where=where)
    if of_boxes is not None and not sides:
        reading = _reading_of_sides(of_boxes)
    return tables_from_image_rows(builder, images, labels, boxes, path, reading=reading)


def _reading_of_sides(table: LabelTable) -> BoxReading:
    """Return how a table with widths and heights was read."""
    is_corner = "xmin" in table.box_roles
    roles = ("xmin", "ymin", "width", "height")
    if not is_corner:
        roles = ("xcenter", "ycenter", "width", "height")
    names = [table.columns[role][0] for role in roles if table.columns.get(role)]
    first = ("corner", "centre")[not is_corner]
    corners = ",".join(
        f"{role}={name}"
        for role, name in zip(("xmin", "ymin", "xmax", "ymax"), names, strict=False)
    )
    return BoxReading(
        form="xywh" if is_corner else "cxcywh",
        sides=f"the columns {', '.join(names)} are read as {first}, width and height",
        if_corners=f"say --columns {corners}",
        where=str(table.path),
    )


def _require_labelled(tables: Sequence[LabelTable], ids: pd.Series) -> None:
    """Refuse boxes of images that the table of labels does not name: each would be a new image."""
    first, *others = tables
    if first.box_roles:
        return
    labelled = set(ids[first.cells("file")])
    for table in others:
        names = table.cells("file")
        unknown = names[~ids[names].isin(labelled).to_numpy()].unique()
        if len(unknown):
            plain = {spelling_key(name): name for name in labelled}
            near = plain.get(spelling_key(ids[unknown[0]]))
            question = f" (is it {near!r}?)" if near else ""
            raise InputError(
                f"{table.path}: {counted(len(unknown), 'image')} with boxes and no label in "
                f"{first.path}, such as {unknown[0]!r}{question}; give each image one id in both "
                "tables, or add its label"
            )


def _find_images(names: Sequence[str], builder: SourceBuilder) -> dict[str, str]:
    """Return the path of each image by its name in the tables; exclude names that fit no image."""
    if builder.root.is_file():  # a table alone, whose images need not be there
        return {name: name for name in names}
    index = ImageIndex(builder.root)
    path_by_name = {}
    times = Counter(posixpath.basename(name) for name in names)
    for name in names:
        matches = index.by_name(name, ("", "images"))
        if len(matches) > 1 or times[posixpath.basename(name)] > 1:  # the folders must agree, too
            ends = [(_bare(name), _bare(path)) for path in matches]
            agree = [one.endswith(other) or other.endswith(one) for one, other in ends]
            matches = [path for path, agrees in zip(matches, agree, strict=True) if agrees]
        if len(matches) == 1:
            path_by_name[name] = matches[0]
        else:
            builder.exclusions.add(
                [name], f"fits {len(matches)} images" if matches else "no such image"
            )
    if not path_by_name:
        raise InputError(
            f"{builder.root}: holds {next(iter(index.paths), 'no image')}, but none of the "
            f"{len(names)} images that the table names, such as {names[0]!r}; give the right "
            "folder, or the right column with --columns file=COLUMN"
        )
    if n_unlisted := len(index.paths) - len(set(path_by_name.values())):
        builder.notes.append(
            f"{counted(n_unlisted, 'image', 'have')} no row in the table and were left out. Where "
            "an image was read and shows nothing, add a row with the label 'normal'"
        )
    return path_by_name


def _bare(path: str) -> str:
    plain = path.replace("\\", "/").lstrip("./")
    stem, suffix = posixpath.splitext(plain)
    return "/" + (stem if suffix.lower() in IMAGE_SUFFIXES else plain)  # a DICOM UID has dots, too


def _facts(tables: Sequence[Any], builder: SourceBuilder) -> pd.DataFrame:
    """Collect what the tables state of each image beside labels, as columns of the images table."""
    space = builder.root.resolve().name
    parts = []
    has_boxes = any(table.box_roles for table in tables)
    for table in tables:
        frame = table.images[["path"]]
        for role, columns in table.columns.items():
            size_only = role.startswith("image_") and not has_boxes  # resized copies are welcome
            if columns and not size_only and (role in FACTS or role.startswith("x_")):
                frame = frame.assign(**{FACTS.get(role, role): table.cells(role)})
        pattern = builder.options.patient_pattern or table.known.get("patient_pattern")
        if pattern and "patient_id" not in frame:
            frame["patient_id"] = patients_from_names(table.cells("file"), pattern, space)
        parts.append(frame)
    rows = pd.concat(parts).replace("", None)
    several = rows.groupby("path").nunique().gt(1)
    if several.to_numpy().any():
        path = several.any(axis=1).idxmax()
        column = several.any().idxmax()
        raise InputError(
            f"{tables[0].path}: the rows of {path} have several values for {column}; correct them, "
            "or leave the column out with --columns unused=COLUMN"
        )
    facts = rows.groupby("path").first().fillna("").reset_index()
    facts["patient_id"] = facts.get("patient_id", "")
    if "age_years" in facts:
        facts["age_years"] = facts["age_years"].str.replace(r"^0*(\d+)[Yy]$", r"\1", regex=True)
    return facts


def tables_from_image_rows(
    builder: SourceBuilder,
    text: pd.DataFrame,
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    path: Path,
    **options: Any,
) -> SourceTables:
    """Build the tables of a data set from a table of images, labels and boxes.

    Args:
        builder: Object that knows the user's folder and options, and collects notes and excluded
            images.
        text: Table of the images, with all cells as text, and with ``image_id``, ``patient_id`` and
            ``path``.
        labels: Table with columns ``image_id, finding, reader`` (person who labelled), ``state``
            (present, absent or uncertain) and ``origin`` (kind of label, such as ``radiologists``).
        boxes: Table with columns ``image_id, finding, reader, x1, y1, x2, y2``, edges in px of the
            original image.
        path: File of the images table, for messages.
        **options: Further keyword arguments of `data_prep.formats.labels.tables_from_labels`:
            ``lacking``, ``reading`` and tables.

    Returns:
        All tables of the data set, before pixels are decoded.

    Raises:
        InputError: A cell cannot be understood, or every image is excluded.
    """
    images, roles = _images(builder, text, path)
    return tables_from_labels(
        builder,
        images,
        labels,
        boxes,
        path=path,
        lacking="label",
        files=images.dropna(subset="path"),
        split=roles,
        **options,
    )


def _images(
    builder: SourceBuilder, text: pd.DataFrame, path: Path
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Build the ``images`` table, and ``image_id, role`` if there is a ``split`` column."""
    space = builder.root.resolve().name
    if text.empty:
        raise InputError(f"{path}: lists no image")
    free = [c for c in text.columns if c.startswith("x_")]
    patients = builder.patients(
        add_name_space(named_patients(text["patient_id"], str(path)), space),
        f"{space}:image-" + text["image_id"],
        lambda n: f"{path.name} gives no patient_id for {counted(n, 'image')}, so each",
        remedy="Give --patient-pattern if the file names contain the patient",
    )
    images = text[["image_id", *free]].join(patients).assign(source=space)
    images["path"] = _relative_paths(text["path"], path)
    for column in ("height", "width", "age_years"):
        if column in text.columns:
            images[column] = to_numbers(text[column], path, column)
    for column in ("height", "width"):
        if column in text.columns:
            _require_sides(images, column, path)
    for column in ("sex", "study_id"):
        if column in text.columns:
            images[column] = text[column].where(text[column] != "")
    if "view" in text.columns:
        images["view"] = normal_views(text["view"])
    roles = _stated_roles(text, path)
    if roles is not None and not builder.root.is_file():  # cxr compare --truth asks about these
        _require_one_role(images["patient_id"], roles["role"], path)
    return images.reset_index(drop=True), roles


def _require_sides(images: pd.DataFrame, column: str, path: Path) -> None:
    """Refuse a height or width that no image can have."""
    sides = images[column].dropna()
    wrong = sides[(sides < 1) | (sides > LONGEST_SIDE_PX) | (sides % 1 != 0)]
    if len(wrong):
        raise InputError(
            f"{path}: image {images['image_id'][wrong.index[0]]!r}: {column}={wrong.iloc[0]:g} px "
            "is not the side of an image; correct it, or leave the cell empty"
        )


def _relative_paths(text: pd.Series, path: Path) -> pd.Series:
    """Return the paths, missing where empty; refuse paths that leave the folder."""
    outside = text.str.startswith(("/", "~", "\\")) | text.str.contains(
        r"(?:^|[/\\])\.\.(?:[/\\]|$)", regex=True
    )
    refuse_line(outside, path, " must be relative and inside the folder of images", text)
    return text.where(text != "")


def _stated_roles(text: pd.DataFrame, path: Path) -> pd.DataFrame | None:
    if "split" not in text.columns or (text["split"] == "").all():
        return None
    role = text["split"].str.strip().str.lower().map(ROLE_NAMES)
    expected = f"; expected one of {', '.join(ROLES)} on every line, or no split column"
    refuse_line(role.isna(), path, expected, text["split"])
    return pd.DataFrame({"image_id": text["image_id"], "role": role}).reset_index(drop=True)


def _require_one_role(patients: pd.Series, roles: pd.Series, path: Path) -> None:
    """Refuse a patient with images in two roles, such as training and test."""
    pairs = pd.DataFrame({"patient": patients.to_numpy(), "role": roles.to_numpy()})
    pairs = pairs[pairs["role"] != "unused"].drop_duplicates()
    repeated = pairs["patient"].duplicated()
    if repeated.any():
        patient = pairs.loc[repeated, "patient"].iloc[0]
        both = " and ".join(pairs.loc[pairs["patient"] == patient, "role"])
        raise InputError(
            f"{path}: patient {patient!r} has images in {both} ({int(repeated.sum())} such "
            "patients); a patient has one role: correct the split column or leave it out"
        )


def _holds_table(folder: Path) -> bool:
    """Return True if a folder holds a table that may be one of labels."""
    return first_table(folder) is not None


def first_table(folder: Path) -> Path | None:
    """Return the path of a label table in a user's folder.

    Args:
        folder: Folder to search.

    Returns:
        The first file with a column that names images, else the first spreadsheet, else None.
    """
    paths = sorted(path for path in folder.glob("*") if is_table_file(path))
    naming = (path for path in paths if find_column(read_header(path), column_names("file")))
    return next(naming, None) or next(filter(is_spreadsheet, paths), None)


TABLE = Format(
    name="table",
    title="one table of labels with a folder of images",
    folder="images in any folders: `cxr prepare labels.csv IMAGES OUT`",
    detect=_holds_table,
    read=_read_table_set,
    options=(
        "labels",
        "sheet",
        "columns",
        "reference",
        "class_names",
        "raw_boxes",
        "patient_pattern",
    ),
    is_deep=True,
)
