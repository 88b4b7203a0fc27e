"""Roles of the columns of label tables: what each column holds, such as files or labels.

Columns are recognised by their names, or because the table is that of a known data set
(``datasets.toml``). The user sees the result with three rows, and can correct it by ``--columns
ROLE=COLUMN``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column, names_finding
from cxr_compare.data_prep.contracts.box_numbers import are_box_texts
from cxr_compare.data_prep.contracts.column_names import (
    headless_problem,
    lacks_head,
    plain_name,
    split_column,
)
from cxr_compare.data_prep.contracts.errors import InputError, counted, nearest_name
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.table_files import is_spreadsheet, read_table_file, refuse_line
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.descriptions import (
    BOX_ROLES,
    SIDES,
    DescriptionFile,
    TableRules,
    own_descriptions,
    read_descriptions,
    require_role,
)
from cxr_compare.data_prep.sources.label_names import name_labels
from cxr_compare.data_prep.sources.label_table import LabelTable, described_table
from cxr_compare.data_prep.sources.label_values import (
    ambiguous_sexes,
    dictionary,
    holds_states,
)
from cxr_compare.data_prep.sources.statements import Source

_TABLE = "TABLE"  # stands for a column that holds the name of the table
_BOX_ANSWERS = ("box_form=", "box_unit=")  # which `statements.user_reading` takes


def recognise(path: Path, text: pd.DataFrame, described: Sequence[DescriptionFile]) -> LabelTable:
    """Recognise the columns of a table that one of some files describes, or else by their names."""
    if text.empty:
        raise InputError(f"{path}: has no row")
    if len(text.columns) == 1 and re.search(r"[:|\s]", text.columns[0]):
        raise InputError(
            f"{path}: has one column, {text.columns[0]!r}; separate cells by commas, semicolons or "
            "tabs"
        )
    if lacks_head(list(text.columns)):
        raise InputError(f"{path}: {headless_problem(list(text.columns))}")
    fitting = (file.find_table(text.columns) for file in described)
    rules = next((rules for rules in fitting if rules is not None), TableRules())
    table = described_table(path, text, rules)
    plain = {plain_name(column): column for column in reversed(text.columns)}
    for file in described:
        for role, names in file.names.items():
            free = [plain[name] for name in names if plain.get(name) in table.unused]
            if free and not table.has(role) and not (rules.name and role in BOX_ROLES):
                table.assign_role(role, free[:1])
    for _, high, side, _ in SIDES:
        if table.has(high) and table.has(side) and not rules.name:
            table.assign_role(f"image_{side}", list(table.columns[side]))  # not that of the box
    return table


def _correct(tables: Sequence[LabelTable], correction: str) -> None:
    """Apply one ROLE=COLUMN or ROLE=COLUMN+COLUMN of the user; ROLE= takes the role away."""
    role, equals, listed = correction.partition("=")
    require_role(role, f"--columns {correction}")
    if not equals:
        raise InputError(f"--columns {correction}: say {role}=COLUMN")
    existing = [column for table in tables for column in table.text.columns]
    columns = [listed] if listed in existing else [c for c in listed.split("+") if c]
    for column in columns:
        if column not in (*existing, _TABLE):
            near = nearest_name(column, existing, f"it has {', '.join(existing)}")
            raise InputError(
                f"--columns {correction}: {tables[0].path} has no column '{column}'; {near}"
            )
    for table in tables:
        if columns == [_TABLE]:
            same = [other for other in tables if other.path.name == table.path.name]
            named = table.path.parent if len(same) > 1 else table.path
            table.text[_TABLE] = named.name.partition(".")[0]
        if not columns or set(columns) & set(table.text.columns):
            table.columns[role.partition(":")[0]] = []
            table.assign_role(role, columns)
            table.assigned_roles.add(role)


def _find_findings(table: LabelTable, class_names: Sequence[str]) -> None:
    """Assign the role of findings to columns of states."""
    names = dictionary()["findings"]["names"]
    for column in table.unused if "finding" not in table.columns else ():
        if finding_name(column) in names:
            table.assign_role("finding", [column])
    coded = [role for role in ("label", "state") if table.has(role)]
    if len(coded) == 1 and not class_names and holds_states(table.cells(coded[0])):
        table.assign_role("finding", list(table.columns[coded[0]]))


def _find_split(table: LabelTable, source: Source) -> None:
    """Assign the role of the split to a column that holds train, val and test alone; say so."""
    if table.rules.name or table.has("split") or "split" in table.assigned_roles:
        return
    free = table.text[table.unused]
    column = split_column(free, str(table.path), "Say --columns split=COLUMN")
    if column is not None:
        table.assign_role("split", [column])
        line = f"{table.path.name}: column '{column}' holds only roles, and is read as split"
        source.show(line)
        source.read_as.append(line)


def _leave_out_class_number(table: LabelTable, tables: Sequence[LabelTable]) -> None:
    """Take the one class number of all boxes for no finding where another table has the labels."""
    labelled = any(
        other.has("label") or other.has("finding") for other in tables if other is not table
    )
    if not labelled or not table.box_roles or table.rules.name:
        return
    for role in {"label", "finding"} - table.assigned_roles:
        columns = table.columns.get(role, [])
        cells = {cell for column in columns for cell in table.text[column]} - {""}
        is_number = len(columns) == len(cells) == 1 and not names_finding(*cells)
        if is_number and class_column(table.text[columns]):
            table.assign_role("unused", list(columns))


def read_tables(source: Source, paths: Sequence[Path]) -> dict[Path, pd.DataFrame]:
    """Return the cells of label tables as text by path."""
    sheet = source.options.sheet
    tables = {}
    for path in paths:
        table = read_table_file(path, sheet if is_spreadsheet(path) else None)
        tables[path] = table.text
        for note in table.notes:
            source.show(f"{path.name}: {note}")
            source.read_as.append(f"{path.name}: {note}")
    if sheet is not None and not any(map(is_spreadsheet, tables)):
        raise InputError(f"--sheet {sheet}: none of the tables is a spreadsheet; leave it out")
    return tables


def recognise_tables(
    texts: Mapping[Path, pd.DataFrame],
    source: Source,
    *,
    keys: Sequence[str] = ("file",),
    names_people: bool = False,
    need_labels: bool = True,
) -> list[LabelTable]:
    """Recognise the content of the columns of the user's label tables, and show the result.

    `texts` has the cells as text by path of the table. `keys` are the roles by which a table may
    name its images; the first one that it has is used. With `names_people`, cells may name
    patients, and none is shown. `need_labels` is False if label files beside the tables have the
    labels. The source shows what was recognised, and takes notes.
    """
    columns = source.options.columns
    class_names = source.options.class_names
    files = [value for value in columns if value.endswith(".toml")]
    described = [*(read_descriptions(Path(file)) for file in files), own_descriptions()]
    tables = [recognise(path, text, described) for path, text in texts.items()]
    for value in columns:
        if value not in files and not value.startswith(_BOX_ANSWERS):
            _correct(tables, value)
    for table in tables:
        _find_split(table, source)
        _find_findings(table, class_names)
    for table in tables:
        _leave_out_class_number(table, tables)
        meanings = [] if names_people else table.label_lines(class_names)
        for line in (*table.lines(0 if names_people else 3), *meanings):
            source.show(line)
        source.read_as.append(table.summary)
        source.read_as += [f"{table.path.name}: {meaning.strip()}" for meaning in meanings]
        source.notes += _unclear_sexes(table)
    source.show("If a column is wrong, correct it with --columns ROLE=COLUMN[,ROLE=COLUMN ...]")
    _refuse_boxes_as_texts(tables)
    _require_columns(tables, keys, need_labels=need_labels)
    of_findings = [
        c for table in tables for c in table.columns.get("finding", ()) if c not in table.names
    ]
    name_labels(of_findings, f"{tables[0].path}: first line", "column")
    opinions = []
    for table in tables:
        if not any(table.has(key) for key in keys):
            _join(table, tables)
        key = next(key for key in keys if table.has(key))
        refuse_line(table.cells(key) == "", table.path, "no image is named; fill it in")
        readers = table.columns.get("label", [])
        if len(readers) > 1:  # each column is a reader
            parts = [table.text.assign(label=table.text[c], reader=c) for c in readers]
            table.text = pd.concat(parts)
            table.columns |= {"label": ["label"], "reader": ["reader"]}
        opinions.append(_opinions(table, key))
    differ = pd.concat(opinions).drop_duplicates().duplicated(["image", "subject"])
    if differ.any():
        raise InputError(
            f"{tables[0].path}: tables state different labels for "
            f"{counted(int(differ.sum()), 'image')}; if each table is of one reader, give "
            "--columns reader=TABLE, else correct them"
        )
    return tables


def _refuse_boxes_as_texts(tables: Sequence[LabelTable]) -> None:
    """Refuse a column of boxes that are texts, unless a table has boxes that are read."""
    if any(table.rules.name or table.box_roles for table in tables):
        return
    for table in tables:
        for column in table.unused:
            reason = (
                f"column '{column}' writes a box as one text, which may be corners or sizes; write "
                "each box in a row of its own with the columns x1,y1,x2,y2 or x,y,width,height, or "
                f"say --columns unused={column} to leave it out"
            )
            refuse_line(are_box_texts(table.text[column]), table.path, reason)


def _require_columns(
    tables: Sequence[LabelTable], keys: Sequence[str], *, need_labels: bool
) -> None:
    """Refuse tables without a column of images or of labels; all that is missing is named."""
    label_roles = ("label", "finding", "no_finding", *BOX_ROLES)
    missing = []
    if need_labels and not any(table.has(role) for table in tables for role in label_roles):
        missing.append(
            "no column says what an image shows; say --columns label=COLUMN, or finding=COLUMN for "
            "each finding with a column of its own"
        )
    for table in tables:
        if any(table.has(key) for key in keys) or _named_elsewhere(table, tables):
            continue
        where = "" if table is tables[0] else f"{table.path}: "
        missing.append(f"{where}no column names the image; say --columns file=COLUMN")
        break
    if missing:
        first = tables[0]
        columns = list(first.text.columns)
        problem = headless_problem(columns)
        if not problem:
            problem = f"{'; '.join(missing)}; it has {', '.join(columns[:20])}"
        raise InputError(f"{first.path}: {problem}")


def _named_elsewhere(table: LabelTable, others: Sequence[LabelTable]) -> str | None:
    """Return the column, study or patient, by which other tables list the images of a table."""
    for key in ("study", "patient"):
        if table.has(key) and any(other.has(key) and other.has("file") for other in others):
            return key
    return None


def _unclear_sexes(table: LabelTable) -> list[str]:
    """Warn of letters of sexes that mean a man in one language and a woman in another."""
    columns = table.columns.get("sex", ()) if not table.rules.name else ()
    letters = sorted({s for c in columns for s in ambiguous_sexes(table.text[c].str.lower())})
    if not letters:
        return []
    return [
        f"WARNING: {table.path.name}: sex {' and '.join(letters)} taken for unknown, as v is vrouw "
        "or varón, and m beside v or h is man or mujer. Write M and F"
    ]


def _join(table: LabelTable, others: Sequence[LabelTable]) -> None:
    """Give a table that names only studies or patients the images that other tables list."""
    key = _named_elsewhere(table, others) or ""
    named = [other for other in others if other.has(key) and other.has("file")]
    pairs = [pd.DataFrame({key: t.cells(key), "file": t.cells("file")}) for t in named]
    text = table.text.assign(**{key: table.cells(key)}).drop(columns="file", errors="ignore")
    table.text = text.merge(pd.concat(pairs).drop_duplicates(), on=key)
    table.columns |= {key: [key], "file": ["file"]}


def _opinions(table: LabelTable, key: str) -> pd.DataFrame:
    """Return the statements of a table on its images, if it names no reader and has no boxes.

    The columns are ``image``, ``subject`` (what is labelled) and ``statement``, of the rows that
    contradict no other row.
    """
    columns = [c for role in ("label", "finding", "state") for c in table.columns.get(role, ())]
    rows = pd.DataFrame({"image": table.cells(key), "subject": "", "statement": ""}, dtype=TEXT)
    if table.has("state"):
        rows["subject"] = table.cells("label")
    else:
        rows["subject"] = "+".join(table.columns.get("finding", ()))
    for column in columns:
        rows["statement"] += "|" + table.text[column]
    rows = rows.drop_duplicates()
    is_repeated = rows.duplicated(["image", "subject"], keep=False)
    one_reader = bool(columns) and not table.has("reader") and not table.box_roles
    return rows[~is_repeated & one_reader]
