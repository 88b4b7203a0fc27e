"""The guard of tables: what is not read and could change a label or a box is asked about.

What a column holds is known by its name, or the user says it. A column that is not read goes by
what its cells hold: words only propose, and where few rows could agree by chance, it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from cxr_compare.data_prep.base.errors import InputError, Remedy, counted
from cxr_compare.data_prep.base.names import (
    class_column,
    column_names,
    finding_name,
    holds_roles,
    names_by_role,
    names_finding,
    plain_name,
)
from cxr_compare.data_prep.base.tables import ROLE_NAMES
from cxr_compare.data_prep.base.user_tables import NAMELESS
from cxr_compare.data_prep.sources.label_table import REVERSED, LabelTable, Tables
from cxr_compare.data_prep.sources.words import (
    dictionary,
    holds_states,
    is_circumstance,
    is_number,
    normal_classes,
    split_labels,
    states_of_cells,
    view_of,
)

FEW_CLASSES = 5
"""Classes of which one may mean that nothing is found."""
_FEW = 12  # values of a column that may be of labels, states or readers
_FEW_COLUMNS = 3  # of which each is offered by its name
_CHANCE = 8  # images of which each has every label by chance no more
_FEW_ROWS = 6  # in which two columns of two values may go together by chance
_N_NUMBERS = 4  # of a box
_WORDS_OF_SENTENCE = 3  # and one more
_MOST_SHOWN = 50  # columns in a line
_ROLES_OF_ONE = ("label", "state", "patient", "split", "reader")  # of two columns one is read
_BOX_ADVICE = "write each box in a row of its own with the columns x1,y1,x2,y2 or x,y,width,height"
_BOX_COLUMNS = (
    "bbox", "bboxes", "box", "boxes", "boundingbox", "boundingboxes", "predictionstring", "rle",
    "encodedpixels", "polygon", "polygons", "segmentation", "regionshapeattributes",
)  # fmt: skip
_SAYS = {
    "state": "says that the label of its row is present",
    "negated": "says that this label is absent",
    "finding": "says by 1 that a finding of its name is present",
    "no_finding": "says by 1 that nothing is found",
    "label": "names what its row shows",
    "crowd": "says by 1 that the box is around several lesions",
    "reader": "says who read the image",
    "view": "is the view",
    "patient": "is the patient",
    "split": "is the role",
}


def doubts(table: LabelTable, tables: Tables) -> list[InputError]:
    """Return the questions about columns of a table that are not read, one for all that are alike.

    `tables` are those that are read together. Of a published table only states are in doubt.
    """
    text = _free(table)
    numbers = _numbers(text)
    alone = _is_of_images_alone(table, tables)
    measures = set() if alone else _measures(text, numbers)
    may_be_roles = columns_of_roles(table)
    rises = (numbers.diff().iloc[1:] == 1).all()
    roles_of = {
        column: []
        if column in measures
        else _possible_roles(table, column, tables, may_be_roles, alone=alone)
        for column in map(str, text)
        if not (rises[column] and counts_rows(table.text[column]))
    }
    boxes: dict[str, list[str]] = {}
    if not table.rules.roles:
        if (kind := _other_class(table, tables)) in roles_of and "label" not in roles_of[kind]:
            roles_of[kind].append("label")
        free = [column for column, roles in roles_of.items() if not roles]
        boxes = _unread_boxes(table, text[free], numbers[free], tables)
        of_boxes = {column for columns in boxes.values() for column in columns}
        for column in free:
            is_open = column not in of_boxes and column not in measures
            if is_open and _tells_rows_apart(table, table.text[column]):
                roles_of[column] = ["label", "reader"]
    columns_by_roles: dict[tuple[str, ...], list[str]] = {}
    for column, roles in roles_of.items():
        columns_by_roles.setdefault(tuple(roles), []).append(column)
    columns_by_roles.pop((), None)
    points = [_doubt(table, columns, roles) for roles, columns in columns_by_roles.items()]
    points += [_point(table, c, [Remedy(when, words=_BOX_ADVICE)]) for when, c in boxes.items()]
    if table.rules.roles:
        return points
    return points or [
        *(_states_of_labels(table) or _grid(table)),
        *_sentences(table),
        *classes_apart(table),
    ]


def _numbers(text: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of all columns as numbers, NaN where they are none."""
    cells = text.to_numpy()
    numbers = pd.to_numeric(cells.ravel(), errors="coerce").astype(np.float64)
    return pd.DataFrame(numbers.reshape(cells.shape), text.index, text.columns)


def _measures(text: pd.DataFrame, numbers: pd.DataFrame) -> set[str]:
    """Return the columns of one number, or of many: these hold no labels and no states."""
    cells = text.to_numpy()
    named = {name for role in _ROLES_OF_ONE for name in column_names(role)}
    are_numbers = ((cells == "") | np.isfinite(numbers.to_numpy())).all(axis=0)
    n_values = [len({*column}) for column in cells.T]
    return {
        column
        for column, n, is_number in zip(map(str, text), n_values, are_numbers, strict=True)
        if is_number and (n == 1 or n > _FEW) and plain_name(column) not in named
    }


def _possible_roles(
    table: LabelTable, column: str, tables: Tables, may_be_roles: Sequence[str], *, alone: bool
) -> list[str]:
    """Return what a column that is not read may hold; empty if it changes nothing that is read."""
    cells = table.text[column]
    roles = _roles_of_states(table, cells, tables)
    if table.rules.roles:
        return roles
    name = plain_name(column)
    for role in _ROLES_OF_ONE:
        if name not in column_names(role) or role in table.answered:
            continue
        is_several = role != "reader" or _images(table).duplicated().any()
        columns_read = table.columns_of(role) if is_several else ()
        roles += [role for present in columns_read if not cells.equals(table.text[present])]
    if not table.has("split") and (column in may_be_roles or _divides_as_role(table, column)):
        roles.append("split")
    views = {view_of(str(value)) for value in cells[cells != ""].unique()}
    may_be_views = not (table.has("view") or table.caller.compares)  # which takes any view
    if may_be_views and None not in views and "LL" in views:
        roles.append("view")
    if _counts_patients_anew(table, cells):
        roles.append("site")
    if alone and cells.nunique() > 1:
        if holds_states(cells):
            roles.append("finding")
        else:
            roles += ["patient"] if cells.is_unique else ["patient", "label"]
    if _names_labels(table, cells, tables):
        roles.append("label")
    return list(dict.fromkeys(roles))


def _is_of_images_alone(table: LabelTable, tables: Tables) -> bool:
    """Return True for a table of which only the images are read, and that joins no other."""
    roles = {role for role, columns in table.columns.items() if columns} - {"unused"}
    joining = {plain_name(key) for other in tables for _, key in other.pairs}
    return roles <= {table.key, "file"} and joining.isdisjoint(map(plain_name, table.unused))


def _divides_as_role(table: LabelTable, column: str) -> bool:
    """Return True for a column of states that is called like a role, such as ``is_test``."""
    name = plain_name(column)
    names = {name, name.removeprefix("is"), name.removeprefix("in"), name.removesuffix("set")}
    is_like_role = bool(names & {*ROLE_NAMES, "holdout", "heldout"})
    return is_like_role and holds_states(table.text[column]) and table.text[column].nunique() > 1


def _roles_of_states(table: LabelTable, cells: pd.Series, tables: Tables) -> list[str]:
    """Return what a column of states may say; empty for one that says nothing new."""
    if table.has("state") or cells.nunique() < 2 or not holds_states(cells):
        return []
    states = states_of_cells(cells)
    is_present, are_doubts = states.eq("present").fillna(False), states.eq("uncertain").any()
    says = states.notna() if _are_facts_alone(tables) else is_present  # no, too, is a label then
    says_nothing = not says.any() and not are_doubts
    if says_nothing or states.nunique(dropna=False) < 2 or _repeats(table, cells):
        return []
    if not table.has("label"):
        if table.caller.wanted:
            return []
        return ["finding"] if table.has("no_finding") else ["no_finding", "finding"]
    nothing = {*normal_classes(), *map(finding_name, dictionary()["unknown"])}
    label = table.cells("label")
    shows = label.map({cell: bool(_names_in(cell) - nothing) for cell in label.unique()})
    if not are_doubts and (shows.astype(bool) == is_present).nunique() == 1:
        return []  # on exactly the same rows, or on the others, as numbers by the alphabet
    return ["crowd", "finding"] if table.box_roles else ["state", "negated", "finding"]


def _repeats(table: LabelTable, cells: pd.Series) -> bool:
    """Return True if the columns that are read determine a column, by values that occur often."""
    columns_read = table.labelled_columns
    return bool(columns_read) and _follows(cells, table.text.groupby(columns_read).ngroup())


def _follows(cells: pd.Series, keys: pd.Series) -> bool:
    """Return True for cells with one value for each key, of keys that occur often."""
    is_enough = len(keys) >= max(_FEW_ROWS, 2 * keys.nunique())
    return is_enough and bool((cells.groupby(keys).nunique() == 1).all())


def _counts_patients_anew(table: LabelTable, cells: pd.Series) -> bool:
    """Return True for a column in whose groups, as sites, the same numbers of patients begin."""
    patients = table.columns_of("patient")
    if len(patients) != 1 or not 1 < cells.nunique() <= _FEW:
        return False
    numbers = pd.to_numeric(table.text[patients[0]], errors="coerce").groupby(cells)
    n_most = numbers.nunique().max()
    are_dense = (numbers.max() - numbers.min() < 2 * numbers.nunique()).all()
    is_of_images = cells.groupby(_images(table).to_numpy()).nunique().max() == 1
    n_shared = len(set.intersection(*numbers.agg(set)))
    return bool(are_dense and is_of_images and n_most >= _CHANCE and 2 * n_shared >= n_most)


def _names_labels(table: LabelTable, cells: pd.Series, tables: Tables) -> bool:
    """Return True for words of labels that those that are read do not say.

    They are all known, a word of doubt among them, or those of most rows, as of a corrected
    spelling, and go beyond the label of their row; or they go one to one with the numbers that are
    read, of which they say what these stand for. Where no table has labels, as beside folders of
    classes, names of findings are labels of their own.
    """
    if all(map(is_number, cells.unique())):
        return False
    unknown = {"", *map(finding_name, dictionary()["unknown"])}
    names = _names_of(cells) - unknown
    known = {*dictionary()["findings"]["names"], *normal_classes(), *_words_of_doubt()}
    if _are_facts_alone(tables) and names and names <= known:
        return True
    for label in table.columns_of("label"):
        names_read = _names_of(table.text[label])
        taken = names_read if "label" in table.answered else normal_classes()
        pairs = pd.DataFrame({"text": cells, "label": table.text[label]}).drop_duplicates()
        is_alike = (cells.str.lower() == table.text[label].str.lower()).mean() > 0.5
        if names - {*taken} and (is_alike or names <= {*names_read, *known}):
            rows = pairs.to_numpy()
            if any(_names_in(text) - unknown - _names_in(of_label) for text, of_label in rows):
                return True
    coded = () if any(map(is_number, cells.unique())) else table.columns_of("label", "finding")
    return any(_says_what_numbers_are(table, column, cells) for column in coded)


def _are_facts_alone(tables: Tables) -> bool:
    """Return True for tables without labels, as beside folders of classes or label files."""
    return not any(table.states_labels for table in tables)


@cache
def _words_of_doubt() -> set[str]:
    """Return the words that say that a finding is uncertain, as `finding_name` writes them."""
    unknown = {*map(finding_name, dictionary()["unknown"])}
    return {*map(finding_name, dictionary()["uncertain_words"])} - unknown


def _says_what_numbers_are(table: LabelTable, coded: str, cells: pd.Series) -> bool:
    """Return True for words that go one to one with numbers, and do not say the same as states."""
    is_wanted = finding_name(coded) in map(finding_name, table.caller.wanted)
    pairs = pd.DataFrame({"number": table.text[coded], "word": cells})
    pairs = pairs[(pairs != "").all(axis=1)].drop_duplicates()
    are_coded = all(map(is_number, pairs["number"])) or holds_states(pairs["number"])
    is_one_to_one = pairs["number"].is_unique and pairs["word"].is_unique
    if coded in table.answered or is_wanted or not are_coded or not is_one_to_one:
        return False
    if not 1 < len(pairs) <= _FEW or len(cells) < max(_FEW_ROWS, 2 * len(pairs)):
        return False
    if holds_states(pairs["word"]):
        return False
    finding = table.finding(coded)
    denials = {*normal_classes(), f"no_{finding}"}
    denials |= {f"no_{finding_name(word)}" for word in pairs["word"]}
    denies = pairs["word"].map(finding_name).isin(denials)
    states = states_of_cells(pairs["number"])
    is_same = states.isin(["present", "absent"]) & (denies == states.eq("absent").fillna(False))
    return not is_same.all()


def _other_class(table: LabelTable, tables: Tables) -> str:
    """Return the class of boxes that have no label, if it is not the only finding; else nothing."""
    of_boxes = table.box_roles and not table.has("label")
    column = class_column(table.text[table.unused]) if of_boxes else None
    if column is None:
        return ""
    findings = {t.finding(c) for t in tables for c in t.columns_of("finding")}
    texts = {text for text in table.text[column].unique() if text}
    is_other = len(texts) > 1 or any(
        names_finding(text) and finding_name(text) not in findings for text in texts
    )
    return column if is_other else ""


def _tells_rows_apart(table: LabelTable, cells: pd.Series) -> bool:
    """Return True for few values that differ between the rows of an image, and are no numbers."""
    if table.has("state") or table.box_roles or not 1 < cells.nunique() <= _FEW:
        return False
    images = _images(table)
    numbers = cells.groupby(images.to_numpy()).cumcount()
    is_count = any(cells.tolist() == (numbers + n).astype(str).tolist() for n in (0, 1))
    differs = (cells.groupby(images.to_numpy()).nunique() > 1).any()
    return bool(differs) and not is_count


def _unread_boxes(
    table: LabelTable, text: pd.DataFrame, numbers: pd.DataFrame, tables: Tables
) -> dict[str, list[str]]:
    """Return columns that are not read and may be boxes, as four numbers or as one text.

    Numbers on all rows, as measures of images, are two corners, or like those of the boxes read.
    """
    largest = _numbers(table.text[table.box_columns].astype(object)).max().max()
    cells = text.to_numpy() != ""
    are_numbers = (numbers.notna() == cells).all()
    are_states = (numbers.isin([1, 0, -1]) | numbers.isna()).all()
    by_rows: dict[bytes, list[str]] = {}
    for column, is_filled in zip(map(str, numbers), cells.T, strict=True):
        if are_numbers[column] and not are_states[column]:
            by_rows.setdefault(is_filled.tobytes(), []).append(column)
    boxes: dict[str, list[str]] = {}
    for key, group in by_rows.items():
        rows = np.frombuffer(key, dtype=bool)
        if len(group) < _N_NUMBERS:
            continue
        fours = sliding_window_view(numbers.loc[rows, group].to_numpy(), _N_NUMBERS, axis=1)
        first, second = fours[..., :2], fours[..., 2:]
        are_boxes = ((first >= 0) & (second > first)).all(axis=(0, 2))
        are_boxes |= (fours <= largest).all(axis=(0, 2)) | (not rows.all())
        for at in np.flatnonzero(are_boxes):
            boxes.setdefault("four of them are a box", []).extend(group[at : at + _N_NUMBERS])
    for column in () if any(other.box_roles for other in tables) else map(str, numbers):
        if not are_numbers[column] and are_box_texts(table.text[column]).any():
            boxes.setdefault("a text is a box", []).append(column)
    return {when: [*dict.fromkeys(found)] for when, found in boxes.items()}


def are_box_texts(cells: pd.Series) -> pd.Series:
    """Return True for cells that write boxes as one text, such as ``[10, 20, 30, 40]``.

    In a column with a name of boxes, such as ``bbox``, any cell with four numbers is one.
    """
    are_boxes = cells.str.count(r"\d+(?:\.\d+)?") >= _N_NUMBERS
    if not are_boxes.any() or plain_name(str(cells.name)) in _BOX_COLUMNS:
        return are_boxes
    return are_boxes & cells.str.fullmatch(r"\s*[\[(][-\d.,;e\s()\[\]]*")


def _grid(table: LabelTable) -> Iterator[InputError]:
    """Ask if every image has a row for every label, so that a row alone says nothing."""
    labels = table.columns_of("label")
    if not labels or table.has("state") or table.box_roles or "state" in table.answered:
        return
    readers = [table.text[column] for column in table.columns_of("reader")]
    groups = table.text.groupby([_images(table), *readers]).ngroup()
    rows = pd.DataFrame({"of": groups, "label": table.text[labels[0]]}).drop_duplicates()
    n_labels, n_groups = rows["label"].nunique(), rows["of"].nunique()
    if n_labels < 2 or n_groups < _CHANCE or len(rows) != n_groups * n_labels:
        return
    yield InputError(
        f"{_start(table)}every image has a row for each of the {n_labels} labels in '{labels[0]}'; "
        f"it has {table.header}",
        [
            table.caller.remedy({"state": "COLUMN"}, "a column says which are present"),
            table.caller.remedy({"state": ""}, "all of them are present on all images"),
        ],
    )


def _states_of_labels(table: LabelTable) -> list[InputError]:
    """Ask if a column that is called as one of states is the same for all rows of a label."""
    if not table.has("state") or not table.has("label") or {"state", "label"} & table.answered:
        return []
    state, label = table.columns_of("state", "label")
    states, labels = states_of_cells(table.text[state]), table.text[label]
    if not (_follows(states, labels) and {"present", "absent"} <= {*states.dropna()}):
        return []
    remedy = table.caller.remedy
    ways = [
        remedy({"label": label, "unused": state}, f"'{label}' {_SAYS['label']}"),
        remedy({"finding": state, "unused": label}, f"'{state}' alone says it by 1"),
    ]
    if normal_classes().isdisjoint(_names_of(labels)):  # of which none is absent
        ways.append(remedy({"state": state}, f"'{state}' {_SAYS['state']}"))
    which = "which of both says what is found?"
    problem = f"'{state}' is the same in all rows of a text of '{label}': {which}"
    return [InputError(f"{_start(table)}{problem}", ways)]


def _sentences(table: LabelTable) -> Iterator[InputError]:
    """Ask about a column of labels whose cells are sentences, hardly one of which is repeated."""
    if not table.has("label") or "label" in table.answered:
        return
    cells = table.cells("label")
    is_sentence = cells.str.count(r"\w+[.,]?\s+") >= _WORDS_OF_SENTENCE
    sentences = cells[is_sentence & ~cells.str.startswith(("[", "{"))]
    if len(sentences) > _WORDS_OF_SENTENCE and sentences.nunique() > 0.8 * len(sentences):
        yield InputError(
            f"{_start(table)}column '{cells.name}' holds {len(sentences):,} sentences; write a "
            f"column with the findings of each report; it has {table.header}",
            [table.caller.remedy({"label": "COLUMN"}, "another column names them")],
        )


def classes_apart(table: LabelTable) -> Iterator[InputError]:
    """Ask if one of a few labels, of which each image has one, says that nothing is found."""
    labels = table.columns_of("label")
    if not labels or table.has("state") or table.box_roles:
        return
    rows = pd.DataFrame({"image": _images(table), "label": table.text[labels[0]]})
    rows = rows[rows["label"] != ""].drop_duplicates()
    texts = [str(text) for text in rows["label"].unique()]
    names = {text: finding_name(text) or text for text in texts}
    known = {*dictionary()["findings"]["names"]}
    strange = [text for text in texts if known.isdisjoint({names[text], *names[text].split("_")})]
    are_few = 1 < len(texts) <= FEW_CLASSES and len(rows) >= 2 * len(texts)
    if (
        not strange
        or not are_few
        or not rows["image"].is_unique
        or not {*names.values()}.isdisjoint(normal_classes())
        or any(text.lower() in table.means or is_number(text) for text in texts)
        or (table.cells("label") != table.text[labels[0]]).any()
    ):
        return
    yield InputError(
        f"{_start(table)}each image has one of {counted(len(texts), 'label')} in '{labels[0]}'",
        [
            *(
                table.caller.remedy({f"means:{text}": "normal"}, f"'{text}' says: nothing found")
                for text in strange
            ),
            table.caller.remedy({f"means:{text}": "finding" for text in strange}, "each is found"),
        ],
    )


def _free(table: LabelTable) -> pd.DataFrame:
    """Return the filled columns in no role, but facts and those that the user has decided on."""
    text = _filled(table)
    decided = {name for role in table.answered for name in names_by_role().get(role, ())}
    known = {*table.answered, *(column for column, _ in table.pairs)}
    free = [
        column
        for column in map(str, text)
        if column not in known and plain_name(column) not in decided and not is_circumstance(column)
    ]
    return text[free]


def _filled(table: LabelTable) -> pd.DataFrame:
    """Return the columns in no role that hold something, as Python's texts."""
    text = table.text[table.unused]
    cells = text.to_numpy(dtype=object)  # once: a column at a time takes minutes for 10,000
    are_filled = (cells != "").any(axis=0)
    return pd.DataFrame(cells[:, are_filled], text.index, text.columns[are_filled], dtype=object)


def _images(table: LabelTable) -> pd.Series:
    """Return the image of each row, or by what it is joined; its number where nothing names it."""
    if table.has(table.key):
        return table.cells(table.key)
    return pd.Series(map(str, range(len(table.text))), table.text.index)


def _names_in(cell: str) -> set[str]:
    """Return the labels that a cell lists, without numbers."""
    return {finding_name(text) or text for text in split_labels(cell) if not is_number(text)}


def _names_of(cells: pd.Series) -> set[str]:
    """Return the labels that the cells of a column list, without numbers."""
    return {name for cell in cells.unique() for name in _names_in(cell)}


def _start(table: LabelTable) -> str:
    return f"{table.path}: {table.kind}; "


def _ways(table: LabelTable, columns: Sequence[str], role: str) -> Iterator[Remedy]:
    """Yield what the user writes if columns, or one of them, hold what a role says."""
    first, *further = columns
    if role == "site":
        words = "write both into one column, such as A-17, and give it as the patient"
        yield Remedy(f"patients of one number in two '{first}' are two people", words=words)
    elif role == "split" and holds_states(table.text[first]):
        words = "write a column split with train, val or test"
        yield Remedy(f"'{first}' {_SAYS[role]}", words=words)
    elif role == "no_finding":
        yield from _ways_of_nothing(table, columns)
    elif not further:
        yield table.caller.remedy({role: first}, f"'{first}' {_SAYS[role]}")
    elif role == "finding":
        yield table.caller.remedy({role: columns}, f"each {_SAYS[role]}")
    elif len(columns) > _FEW_COLUMNS:
        yield table.caller.remedy({role: "COLUMN"}, f"one of them {_SAYS[role]}")
    else:
        for column in columns:
            roles = {role: column, "unused": [other for other in columns if other != column]}
            yield table.caller.remedy(roles, f"'{column}' alone {_SAYS[role]}")


def _ways_of_nothing(table: LabelTable, columns: Sequence[str]) -> Iterator[Remedy]:
    """Yield what the user writes if one of some columns of states says that nothing is found.

    Such a column is never 1 beside another one.
    """
    findings = [*columns, *table.columns_of("finding")]
    is_present = table.text[findings].apply(lambda cells: states_of_cells(cells).eq("present"))
    is_present = is_present.fillna(False)
    alone = is_present.sum(axis=1) < 2
    apart = [column for column in columns if alone[is_present[column]].all()]
    for column in apart if len(apart) <= FEW_CLASSES else ["COLUMN"]:
        others = [other for other in columns if other != column]
        roles: dict[str, str | Sequence[str]] = {"no_finding": column}
        if len(findings) == 1:
            roles = {**of_abnormality(table, column)}
        elif others and column in columns:
            roles["finding"] = others
        yield table.caller.remedy(roles, f"'{column}' {_SAYS['no_finding']}")


def of_abnormality(table: LabelTable, column: str) -> dict[str, str]:
    """Return the answers by which a column that says what is normal is the only finding."""
    states = dict(zip(table.text[column], states_of_cells(table.text[column]), strict=True))
    meant = {f"means:{text}": REVERSED[s] for text, s in states.items() if s in REVERSED}
    return {"finding:abnormal": column, **meant}


def _doubt(table: LabelTable, columns: Sequence[str], roles: Sequence[str]) -> InputError:
    """Return the question about columns of which each may have one of some roles."""
    ways = [way for role in roles for way in _ways(table, columns, role)]
    if "label" in roles and table.has("label"):
        words = "write both into one column, with | between two names"
        ways.append(Remedy("it does so beside the column that is read", words=words))
        if any(_names_of(table.text[column]) & _words_of_doubt() for column in columns):
            words = "write it before the name of the label, such as uncertain mass"
            ways.append(Remedy("it says what is uncertain", words=words))
    if "reader" in roles:  # it tells rows apart
        column = columns[0] if len(columns) == 1 else "COLUMN"
        words = f"add state={column} and, for each of its texts, means:TEXT=present or absent"
        ways.append(Remedy("it says in words what is present", words=words))
    if table.pairs:
        words = "call it as the other table does, in DICOM StudyDate or SOPInstanceUID"
        ways.append(Remedy("it says of which image its row is", words=words))
    return _point(table, columns, ways)


def _point(table: LabelTable, columns: Sequence[str], ways: Sequence[Remedy]) -> InputError:
    """Return the question about columns that are not read, with what they may hold."""
    is_read, verb = ("is", "does it") if len(columns) == 1 else ("are", "do they")
    unused = table.caller.remedy({"unused": [*columns]}, "none of these")
    question = (
        f"{_start(table)}{shown_columns(table, columns)} {is_read} not read: what {verb} say?"
    )
    return InputError(question, [*ways, unused])


def counts_rows(cells: pd.Series) -> bool:
    """Return True for whole numbers that rise by 1 from row to row, as an index that was saved."""
    is_index = len(cells) > 2 or str(cells.name).startswith(NAMELESS)
    return is_index and set(pd.to_numeric(cells, errors="coerce").diff().iloc[1:]) == {1.0}


def columns_of_roles(table: LabelTable) -> list[str]:
    """Return the columns of train, val and test, where neither a name nor the user says one."""
    if table.has("split") or "split" in table.answered:
        return []
    return [column for column in table.unused if holds_roles(table.text[column])]


def shown_columns(table: LabelTable, columns: Iterable[str]) -> str:
    """Return columns with the number of their values; a value may name a person."""
    texts = {column: {*table.text[column]} - {""} for column in columns}
    return ", ".join(f"'{column}' ({len(cells):,} different)" for column, cells in texts.items())


def unread_line(table: LabelTable) -> str:
    """Return one line on the columns that are not read, facts of the images last."""
    columns = sorted(map(str, _filled(table)), key=is_circumstance)
    shown, others = columns[:_MOST_SHOWN], columns[_MOST_SHOWN:]
    more = f", and {len(others):,} others" if others else ""
    return f"{table.path.name}: not read: {shown_columns(table, shown)}{more}" if columns else ""
