"""Label tables: public data sets by description (``datasets.toml``), and the user's own CSV or Excel.

A description says which column holds what. The user's own table gets a description from the names of its
columns, or from ``--columns ROLE=COLUMN``, and then goes the same way.
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.sources.boxes import Form, Unit
from cxr_compare.data_prep.sources.statements import (
    REFERENCE,
    STATEMENT,
    Options,
    Source,
    add_patients,
    build,
    denied,
    finding_name,
    is_normal,
    is_unknown,
    list_images,
)

_STATES = {
    "present": "present",
    "absent": "absent",
    "1": "present",
    "1.0": "present",
    "yes": "present",
    "true": "present",
    "positive": "present",
    "0": "absent",
    "0.0": "absent",
    "no": "absent",
    "false": "absent",
    "negative": "absent",
    "-1": "uncertain",
    "-1.0": "uncertain",
    "uncertain": "uncertain",
}
_ROLES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "validate": "val",
    "test": "test",
    "testing": "test",
    "unused": "unused",
}


class TableRules(BaseModel):
    """What the columns of one table hold."""

    model_config = ConfigDict(extra="forbid")
    file: str = ""  # glob below the folder; empty for the table of paths
    signature: list[str] = []  # columns by which a file of a common name is recognised
    required: bool = True
    image: str = ""
    label: str = ""
    state: str = ""  # column that says present, absent or uncertain of the label beside it
    separator: str = ""
    rename: dict[str, str] = {}
    findings: dict[str, str] = {}  # finding -> column of 1, 0, -1
    box: list[str] = []
    form: Form = "xyxy"
    size: list[str] = []  # columns of the width and height of the image
    original: list[
        str
    ] = []  # columns of width, height (px) and spacing in x, y (mm) before the image was scaled
    patient: str = ""
    patient_pattern: str = ""
    patient_source: str = "given"
    reader: str = ""
    origin: str = "unknown"
    role: str = ""
    facts: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    keep: dict[str, list[str]] = {}
    drop: dict[str, list[str]] = {}


class Description(BaseModel):
    """A data set that consists of tables."""

    model_config = ConfigDict(extra="forbid")
    title: str
    prefix: str
    own_prefix: str = ""  # of images whose patient is unknown
    image_id: str = "path"
    paths: str = ""
    patient_pattern: str = ""
    findings: list[str] = []
    not_ruled_out: list[str] = []  # findings that may be there though nothing was found
    closed: bool = False  # a label names everything that is present
    any_finding: bool = False
    coverage: str = ""
    frame: tuple[float, float] | None = None
    exclusive: list[list[str]] = []
    official: dict[str, str] = {}
    unlabelled: str = ""  # paths of images that are published without a label
    view: str = ""
    constants: dict[str, str] = {}
    table: list[TableRules]


@cache
def descriptions() -> dict[str, Description]:
    """Return the descriptions of public data sets by the name of their format."""
    content = tomllib.loads(Path(__file__).with_name("datasets.toml").read_text(encoding="utf-8"))
    try:
        return {name: Description.model_validate(entry) for name, entry in content.items()}
    except ValidationError as error:
        raise InputError(f"datasets.toml: {error}") from None


def fits(root: Path, description: Description) -> bool:
    """Return True if a folder holds a described data set."""
    if description.paths and not description.table[0].file:
        first = list_images(root)["path"].head(2000)
        pattern = re.compile(description.paths)
        folders = {part for path in first for part in path.split("/")[:-1]}
        named = set(description.table[0].signature) <= folders
        return named and sum(bool(pattern.search(path)) for path in first) > 0.5 * len(first)
    for rules in description.table:
        found = _find(root, rules)
        if rules.required and found is None:
            return False
    return True


def _find(root: Path, rules: TableRules) -> Path | None:
    for path in sorted(root.glob(rules.file), reverse=True):  # v2020 before the table of 2017
        names = rules.signature or [rules.image]
        if set(names) <= set(read_frame(path, rows=0).columns):
            return path
    return None


def read_frame(path: Path, sheet: str | None = None, rows: int | None = None) -> pd.DataFrame:
    """Read a CSV, TSV or Excel file as text; empty cells are empty texts."""
    try:
        if path.suffix.lower() in (".xlsx", ".xlsm"):
            _refuse_formulas(path, sheet)
            frame = pd.read_excel(path, sheet_name=sheet or 0, dtype=str, nrows=rows)
        else:
            with pd.io.common.get_handle(
                path, "r", encoding="utf-8-sig", compression="infer"
            ) as handle:
                head = handle.handle.readline()
            separator = max(",;\t", key=head.count)
            frame = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                encoding="utf-8-sig",
                nrows=rows,
            )
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not in UTF-8; save it as CSV UTF-8, or as .xlsx") from None
    except Exception as error:
        raise InputError(
            f"{path}: not readable as a table ({str(error).splitlines()[0][:100]})"
        ) from None
    frame.columns = [str(c).strip() for c in frame.columns]
    return frame.fillna("").apply(lambda column: column.astype("str").str.strip())


def _refuse_formulas(path: Path, sheet: str | None) -> None:
    """Refuse a workbook with a formula that was never calculated: pandas reads it as an empty cell."""
    formulas, values = (openpyxl.load_workbook(path, data_only=known) for known in (False, True))
    name = sheet or formulas.sheetnames[0]
    for row, shown in zip(formulas[name].iter_rows(), values[name].iter_rows(), strict=True):
        for cell, value in zip(row, shown, strict=True):
            if cell.data_type == "f" and value.value is None:
                raise InputError(
                    f"{path}: cell {cell.coordinate} holds a formula that was never calculated; open and save it in Excel"
                )


def to_numbers(cells: pd.Series, where: str) -> pd.Series:
    """Convert cells to numbers; NaN for empty ones, an error for others that are no number."""
    numbers = pd.to_numeric(
        cells.where(cells != "").str.replace(r"^(-?\d+),(\d+)$", r"\1.\2", regex=True),
        errors="coerce",
    )
    wrong = numbers.isna() & (cells != "")
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"{where}: line {row + 2}: {cells.name}={cells.iloc[row]!r} is no number")
    return numbers.astype("float64")


def _years(cells: pd.Series, where: str) -> pd.Series:
    """Convert ages: 58, 058Y, 013M."""
    parts = cells.str.upper().str.extract(r"^0*(\d+(?:\.\d+)?)([YMWD]?)$")
    wrong = parts[0].isna() & (cells != "")
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{where}: line {row + 2}: age {cells.iloc[row]!r}; years are expected, or 058Y"
        )
    units = parts[1].map({"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25})
    return parts[0].astype("float64") * units.astype("float64")


def read_described(root: Path, name: str, options: Options) -> Source:
    """Read a public data set by its description."""
    return _read(root, name, descriptions()[name], options, {})


def _read(
    root: Path,
    name: str,
    description: Description,
    options: Options,
    given: dict[int, tuple[Path, pd.DataFrame]],
) -> Source:
    files = list_images(root)
    files["image_id"] = (
        files["stem"]
        if description.image_id == "stem"
        else files["path"].str.replace(r"\.\w+$", "", regex=True)
    )
    twice = files[files["image_id"].duplicated()]
    if len(twice):
        raise InputError(
            f"{root}: two files are image {twice['image_id'].iloc[0]!r}, such as {twice['path'].iloc[0]}"
        )
    parts: list[pd.DataFrame] = []
    facts = pd.DataFrame({"image_id": []}, dtype="str").set_index("image_id")
    labelled: pd.Index | None = None
    source = Source(name, root, files)
    form: Form = next((r.form for r in description.table if r.box), "xyxy")
    for number, rules in enumerate(description.table):
        if number in given:
            path, frame = given[number]
        elif rules.file:
            found = _find(root, rules)
            if found is None:
                if rules.required:
                    raise InputError(
                        f"{root}: holds no {rules.file} with the column {rules.image or rules.signature[0]!r}"
                    )
                source.notes.append(f"{rules.file} is missing")
                continue
            path, frame = found, read_frame(found)
        else:
            path, frame = (
                root,
                files["path"].str.extract(description.paths).fillna("").assign(path=files["path"]),
            )
            source.exclude(
                files["image_id"][(frame.drop(columns="path") == "").all(axis=1)],
                "not in the folder of a class",
            )
        missing = [
            c
            for c in (rules.image, rules.label, *rules.box, rules.patient, *rules.findings.values())
            if c and c not in frame
        ]
        if missing:
            raise InputError(
                f"{path}: column {missing[0]!r} is missing; it has {', '.join(frame.columns[:12])}"
            )
        frame = frame.drop_duplicates(ignore_index=True)
        ids = (
            files["image_id"]
            if not rules.file and number not in given
            else _ids(frame[rules.image], files, description)
        )
        for column, allowed in rules.keep.items():
            if column in frame:
                other = ~frame[column].str.upper().isin([a.upper() for a in allowed])
                source.exclude(
                    ids[other],
                    f"{column} is {frame.loc[other, column].iloc[0] if other.any() else ''}",
                )
        for column, left_out in rules.drop.items():
            if column in frame:
                source.exclude(
                    ids[frame[column].str.upper().isin(left_out)],
                    f"{column} is one of {', '.join(left_out)}",
                )
        if labelled is None:
            labelled = pd.Index(ids.unique())
        parts.append(_statements(frame, ids, rules, description, str(path)))
        facts = _facts(facts, frame, ids, rules, str(path), source)
    assert labelled is not None
    return _finish(
        source,
        files,
        labelled,
        facts,
        pd.concat(parts, ignore_index=True),
        description,
        options,
        form,
    )


def _ids(cells: pd.Series, files: pd.DataFrame, description: Description) -> pd.Series:
    """Return the image ids that cells name: a path, a file name or its stem."""
    plain = cells.str.replace("\\", "/").str.strip("/")
    bare = plain.str.replace(r"(?i)\.(?:png|jpe?g|tiff?|bmp|webp|dcm|dicom)$", "", regex=True)
    if description.image_id == "stem":
        return bare.str.rsplit("/", n=1).str[-1]
    known = set(files["image_id"])
    if not known:
        return bare
    stems: dict[str, str | None] = {}
    for stem, image_id in zip(files["stem"], files["image_id"], strict=True):
        stems[stem] = None if stem in stems else image_id  # None: two files have the name
    end_of = {i.split("/", n)[-1]: i for i in known for n in range(1, i.count("/") + 1)}

    def find(text: str) -> str:
        if text in known:
            return text
        while "/" in text and text not in end_of:
            text = text.partition("/")[2]
        return end_of.get(text) or stems.get(text.rsplit("/", 1)[-1]) or text

    return bare.map({text: find(text) for text in bare.unique()})


def _statements(
    frame: pd.DataFrame, ids: pd.Series, rules: TableRules, description: Description, where: str
) -> pd.DataFrame:
    """Return the statements of one table; `finding` is "normal" where all findings are absent."""
    reader = frame[rules.reader] if rules.reader else REFERENCE
    base = pd.DataFrame({"image_id": ids, "reader": reader, "origin": rules.origin})
    boxes = pd.DataFrame(np.nan, index=frame.index, columns=STATEMENT[5:])
    for edge, column in zip(STATEMENT[5:], rules.box, strict=False):
        boxes[edge] = to_numbers(frame[column], where)
    base = base.join(boxes)
    parts = []
    if "finding" in description.constants:
        constants = description.constants
        parts.append(
            base.assign(
                finding=constants["finding"],
                state="present",
                origin=constants.get("origin", rules.origin),
            )
        )
    for finding, column in rules.findings.items():
        state = frame[column].str.lower().map(_STATES)
        wrong = state.isna() & (frame[column] != "")
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{where}: line {row + 2}: {column}={frame[column].iloc[row]!r}; 1, 0 or -1 is expected"
            )
        stated = base.assign(finding=finding, state=state)[state.notna()]
        parts.append(stated[(stated["finding"] != "normal") | (stated["state"] == "present")])
    if rules.label:
        cells = frame[rules.label]
        split = {cell: _names(cell, rules) for cell in cells.unique()}
        long = base.assign(finding=cells.map(split)).explode("finding").dropna(subset="finding")
        long = long.reset_index(drop=True)
        other = (
            ~long["finding"].isin([*description.findings, "normal"])
            if description.findings
            else long["finding"].isna()
        )
        if other.any():
            raise InputError(
                f"{where}: {rules.label}: {long['finding'][other].iloc[0]!r} is no finding of {description.title}"
            )
        known = set(long["finding"])
        negated = long["finding"].map({name: denied(name, known) for name in known})
        long["state"] = np.where(negated.notna(), "absent", "present")
        long["finding"] = negated.where(negated.notna(), long["finding"])
        if rules.state:
            said = pd.Series(
                frame[rules.state].str.lower().map(_STATES).to_numpy(), index=frame[rules.image]
            )
            wrong = said.isna() & (frame[rules.state] != "").to_numpy()
            if wrong.any():
                raise InputError(
                    f"{where}: line {int(np.flatnonzero(wrong)[0]) + 2}: {rules.state} must be present, absent or uncertain"
                )
            long["state"] = (
                said.reindex(frame[rules.image]).to_numpy()
                if len(long) == len(frame)
                else long["state"]
            )
        parts.append(long)
    elif rules.box and not rules.findings and "finding" not in description.constants:
        parts.append(base.assign(finding="lesion", state="present"))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=STATEMENT)


def _names(cell: str, rules: TableRules) -> list[str] | None:
    parts = re.split(rules.separator, cell) if rules.separator else [cell]
    names = [finding_name(part) for part in parts]
    names = [rules.rename.get(name, name) for name in names]
    names = ["normal" if is_normal(name) else name for name in names if not is_unknown(name)]
    return list(dict.fromkeys(names)) or None


def _facts(
    facts: pd.DataFrame,
    frame: pd.DataFrame,
    ids: pd.Series,
    rules: TableRules,
    where: str,
    source: Source,
) -> pd.DataFrame:
    """Add the columns of one table that say something of the image."""
    new: dict[str, pd.Series] = {}
    for fact, column in rules.facts.items():
        if column not in frame:
            continue
        cells = frame[column]
        if fact == "view":
            new[fact] = cells.map({c: view_name(c) for c in cells.unique()})
        elif fact == "sex":
            new[fact] = cells.str.upper().str[:1].where(cells != "")
        elif fact == "age_years":
            new[fact] = _years(cells, where)
        elif fact in rules.values:
            new[fact] = cells.map(rules.values[fact])
        elif (
            fact.startswith("x_")
            and pd.to_numeric(cells.where(cells != ""), errors="coerce")
            .notna()
            .eq(cells != "")
            .all()
        ):
            new[fact] = to_numbers(cells, where)
        else:
            new[fact] = cells.where(cells != "")
    for side, column in zip(("width", "height"), rules.size, strict=False):
        new[side] = to_numbers(frame[column], where)
    if rules.original and set(rules.original) <= set(frame):
        width, height, across, down = (
            to_numbers(frame[column], where) for column in rules.original
        )
        new["field_width_mm"], new["field_height_mm"] = width * across, height * down
    if rules.patient:
        cells = frame[rules.patient]
        new["patient_id"] = (
            cells.str.extract(rules.patient_pattern)[0]
            if rules.patient_pattern
            else cells.where(cells != "")
        )
        new["patient_id_source"] = pd.Series(rules.patient_source, index=frame.index)
        if (
            rules.patient_source == "mapped"
        ):  # two images of one original: one mapping is wrong, or it was published twice
            doubtful = cells.duplicated(keep=False)
            new["patient_id_source"] = new["patient_id_source"].mask(doubtful, "mapped_unverified")
    if rules.role or "role" in frame:
        cells = frame[rules.role or "role"].str.lower()
        new["role"] = cells.map(_ROLES)
        wrong = new["role"].isna() & (cells != "")
        if wrong.any():
            raise InputError(
                f"{where}: role {cells[wrong].iloc[0]!r}; train, val or test is expected"
            )
    if not new:
        return facts
    table = pd.DataFrame(new).assign(image_id=ids)
    several = table.drop_duplicates().loc[lambda t: t["image_id"].duplicated(), "image_id"]
    source.exclude(several, f"{where}: rows of the image differ")
    table = table.drop_duplicates("image_id").set_index("image_id")
    return facts.combine_first(table) if len(facts.columns) else table


def _finish(
    source: Source,
    files: pd.DataFrame,
    labelled: pd.Index,
    facts: pd.DataFrame,
    statements: pd.DataFrame,
    description: Description,
    options: Options,
    form: Form,
) -> Source:
    if len(files):
        free = (
            files["path"].str.contains(description.unlabelled)
            if description.unlabelled
            else files["path"].isna()
        )
        has_row = files["image_id"].isin(labelled)
        source.exclude(files["image_id"][~has_row & ~free], "no row in the table of labels")
        without = labelled.difference(files["image_id"])
        if has_row.sum() == 0:
            raise InputError(
                f"{source.root}: none of its {counted(len(files), 'image')} is named in the table of labels, such as {labelled[0]!r}"
            )
        source.exclude(without, "named in the table of labels, but no image")
        images = files.loc[has_row | free, ["image_id", "path"]]
        unused = files.loc[~has_row & free, "image_id"]
        source.roles = pd.DataFrame({"image_id": unused, "role": "unused"}).astype("str")
    else:
        images = pd.DataFrame({"image_id": labelled, "path": pd.NA}).astype("str")
        source.notes.append(
            "the source holds no image file, so predictions can only be evaluated on this data set"
        )
    images = images.merge(facts, left_on="image_id", right_index=True, how="left").reset_index(
        drop=True
    )
    if description.frame and not len(files):
        images["width"], images["height"] = description.frame
    if description.view:
        images["view"] = description.view
    if "role" in images:
        stated = images.loc[images["role"].notna(), ["image_id", "role"]]
        source.roles = pd.concat([source.roles, stated], ignore_index=True)
        images = images.drop(columns="role")
    source.images = images.assign(
        source=source.format.split("_")[0] if description.prefix != source.format else source.format
    )
    _official(source, description)
    add_patients(
        source,
        options,
        description.prefix,
        description.patient_pattern,
        in_path=description.image_id == "path",
    )
    if description.own_prefix:
        unknown = source.images["patient_id_source"] == "assumed_image"
        source.images.loc[unknown, "patient_id"] = (
            description.own_prefix + ":" + source.images.loc[unknown, "image_id"]
        )
    statements = statements[~statements["image_id"].isin(list(source.excluded))]
    columns = {name for rules in description.table for name in rules.findings}
    findings = description.findings or sorted({*statements["finding"], *columns} - {"normal"})
    source.targets = {name: [name] for name in findings}
    if description.any_finding:
        source.targets["any_finding"] = list(findings)
    exclusive = tuple(map(tuple, description.exclusive))
    full = _with_absent(statements, findings, description, exclusive)
    return build(
        source,
        full,
        options,
        form=options.box_form or form,
        unit=options.box_unit,
        coverage=description.coverage,
        frame=description.frame,
        exclusive=exclusive,
    )


def _with_absent(
    statements: pd.DataFrame,
    findings: list[str],
    description: Description,
    exclusive: tuple[tuple[str, ...], ...],
) -> pd.DataFrame:
    """Add what labels imply: all is absent on a normal image, and what a closed list does not name."""
    normal = statements[statements["finding"] == "normal"]
    named = statements[statements["finding"] != "normal"]
    key = ["image_id", "reader", "origin"]
    complete = statements[key] if description.closed else normal[key]
    ruled_out = pd.DataFrame(
        {"finding": [name for name in findings if name not in description.not_ruled_out]}
    )
    absent = complete.drop_duplicates(["image_id", "reader"]).merge(ruled_out, how="cross")
    present = named.loc[named["state"] == "present", ["image_id", "finding", "reader"]]
    if description.closed:  # "No Finding" beside a finding still contradicts itself
        said = pd.MultiIndex.from_frame(normal[["image_id", "reader"]])
        present = present[~pd.MultiIndex.from_frame(present[["image_id", "reader"]]).isin(said)]
    index = pd.MultiIndex.from_frame(present)
    if description.closed:
        absent = absent[
            ~pd.MultiIndex.from_frame(absent[["image_id", "finding", "reader"]]).isin(index)
        ]
    parts = [named, absent.assign(state="absent")]
    for group in exclusive:
        one = named[named["finding"].isin(group) & (named["state"] == "present")]
        pairs = one[key + ["finding"]].merge(pd.DataFrame({"other": list(group)}), how="cross")
        pairs = (
            pairs[pairs["other"] != pairs["finding"]]
            .drop(columns="finding")
            .rename(columns={"other": "finding"})
        )
        parts.append(pairs.assign(state="absent"))
    full = pd.concat(parts, ignore_index=True)
    repeated = full.duplicated(STATEMENT[:4]) & full["b1"].isna()  # the same said without a box
    return full[~repeated].reset_index(drop=True)


def _official(source: Source, description: Description) -> None:
    lists = {role: source.root / name for role, name in description.official.items()}
    if not lists or not all(path.is_file() for path in lists.values()):
        return
    parts = []
    for role, path in lists.items():
        names = [
            Path(line.strip()).stem
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        parts.append(pd.DataFrame({"image_id": names, "role": role}))
    roles = pd.concat(parts)
    if roles["image_id"].duplicated().any():
        raise InputError(
            f"{source.root}: {roles['image_id'][roles['image_id'].duplicated()].iloc[0]} is in two official lists"
        )
    source.roles = roles[roles["image_id"].isin(set(source.images["image_id"]))].reset_index(
        drop=True
    )


# ---- the user's own table ----

_NAMES: dict[str, tuple[str, ...]] = {
    "file": (
        "imageid",
        "image",
        "file",
        "filename",
        "filepath",
        "path",
        "imagepath",
        "imagename",
        "imageindex",
        "dicomid",
        "img",
        "name",
        "datei",
        "bild",
    ),
    "label": (
        "label",
        "labels",
        "finding",
        "findings",
        "findinglabels",
        "findinglabel",
        "class",
        "classname",
        "category",
        "diagnosis",
        "befund",
        "diagnose",
    ),
    "patient": ("patientid", "patient", "subjectid", "subject", "pid", "case", "patientnummer"),
    "split": ("split", "role", "set", "fold", "subset", "partition"),
    "view": ("view", "viewposition", "projection"),
    "sex": ("sex", "gender", "patientsex", "patientgender", "geschlecht"),
    "age": ("age", "ageyears", "patientage", "alter"),
    "state": ("state", "status", "presence"),
    "reader": ("reader", "radid", "radiologist", "annotator", "rater"),
    "study": ("studyid", "study", "studyinstanceuid"),
    "image_width": ("imagewidth", "imgwidth"),
    "image_height": ("imageheight", "imgheight"),
}
_BOXES: list[tuple[Form, tuple[tuple[str, ...], ...]]] = [
    (
        "xyxy",
        (
            ("xmin", "x1", "left", "x0"),
            ("ymin", "y1", "top", "y0"),
            ("xmax", "x2", "right", "x1"),
            ("ymax", "y2", "bottom", "y1"),
        ),
    ),
    (
        "xywh",
        (
            ("x", "xmin", "left", "bboxx"),
            ("y", "ymin", "top", "bboxy"),
            ("width", "w", "bboxwidth", "bboxw"),
            ("height", "h", "bboxheight", "bboxh"),
        ),
    ),
    (
        "cxcywh",
        (
            ("xcenter", "xcentre", "cx", "centerx"),
            ("ycenter", "ycentre", "cy", "centery"),
            ("width", "w"),
            ("height", "h"),
        ),
    ),
]
_BOX_ROLES = {
    "xyxy": ("xmin", "ymin", "xmax", "ymax"),
    "xywh": ("xmin", "ymin", "width", "height"),
    "cxcywh": ("xcenter", "ycenter", "width", "height"),
}
_BOX_TEXT = r"[\[(]?\s*-?[\d.]+(?:\s*[,;\s]\s*-?[\d.]+){3}\s*[\])]?"
_KNOWN_FINDINGS = {
    *["atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema", "fibrosis", "hernia", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax", "lung_opacity", "opacity", "lesion", "fracture", "tuberculosis", "covid", "covid_19", "pleural_effusion", "pleural_thickening", "lung_lesion", "enlarged_cardiomediastinum", "pleural_other", "support_devices"]
}


def read_own_table(table: Path, folder: Path, options: Options) -> Source:
    """Read the user's own table of labels for a folder of images."""
    frame = read_frame(table)
    if "region_shape_attributes" in frame:
        frame = _via_rows(frame, str(table))
    rules = _describe(frame, options, str(table))
    described = next(
        (
            d
            for d in descriptions().values()
            if d.table[0].signature and set(d.table[0].signature) <= set(frame)
        ),
        None,
    )
    if described is not None and not options.columns:
        rules = described.table[0]
    description = Description(
        title="your table",
        prefix=folder.name or "own",
        coverage="all" if rules.box else "",
        table=[rules],
    )
    return _read(folder, folder.resolve().name, description, options, {0: (table, frame)})


def _describe(frame: pd.DataFrame, options: Options, where: str) -> TableRules:
    plain = {re.sub(r"[^a-z0-9]", "", c.lower()): c for c in reversed(frame.columns)}
    taken = dict(options.columns)
    for role, column in taken.items():
        if column not in frame.columns:
            raise InputError(
                f"{where}: --columns {role}={column}: no such column; it has {', '.join(frame.columns[:12])}"
            )
    for role, names in _NAMES.items():
        found = next(
            (plain[n] for n in names if n in plain and plain[n] not in taken.values()), None
        )
        if role not in taken and found is not None:
            taken[role] = found
    if "file" not in taken:
        raise InputError(
            f"{where}: no column names the image; it has {', '.join(frame.columns[:12])}: --columns file=COLUMN"
        )
    form, box = _box_columns(frame, plain, taken)
    used = {*taken.values(), *box}
    findings = {}
    for column in frame.columns:
        name = finding_name(column)
        cells = set(frame[column].str.lower())
        stated = column in [c for r, c in options.columns.items() if r.startswith("finding")]
        if stated or (
            name in _KNOWN_FINDINGS
            and column not in used
            and cells <= {*_STATES, ""}
            and cells != {""}
        ):
            findings[name] = column
    label = taken.get("label", "")
    if not label and not findings and not box:
        raise InputError(
            f"{where}: no column holds a label; it has {', '.join(frame.columns[:12])}: --columns label=COLUMN"
        )
    if label and set(frame[label].str.lower()) <= {*_STATES, ""}:
        findings |= (
            {} if findings else {finding_name(label): label}
        )  # a column of 0 and 1 is one finding
        label = ""
    text = next(
        (c for c in frame.columns if c not in used and frame[c].str.fullmatch(_BOX_TEXT).any()),
        None,
    )
    if text and not box:
        raise InputError(
            f"{where}: column {text!r} writes a box as one text; write x1, y1, x2, y2 in columns of their own"
        )
    facts = {
        f: taken[r]
        for f, r in (("view", "view"), ("sex", "sex"), ("age_years", "age"), ("study_id", "study"))
        if r in taken
    }
    size = [taken[r] for r in ("image_width", "image_height") if r in taken]
    return TableRules(
        file=where,
        image=taken["file"],
        label=label,
        state=taken.get("state", ""),
        separator=r"[|;]",
        findings=findings,
        box=box,
        form=options.box_form or form,
        size=size if len(size) == 2 else [],
        patient=taken.get("patient", ""),
        reader=taken.get("reader", ""),
        role=taken.get("split", ""),
        facts=facts,
    )


def _box_columns(
    frame: pd.DataFrame, plain: dict[str, str], taken: dict[str, str]
) -> tuple[Form, list[str]]:
    for form, roles in _BOX_ROLES.items():
        if all(role in taken for role in roles):
            return form, [taken[role] for role in roles]  # type: ignore[return-value]
    for form, edges in _BOXES:
        names = [next((n for n in options if n in plain), None) for options in edges]
        if None not in names and len(set(names)) == 4:
            return form, [plain[n] for n in names if n is not None]
    del frame
    return "xyxy", []


def _via_rows(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Turn the CSV of the VGG Image Annotator into a plain table of boxes."""
    rows: list[dict[str, Any]] = []
    for number, row in frame.iterrows():
        try:
            shape, attributes = (
                json.loads(row["region_shape_attributes"]),
                json.loads(row["region_attributes"]),
            )
        except ValueError:
            raise InputError(
                f"{where}: line {number + 2}: its region is no JSON; export it again"
            ) from None
        if shape and shape.get("name") != "rect":
            raise InputError(
                f"{where}: line {number + 2}: a region of the kind {shape.get('name')!r}; rectangles are read"
            )
        label = next((str(v) for v in attributes.values()), "lesion") if shape else "normal"
        rows.append(
            {
                "file": row["filename"],
                "label": label,
                **{k: str(shape.get(k, "")) for k in ("x", "y", "width", "height")},
            }
        )
    return pd.DataFrame(rows).astype("str")


__all__ = [
    "Description",
    "TableRules",
    "Unit",
    "descriptions",
    "fits",
    "read_described",
    "read_frame",
    "read_own_table",
]
