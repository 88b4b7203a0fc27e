"""Recognition of the user's tables: the role of each column, by its name or its cells.

The user corrects what was recognised with ``columns``.
Tables of predictions are recognised by `recognise` and corrected by `give_role`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, as_typed, ask, nearest_name
from cxr_compare.data_prep.base.names import (
    LABELS,
    class_column,
    column_names,
    find_column,
    finding_name,
    headless_problem,
    is_named,
    names_by_role,
    names_finding,
    plain_name,
)
from cxr_compare.data_prep.base.user_tables import (
    NAMELESS,
    is_spreadsheet,
    read_table_file,
    refuse_line,
)
from cxr_compare.data_prep.sources.guard import (
    columns_of_roles,
    counts_rows,
    doubts,
    unread_line,
)
from cxr_compare.data_prep.sources.image_files import columns_of_images
from cxr_compare.data_prep.sources.label_names import name_labels
from cxr_compare.data_prep.sources.label_table import (
    BOX_ROLES,
    LABEL_ROLES,
    LabelTable,
    Sheet,
    TableRules,
    Tables,
    rules_of,
)
from cxr_compare.data_prep.sources.source import Caller
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.table_facts import FACTS
from cxr_compare.data_prep.sources.table_keys import Keys, choose_keys
from cxr_compare.data_prep.sources.words import (
    dictionary,
    holds_states,
    is_circumstance,
    is_number,
    states_of_cells,
)

_ROLES = (
    *("file", *LABEL_ROLES, "state", "negated", "reader"),
    *(*FACTS, "split", *BOX_ROLES, "crowd", "unused"),
)
_Table = TypeVar("_Table", bound=Sheet)


def recognise(table: _Table, names: Mapping[str, Sequence[str]]) -> _Table:
    """Give columns without a role the one that their name says; the most exact name comes first."""
    plain = {plain_name(column): column for column in reversed([*table.text.columns])}
    for role, listed in names.items():
        free = {*table.unused}
        columns = [plain[name] for name in listed if plain.get(name) in free]
        if columns and not table.has(role):
            table = table.having(role, columns[0])
    return table


def answered(tables: Tables, answers: Sequence[str]) -> list[LabelTable]:
    """Return tables with what the user says of their columns and texts.

    `answers` are ROLE=COLUMN, or means:TEXT=MEANING for the texts of labels, states and roles.
    """
    for answer in answers:
        tables = _corrected(tables, answer)
    return [*tables]


def _named(path: Path, text: pd.DataFrame, caller: Caller, rules: TableRules | None) -> LabelTable:
    """Return the table with the columns of a published one, or else of any by their names."""
    if text.empty:
        raise InputError(f"{path}: has no row")
    extra_roles = {role: [name] for role, name in caller.roles.items() if role.startswith("x_")}
    table = LabelTable(path, text, rules or rules_of([*text.columns]), caller=caller)
    table = recognise(table, {**names_by_role(), **extra_roles})
    labels = find_column([*text.columns], ("y",))
    # An edge of a box beside three others, else as of arrays.
    if labels is not None and holds_states(text[labels]):
        if table.box_roles == {"ymin"}:
            table = table.without("ymin")
        if labels in table.unused and not table.has("state"):
            table = table.having("state", labels)
    return table


def _corrected(tables: Tables, answer: str) -> list[LabelTable]:
    """Apply one answer of the user; ROLE= takes the role away."""
    if answer.startswith("means:"):
        text, equals, meaning = answer.removeprefix("means:").rpartition("=")
        if not equals or not text or not meaning:
            given = as_typed({"columns": [answer]})
            raise InputError(f"{given}: say means:TEXT=MEANING, such as means:o.B.=normal")
        return [replace(t, means={**t.means, text.lower(): meaning}) for t in tables]
    role, equals, column = (part.strip() for part in answer.partition("="))
    kind, _, finding = role.partition(":")
    named = f"{tables[0].caller.roles.get(role, role)}{equals}{column}"
    argument = as_typed({"columns": [named]})
    if not equals and any(role in table.text for table in tables):
        raise InputError(
            f"{argument}: say what the column holds, such as label={role}, or finding={role} if "
            "the finding is called so"
        )
    if kind not in _ROLES and not kind.startswith("x_"):
        usual = [
            known_role for known_role, names in names_by_role().items() if plain_name(kind) in names
        ]
        near = nearest_name(kind, _ROLES, f"roles are {', '.join(_ROLES)} and x_...")
        near = f"did you mean '{usual[0]}'?" if usual else near
        raise InputError(f"{argument}: there is no role '{kind}'; {near}")
    if not equals:
        raise InputError(f"{argument}: say {role}=COLUMN")
    if not finding.isprintable():
        raise InputError(f"{argument}: {finding!r} is no name of a finding; use letters")
    single = "state" if role == "negated" else kind
    for table in tables if single not in ("finding", "unused") else ():
        former = [c for c in table.columns_of(single) if c in table.answered and c != column]
        if former and column in table.text:
            raise InputError(
                f"{argument}: column '{former[0]}' is {single} already; say one of both"
            )
    return give_role(tables, role, column, argument)


def give_role(tables: Sequence[_Table], role: str, column: str, argument: str) -> list[_Table]:
    """Give a column the role that the user says by `argument`; an empty one takes the role away."""
    existing = [str(name) for table in tables for name in table.text.columns]
    if column and column not in existing:
        near = nearest_name(column, existing, f"it has {', '.join(existing[:20])}")
        raise InputError(f"{argument}: {tables[0].path} has no column '{column}'; {near}")
    return [
        table.corrected(role, column) if not column or column in table.text.columns else table
        for table in tables
    ]


def take_index(table: _Table) -> _Table:
    """Take a first column without a name, as pandas and R write an index, for that of the images.

    One that counts the rows names none, and no column does beside one of studies or patients.
    """
    index = str(table.text.columns[0])
    is_free = index in table.unused and not table.has("file", "study", "patient")
    is_index = is_free and index.startswith(NAMELESS) and not counts_rows(table.text[index])
    return table.having("file", index) if is_index else table


def index_problem(table: Sheet) -> str:
    """Return a phrase on a table whose first column has no name and counts the rows."""
    index = str(table.text.columns[0])
    is_count = index.startswith(NAMELESS) and counts_rows(table.text[index])
    return "the first column counts rows and names no image; " if is_count else ""


def take_sizes_of_images(table: _Table) -> _Table:
    """Take ``width`` and ``height`` for those of the image where a box has none, or both edges.

    They are unused beside a column ``image_width``.
    """
    has_edge = bool(table.box_roles - {"width", "height"})
    for side, high in (("width", "xmax"), ("height", "ymax")):
        is_of_box = has_edge and not table.has(high)
        if table.has(side) and not (is_of_box or side in table.answered):
            role = "unused" if table.has(f"image_{side}") else f"image_{side}"
            table = table.without(side).having(role, *table.columns[side])
    return table


def _with_split(table: LabelTable) -> LabelTable:
    """Give the role of the split to the only column that holds train, val and test alone."""
    columns = columns_of_roles(table)
    return table.having("split", *columns) if len(columns) == 1 else table


def _with_findings(table: LabelTable, class_names: Sequence[str]) -> LabelTable:
    """Give the role of findings to columns of states."""
    if "finding" not in table.columns or ("finding" in table.answered and table.has("finding")):
        for column in table.unused:
            is_known = finding_name(column) in dictionary()["findings"]["names"]
            if is_known and ("finding" not in table.answered or holds_states(table.text[column])):
                table = table.having("finding", column)
    coded = [role for role in ("label", "state") if table.has(role)]
    if not coded or class_names:
        return table
    cells = table.cells(coded[0])
    if table.box_roles and _is_one_number(cells):
        return table.without(coded[0])  # a class of boxes that names no finding
    # A cell that says neither is then refused with its row.
    says_states = coded == ["state"] and states_of_cells(cells).isin(["present", "absent"]).any()
    if holds_states(cells) or says_states:
        return table.without(*coded).having("finding", *table.columns[coded[0]])
    if coded == ["state"] and "state" not in table.answered:  # as a target with words of classes
        return table.without("state").having("label", *table.columns["state"])
    return table


def _is_one_number(cells: pd.Series) -> bool:
    """Return True for a column of classes that holds one number alone, and is not of labels."""
    filled = cells[cells != ""]
    is_class = find_column([str(cells.name)], LABELS) is None
    return is_class and filled.nunique() == 1 and is_number(filled.iloc[0])


def _with_wanted(tables: Tables) -> list[LabelTable]:
    """Give the role of findings to columns that the user wants to compare, or to all of states."""
    names = set(map(finding_name, tables[0].caller.wanted))
    first, *others = (
        table.having(
            "finding",
            *(c for c in table.unused if finding_name(c) in names and holds_states(table.text[c])),
        )
        for table in tables
    )
    has_labels = any(table.has(*LABEL_ROLES) for table in (first, *others))
    if not first.box_roles and ("all" in names or not has_labels):
        states = (c for c in first.unused if not is_circumstance(c) and holds_states(first.text[c]))
        first = first.having("finding", *states)
    return [first, *others]


def _with_name_of_boxes(tables: list[LabelTable]) -> list[LabelTable]:
    """Give the only labels, if they name no finding, the name of the only class of the boxes."""
    labels = [(n, c) for n, table in enumerate(tables) for c in table.columns_of("finding")]
    of_boxes = next((n for n, table in enumerate(tables) if table.box_roles), None)
    if len(labels) != 1 or of_boxes is None:
        return tables
    number, column = labels[0]
    table, boxed = tables[number], tables[of_boxes]
    cells = boxed.text[[*boxed.unused, *boxed.columns_of("label")]]
    kind = class_column(cells)
    if is_named(table.finding(column)) or kind is None:
        return tables
    names = set(map(finding_name, filter(names_finding, cells[kind].unique()))) - {""}
    if len(names) == 1:
        tables[number] = replace(table, names={**table.names, column: names.pop()})
        if kind in boxed.unused:
            tables[of_boxes] = tables[of_boxes].having("unused", kind)
    return tables


def complete(tables: Tables, class_names: Sequence[str]) -> list[LabelTable]:
    """Complete the roles of the columns of tables, whose images are known, by what cells hold."""
    tables = [
        _with_findings(_with_split(take_sizes_of_images(table)), class_names) for table in tables
    ]
    return _with_name_of_boxes(_with_wanted(tables) if tables[0].caller.compares else tables)


def _read_sheets(source: Source, sheets: Mapping[Path, pd.DataFrame]) -> dict[Path, pd.DataFrame]:
    """Return the cells of the user's tables, which are read but for those in memory."""
    paths, sheet = source.options.labels, source.options.sheet
    if sheet is not None and not any(map(is_spreadsheet, paths)):
        given = as_typed({"sheet": sheet})
        raise InputError(f"{given}: none of the tables is a spreadsheet; leave it out")
    texts = {}
    for path in paths:
        if path in sheets:
            texts[path] = sheets[path]
            continue
        file = read_table_file(path, sheet if is_spreadsheet(path) else None)
        texts[path] = file.text
        for note in file.notes:
            source.show(f"{path.name}: {note}")
    return texts


def recognise_tables(
    source: Source,
    *,
    headers: Callable[[], Keys] | None = None,
    need_labels: bool = True,
    sheets: Mapping[Path, pd.DataFrame] | None = None,
    rules: Mapping[Path, TableRules] | None = None,
) -> list[LabelTable]:
    """Read the user's label tables, recognise the content of their columns, and show the result.

    All that is in doubt is asked at once. `headers` returns the keys of DICOM files, whose tables
    name people: no cell is shown. `sheets` are tables in memory, as texts, by what messages call
    them, and `rules` describes tables whose columns alone would not say which they are.
    """
    options = source.options
    if not options.labels:
        return []
    texts = _read_sheets(source, sheets or {})
    answers = [a for a in options.columns if not a.startswith(("box_form=", "box_unit="))]
    rules = rules or {}
    named = [_named(path, t, options.caller, rules.get(path)) for path, t in texts.items()]
    named = [take_index(table) for table in answered(named, answers)]
    tables = choose_keys(source, named, headers)
    tables = complete(tables, options.class_names)
    for table in tables:
        _show_columns(source, table)
    is_image = source.has_image if headers is None else {*headers().files["key"]}.__contains__
    ask(_open_points(tables, is_image, need_labels=need_labels))
    for table in tables:
        cells = table.cells(table.key)
        reason = f"no image is named in column '{cells.name}'; fill it in"
        refuse_line(cells == "", table.path, reason)
        if headers is None:
            _show_words(source, table)
    findings = [c for t in tables for c in t.columns_of("finding") if c not in t.names]
    name_labels(findings, f"{tables[0].path}: first line", "column")
    return tables


def _show_columns(source: Source, table: LabelTable) -> None:
    """Show what the columns of a table hold, and those that are not read."""
    source.show(table.summary)
    for column in () if "split" in table.answered else table.columns_of("split"):
        if plain_name(column) not in column_names("split"):
            role = table.caller.roles.get("split", "split")
            source.show(
                f"{table.path.name}: column '{column}' holds only roles, and is read as {role}"
            )
    if line := unread_line(table):
        source.show(line)


def _show_words(source: Source, table: LabelTable) -> None:
    """Show what the words of views, sexes and labels are taken for."""
    for line in map(table.word_line, ("view", "sex")):
        if line and not source.options.caller.compares:  # it takes any view
            source.show(line)
    if table.has("label"):
        with suppress(InputError):  # raised again if an image that is there has the label
            source.show(table.label_line(source.options.class_names))


def _open_points(
    tables: Tables, is_image: Callable[[str], Any], *, need_labels: bool
) -> list[InputError]:
    """Return what is asked at once: columns of images, columns that are not read, and labels.

    The only column whose cells are image files is taken for the answer, so that the rest is asked.
    """
    points: list[InputError] = []
    named: list[LabelTable] = []
    for table in tables:
        columns = [] if table.has(table.key) else columns_of_images(table.text, is_image)
        if not table.has(table.key):
            points.append(_image_question(table, columns))
        if table.has(table.key) or len(columns) == 1:
            named.append(table.having("file", *columns))
    if len(named) < len(tables):
        return points
    doubtful = [point for table in named for point in doubts(table, named)]
    # Boxes of a second table do not say which images of the first are without a lesion.
    stating = named[:1] if tables[0].caller.compares else named
    if doubtful or not need_labels or any(table.states_labels for table in stating):
        return [*points, *doubtful]
    first = named[0]
    question = (
        f"{first.path}: no column is known that says what the image shows; it has {_header(first)}"
    )
    way = first.caller.remedy({"label": "COLUMN"}, "another column does")
    return [*points, InputError(question, [way])]


def _image_question(table: LabelTable, columns: Sequence[str]) -> InputError:
    """Return the question which column names the image; those whose cells are files are named."""
    caller = table.caller
    header = _header(table)
    problem = f"{table.path}: {index_problem(table)}no column is known that names the image; it "
    ways = [
        caller.remedy({"file": column}, f"'{column}' does, whose cells are image files")
        for column in columns
    ]
    if caller.compares and not columns and not table.answered:
        return InputError(
            f"{problem}has {header}; add image_id (1, 2, 3 ...), the same in each file, or "
            "give arrays of one order to cxr_compare.compare in Python",
            [caller.remedy({"file": "COLUMN"}, "a column names it")],
        )
    ways = ways or [
        caller.remedy({"file": "COLUMN"}, "another column does"),
        caller.remedy({"study": "COLUMN"}, "a column is the number of its study"),
    ]
    return InputError(f"{problem}has {header}", ways)


def _header(table: LabelTable) -> str:
    """Return the names of the columns; InputError if the first row is one of cells."""
    if problem := headless_problem([*table.text.columns]):
        raise InputError(f"{table.path}: {problem}")
    return table.header
