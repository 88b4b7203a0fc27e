"""Public data sets that consist of tables or of class folders, read by their descriptions.

``datasets.toml`` describes each set: the files with its tables, what their columns hold, and what
its publisher says of all images. A set of folders has a table that is made of the paths of its
images.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.column_names import headless_problem, missing_columns
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.table_files import read_table_file, refuse_line
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.descriptions import (
    PublicSet,
    TableRules,
    find_files,
    own_descriptions,
    sets_of_format,
)
from cxr_compare.data_prep.sources.image_facts import read_facts, take_facts
from cxr_compare.data_prep.sources.image_files import list_images, require_unique_ids
from cxr_compare.data_prep.sources.image_lists import image_name, read_image_list
from cxr_compare.data_prep.sources.label_rows import table_statements
from cxr_compare.data_prep.sources.label_table import LabelTable, described_table
from cxr_compare.data_prep.sources.patients import add_patients
from cxr_compare.data_prep.sources.rsna import add_nih_patients
from cxr_compare.data_prep.sources.source_tables import (
    NO_PIXELS,
    Format,
    ReadOptions,
    Show,
    SourceTables,
    target_from_findings,
    targets_from_findings,
)
from cxr_compare.data_prep.sources.statements import BOX, Source, Statements, build

_ENOUGH_TO_TELL = 20  # boxed copies of images, if all boxes fit into them


def _read(name: str, root: Path, options: ReadOptions, show: Show) -> SourceTables:
    """Read a public data set, which is in a folder, by the description that fits."""
    sets = sets_of_format(name)
    entry = next((entry for entry in sets if entry.fits(root)), sets[0])
    source = Source(name, root, options, show)
    files = _files(source, entry)
    tables = _tables(source, entry, files)
    images = _match(source, entry, tables, files)
    facts = [_facts(source, table, images) for table in tables]
    take_facts(source, images.assign(source=entry.prefix), facts)
    if entry.view:
        source.images["view"] = entry.view
    if entry.mapped_to_nih:
        add_nih_patients(source, tables)
    _add_set_patients(source, entry)
    source.notes += entry.notes
    _take_official(source, entry)
    for table in tables:  # an image that is left out names no finding of the others
        is_kept = ~is_member(table.images["image_id"], list(source.excluded))
        table.text = table.text[is_kept]
        table.images = table.images[is_kept]
    has_files = bool(images["path"].notna().any())
    if entry.size and not has_files:
        source.images = source.images.assign(width=entry.size[0], height=entry.size[1])
    table_statements(source, tables, entry)
    if entry.copies:
        _scale_to_copies(source)
    source.targets = _targets(entry, set(source.statements.frame()["finding"]))
    frame = (entry.size[0], entry.size[1]) if has_files and entry.framed else None
    made = build(source, coverage=entry.coverage, frame=frame)
    if entry.boxed:
        kept = is_member(made.box_coverage["finding"], entry.boxed) & bool(len(made.boxes))
        made = replace(made, box_coverage=made.box_coverage[kept].reset_index(drop=True))
    return made


def _files(source: Source, entry: PublicSet) -> pd.DataFrame:
    """List the images of a set: ``path``, ``inside`` (below the set's own folder), ``image_id``."""
    files = list_images(source.root)[["path"]]
    if entry.images:
        files = files[files["path"].str.contains(entry.images, regex=True)]
    holder = files["path"].str.extract(f"({entry.holder})")[0].fillna("")
    files["inside"] = files["path"].str.replace(entry.holder, "", regex=True)
    is_copy = holder.str.len() > holder.str.len().min()  # the archive holds the set twice
    if is_copy.any():
        source.notes.append(
            f"{counted(int(is_copy.sum()), 'image')} below a second {holder[is_copy].iloc[0]} "
            "were left out"
        )
    files = files[~is_copy]
    for pattern, reason in entry.misnamed.items():
        is_wrong = files["inside"].str.contains(pattern, regex=True)
        source.exclude(files.loc[is_wrong, "path"], reason)
    bare = files["inside"].str.replace(r"\.\w+$", "", regex=True)
    name = bare.str.rsplit("/", n=1).str[-1]
    is_published = name.str.contains(entry.published, regex=True)
    files = files.assign(image_id=name.where(is_published, bare))
    files = files[~is_member(files["path"], list(source.excluded))].reset_index(drop=True)
    require_unique_ids(files, source.root)
    return files


def _tables(source: Source, entry: PublicSet, files: pd.DataFrame) -> list[LabelTable]:
    """Read the tables of a set."""
    tables: list[LabelTable] = []
    for rules in entry.table:
        if not rules.file:
            tables.append(_path_table(source, entry, rules, files))
            continue
        paths = find_files(source.root, rules)
        if not paths and rules.missing is None:
            needs = f" with the columns {', '.join(rules.columns)}" if rules.columns else ""
            raise InputError(f"{source.root}: holds no {rules.file[0]}{needs}; put it there")
        if not paths and rules.missing:
            source.notes.append(rules.missing)
        for path in paths:
            table = _file_table(source, rules, path)
            stating = [other for other in tables if other.has("finding")] if table.box_roles else []
            if any({*_names(table)} & {*_names(other)} for other in stating):  # these have states
                table.rules = rules.model_copy(update={"boxes_only": True})
            tables.append(table)
    return tables


def _file_table(source: Source, rules: TableRules, path: Path) -> LabelTable:
    text = read_table_file(path).text
    roles = [[columns] if isinstance(columns, str) else columns for columns in rules.roles.values()]
    spelled = {name.lower(): name for name in (*chain.from_iterable(roles), *rules.columns)}
    text = text.rename(columns=lambda name: spelled.get(str(name).strip().lower(), name))
    text = text.loc[:, ~text.columns.duplicated()]
    unique = text.drop_duplicates()
    if len(unique) < len(text):
        source.notes.append(f"{path.name}: {len(text) - len(unique)} repeated rows were dropped")
    table = described_table(path, unique, rules)
    missing = [name for name in rules.columns if name not in text.columns]
    if not table.has("file"):
        missing += roles[0]
    if missing:
        problem = f"{missing_columns(missing)}; it has {', '.join(map(str, text.columns[:20]))}"
        problem = headless_problem(list(text.columns)) or problem
        raise InputError(f"{path}: {problem}")
    return table


def _path_table(
    source: Source, entry: PublicSet, rules: TableRules, files: pd.DataFrame
) -> LabelTable:
    """Return the table that is made of the paths of images; others are left out."""
    text = files["inside"].str.extract(entry.paths).fillna("").astype(TEXT)
    no_place = (text == "").all(axis=1)
    source.exclude(files.loc[no_place, "path"], "not in the folder of a class")
    text = text.assign(file=files["image_id"])[~no_place]
    if text.empty:
        raise InputError(
            f"{source.root}: the folders of its classes hold no image; unpack them there"
        )
    return described_table(source.root, text, rules)


def _match(
    source: Source, entry: PublicSet, tables: list[LabelTable], files: pd.DataFrame
) -> pd.DataFrame:
    """Return ``image_id`` and ``path`` of the images that tables list, and leave out the others."""
    listing = [
        (table.path.name, _names(table))
        for table in tables
        if (table.has("label") or table.has("finding")) and not table.rules.boxes_only
    ]
    if not listing:
        raise InputError(f"{source.root}: holds no table of labels; put it there")
    listed = pd.concat([names for _, names in listing]).drop_duplicates()
    if listed.empty:
        raise InputError(f"{listing[0][0]}: lists no image")
    if files.empty:
        source.notes.append(NO_PIXELS)
        return pd.DataFrame({"image_id": listed.to_numpy(), "path": None}, dtype=TEXT)
    is_listed = is_member(files["image_id"], listed)
    if not is_listed.any():
        raise InputError(
            f"{source.root}: none of its {counted(len(files), 'image')} is listed in "
            f"{listing[0][0]}, such as {listed.iloc[0]!r}; give the folder of these images"
        )
    is_free = files["inside"].str.contains(entry.unlabelled, regex=True).to_numpy(dtype=bool)
    is_free = is_free & (not is_listed[is_free].any())
    for name, names in listing:
        has_file = is_member(names, files["image_id"])
        if not has_file.any():
            n = counted(int(names.nunique()), "image")
            source.notes.append(f"{name}: none of its {n} is there, so its labels are left out")
            continue
        source.exclude(names[~has_file], f"row in {name}, but no image")
    source.exclude(files.loc[~is_listed & ~is_free, "path"], f"no row in {listing[0][0]}")
    unused = files.loc[is_free, ["image_id"]].assign(role="unused").astype(TEXT)
    source.split = unused.reset_index(drop=True)
    images = files.loc[is_listed | is_free, ["image_id", "path"]]
    return images.reset_index(drop=True)


def _names(table: LabelTable) -> pd.Series:
    """Return the ids of the images that the rows name, without folders and suffixes."""
    cells = table.cells("file")
    if not table.rules.file:
        return cells
    refuse_line(cells == "", table.path, f"{cells.name} is empty; fill it in")
    return cells.map({cell: image_name(cell) for cell in cells.unique()}).astype(TEXT)


def _facts(source: Source, table: LabelTable, images: pd.DataFrame) -> pd.DataFrame:
    """Match the rows of a table with images, and return what it states of each of them."""
    names = _names(table)
    named = pd.DataFrame({"image_id": names, "row": range(len(names))})
    table.keep_matches(named.merge(images, on="image_id").sort_values("row", kind="stable"))
    ids = table.images["image_id"]
    for left_out in table.rules.leave_out:
        if left_out.column in table.text:
            cells = table.text[left_out.column].str.upper()
            source.exclude(ids[cells.str.fullmatch(left_out.pattern)], left_out.reason)
    facts = read_facts(table, sizes=True).drop_duplicates()
    several = facts.loc[facts["image_id"].duplicated(), "image_id"]
    if not table.box_roles and not table.has("reader"):
        several = ids[ids.duplicated()]
    source.exclude(several, f"two different rows in {table.path.name}")
    return facts.drop_duplicates("image_id")


def _add_set_patients(source: Source, entry: PublicSet) -> None:
    """Add the patients that names of images or tables state."""
    has_patients = "patient_id" in source.images
    if source.options.patient_pattern and not entry.patient_pattern and has_patients:
        raise InputError(
            f"{source.root}: its tables name the patients; leave --patient-pattern out"
        )
    if entry.patient_pattern:
        source.images = source.images.drop(columns="patient_id", errors="ignore")
    add_patients(source, entry.prefix, entry.patient_pattern or None, remedy="")


def _scale_to_copies(source: Source) -> None:
    """Scale boxes, which are in px of the original, to images that are resized copies."""
    images = source.images.set_index("image_id")
    stated = images.reindex(columns=["width", "height"]).astype("float64")
    source.images = source.images.drop(columns=["width", "height"], errors="ignore")
    rows = source.statements.frame()
    factors = np.ones((len(rows), 2))
    leaves = []
    for image_id, boxes in rows[rows["boxed"]].groupby("image_id"):
        path = images["path"].get(image_id)
        if not isinstance(path, str) or path.lower().endswith((".dcm", ".dicom")):
            continue  # DICOM files are the originals
        try:
            size = np.array(source.labelled_size(path), dtype="float64")
        except InputError:  # found again, and listed, when the image is decoded
            continue
        factors[boxes.index] = size / stated.loc[image_id].to_numpy()
        leaves.append((boxes[BOX[2:]].max().to_numpy() > size + 1).any())
    is_scaled = np.isfinite(factors).all(axis=1) & (factors != 1).any(axis=1)
    fit = not any(leaves) and len(leaves) >= _ENOUGH_TO_TELL  # they were resized with the copies
    if fit or not is_scaled.any():
        return
    rows.loc[is_scaled, BOX] *= np.hstack([factors, factors])[is_scaled]
    n_images = counted(rows.loc[is_scaled, "image_id"].nunique(), "boxed image", "have")
    source.notes.append(
        f"{n_images} another size than the original. They are taken as copies that were resized "
        "without padding, and their boxes were scaled"
    )
    scaled = Statements(source.statements.reading)
    scaled.add_table(rows)
    scaled.normal = source.statements.normal
    source.statements = scaled


def _official_roles(source: Source, entry: PublicSet) -> pd.Series | None:
    """Return the role of each image in the publisher's own split, from lists or folders."""
    images = source.images
    lists = {role: source.root / name for role, name in entry.official.items()}
    there = {role: read_image_list(path) for role, path in lists.items() if path.is_file()}
    if there and len(there) < len(lists):
        names = " and ".join(entry.official.values())
        source.notes.append(f"The official split was not read: it needs both {names}")
    elif there:
        listed = pd.concat([pd.Series(role, ids, TEXT) for role, ids in there.items()])
        both = listed.index[listed.index.duplicated()]
        if len(both):
            raise InputError(
                f"{source.root}: {counted(len(both), 'image', 'are')} in two official lists "
                f"({', '.join(entry.official.values())}), such as {both[0]!r}; correct them"
            )
        return images["image_id"].map(listed)
    if not entry.part or images["path"].isna().all():
        return None
    inside = images["path"].str.replace(entry.holder, "", regex=True)
    roles = inside.str.extract(entry.part)[0].astype(TEXT)
    labelled = roles[~is_member(images["image_id"], source.split["image_id"])]
    return roles if {"train", "test"} <= set(labelled.dropna()) else None  # a part is no split


def _take_official(source: Source, entry: PublicSet) -> None:
    """Take the publisher's own split, and note patients in two roles."""
    images = source.images
    roles = _official_roles(source, entry)
    if roles is None:
        return
    source.official = images[["image_id"]].assign(role=roles.fillna("unused").astype(TEXT))
    people = images["patient_id"]
    is_tested = roles == "test"
    is_trained = roles == "train"
    shared = people[is_tested][is_member(people[is_tested], people[is_trained])]
    if len(shared):
        source.notes.append(
            f"WARNING: {shared.nunique()} of {people.nunique()} patients are in both the official "
            f"train ({int(is_member(people[is_trained], shared).sum())} of "
            f"{int(is_trained.sum())} images) and test ({len(shared)} of {int(is_tested.sum())} "
            "images); the default split gives each patient one role"
        )


def _targets(entry: PublicSet, stated: set[str]) -> dict[str, Target]:
    """Return the targets of a set."""
    findings = entry.findings or sorted(stated)
    if entry.targets:
        members = {n: [f for f in of if f in stated] for n, of in entry.targets.items()}
        targets = {n: target_from_findings(n, of) for n, of in members.items() if of}
    else:
        targets = targets_from_findings(findings, any_finding=entry.any_finding)
    for name, shown in entry.display_names.items():
        if name in targets:
            targets[name] = replace(targets[name], display_name=shown)
    return targets


def _is_there(name: str, root: Path) -> bool:
    return any(entry.fits(root) for entry in sets_of_format(name))


def public_formats() -> list[Format]:
    """Return the formats of public data sets, in the order of their descriptions."""
    return [
        Format(
            name=name,
            title=entry.title,
            folder=entry.folder,
            detect=partial(_is_there, name),
            read=partial(_read, name),
            options=tuple(entry.options),
            sources=tuple(entry.sources),
        )
        for name, entry in own_descriptions().format.items()
    ]
