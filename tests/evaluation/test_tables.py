"""Tables as people have them: what each means, and the images that they name, or one line."""

import base64
import csv
import gzip
import io
import json
import pickle
import re
import zipfile

import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cxr_compare import InputError, boxes_table
from tests.adapters import tables, user_tables
from tests.adapters.names import images_of
from tests.advised import assert_leads_on, options_after
from tests.cases import load

EDGES = ["x1", "y1", "x2", "y2"]
COLUMNS = ["image_id", *EDGES, "score", "finding", "crowd"]


def made(value, folder):
    """The Python value that a JSON value stands for."""
    if isinstance(value, str):
        return folder / value
    if isinstance(value, dict) and "array" in value:
        return np.array(value["array"], dtype=value.get("dtype"))
    if isinstance(value, dict) and "series" in value:
        return pd.Series(value["series"], index_of(value), value.get("dtype"), value.get("name"))
    if isinstance(value, dict) and "frame" in value:
        return pd.DataFrame(value["frame"], index_of(value))
    return value


def index_of(value):
    index = value.get("index")
    if index is not None and isinstance(index[0], list):
        return pd.MultiIndex.from_tuples([tuple(each) for each in index])
    return index


def write(files, folder):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict) and "base64" in content:
            path.write_bytes(base64.b64decode(content["base64"]))
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")


def assert_refused(case, line):
    assert "\n" not in line
    assert [part for part in case["refused"] if part not in line] == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # what is left out is said
@pytest.mark.parametrize("case", load("inputs/boxes.json"))
def test_boxes_are_read_as_the_case_says_or_refused_by_place_and_value(case):
    options = {"box_format": case["box_format"]} if "box_format" in case else {}
    outputs = made(case["outputs"], None)
    if "refused" in case:
        with pytest.raises(InputError) as error:
            boxes_table(outputs, case.get("image_ids"), **options)
        assert_refused(case, str(error.value))
        return
    table = boxes_table(outputs, case.get("image_ids"), **options)
    columns = case.get("columns", COLUMNS[: max(map(len, case["rows"]), default=0)])
    assert list(table.columns) == columns
    assert len(table) == len(case["rows"])
    for name, values in zip(columns, zip(*case["rows"], strict=True), strict=False):
        values = list(values)
        is_number = name in (*EDGES, "score")
        expected = pytest.approx(values, abs=1e-9) if is_number else values
        assert table[name].tolist() == expected, name


def whole(read):
    """An outcome with all that a case leaves out because it is usual."""
    if "findings" in read:
        findings = {name: whole(of) for name, of in read["findings"].items()}
        return {"findings": findings, "left_out": read.get("left_out", [])}
    labels, roles = read["labels"], dict.fromkeys(read["labels"], "test") | read.get("roles", {})
    tested = [image for image in labels if roles[image] == "test" and labels[image] is not None]
    used = [image for image in labels if roles[image] in ("val", "test")]
    known = {image for image, label in labels.items() if label is not None}
    boxed = known - {*read.get("unboxed", [])}
    if not read.get("true_boxes"):
        boxed = set()
    return {
        "true_boxes": [],
        **{name: value for name, value in read.items() if name != "unboxed"},
        "roles": roles,
        "patients": dict.fromkeys(labels) | read.get("patients", {}),
        "boxed": sorted(boxed),
        "evaluated": sorted(read.get("evaluated", tested)),
        "systems": {
            name: {"run": sorted(used), **of} if "boxes" in of else of
            for name, of in read["systems"].items()
        },
    }


def plain(value):
    """Numbers as rounded floats, and rows in one order, so that two outcomes can be compared."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        is_row = len({type(each) is str for each in value}) == 2
        values = [plain(each) for each in value]
        return values if is_row else sorted(values, key=str)
    return round(float(value), 6) if isinstance(value, int | float) else value


@pytest.mark.parametrize("case", load("inputs/scores.json"))
def test_labels_and_systems_are_read_as_the_case_says_or_refused_by_place_and_value(case, tmp_path):
    write(case.get("files", {}), tmp_path)
    given = {name: made(case[name], tmp_path) for name in ("boxes", "patients") if name in case}
    truth, systems = made(case["truth"], tmp_path), case["systems"]
    if isinstance(systems, dict):
        systems = {name: made(value, tmp_path) for name, value in systems.items()}
    else:
        systems = [made(value, tmp_path) for value in systems]
    options = case.get("options", {})
    got = tables.read(truth, systems, **given, **options)
    if "refused" in case:
        assert isinstance(got, tuple), got
        assert_refused(case, got[1])

        def outcome(options):
            found = tables.read(**{"truth": truth, "systems": systems, **given, **options})
            return found if isinstance(found, tuple) else ("read", found)

        assert_leads_on(got[1], options, outcome, options_after)
        return
    assert isinstance(got, dict), got
    if "finding" not in case["read"]:  # labels that nobody named may be called anything
        got.pop("finding", None)
    assert plain(got) == plain(whole(case["read"]))


# Dialects of tables, and tables of ours that no spreadsheet takes for formulas

ROWS = (["file", "label", "x"], {2: ["a.png", "Maße", "1.5"], 3: ["b.png", "", "20.25"]})
TEXT = "file,label,x\na.png,Maße,1.5\nb.png,,20.25\n"
GERMAN = TEXT.replace(",", ";").replace(".5", ",5").replace(".25", ",25")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", TEXT.encode()),
        ("t.csv", TEXT.encode("utf-8-sig")),
        ("t.csv", TEXT.encode("utf-16")),
        ("t.csv", b"\xfe\xff" + TEXT.encode("utf-16-be")),
        ("t.csv", GERMAN.encode("utf-8-sig")),
        ("t.tsv", TEXT.replace(",", "\t").encode()),
        ("t.txt", TEXT.replace(",", "\t").encode("utf-16")),
        ("t.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("t.tsv.gz", gzip.compress(TEXT.replace(",", "\t").encode("utf-16"), mtime=0)),
    ],
)
def test_every_dialect_gives_the_same_cells(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert user_tables.read(tmp_path / name) == ROWS
    assert user_tables.head(tmp_path / name) == ROWS[0]


CELL = st.sampled_from(["", "a", "0012", "NA", " b ", "é", "1.5", '"x, y"', '"two\nlines"', "'"])
LINES = st.lists(st.lists(CELL, min_size=1, max_size=3).map(",".join), max_size=8)


@settings(max_examples=40, deadline=None)
@given(LINES, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]), st.booleans())
def test_a_csv_has_the_cells_that_pandas_finds(tmp_path_factory, lines, end, mark, open_end):
    path = tmp_path_factory.getbasetemp() / "table.csv"
    text = end.join(["one,two,three", *lines]) + ("" if open_end else end)
    path.write_text(mark + text, encoding="utf-8", newline="")
    expected = pd.read_csv(
        path, dtype="str", keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False
    )
    expected = expected.fillna("").apply(lambda column: column.str.strip())
    expected = expected[(expected != "").any(axis=1)]
    head, rows = user_tables.read(path)
    assert head == ["one", "two", "three"]
    assert list(rows) == [line + 2 for line in expected.index]
    assert list(rows.values()) == expected.to_numpy().tolist()


@pytest.mark.parametrize("index", ["", "file"])
def test_a_parquet_file_is_read_by_its_content_with_its_named_index(tmp_path, index):
    path = tmp_path / "t.csv"
    cells = {
        "file": ["a.png", "b.png"],
        "x": [0.1 + 0.2, float("nan")],
        "n": [7, 12],
        "c": ["", "é"],
    }
    table = pd.DataFrame(cells)
    (table.set_index(index) if index else table).to_parquet(path)
    rows = {2: ["a.png", repr(0.1 + 0.2), "7", ""], 3: ["b.png", "", "12", "é"]}
    assert user_tables.read(path) == (list(cells), rows)
    assert user_tables.head(path) == []


class Opened:
    def __reduce__(self):
        return exec, ("raise RuntimeError('a pickle was opened')",)


def results_of(kind, path):
    """Write results as other software does: a pickle, or arrays."""
    if kind == "torch":
        torch.save([Opened()], path)
    elif kind == "torch of former versions":
        torch.save([Opened()], path, _use_new_zipfile_serialization=False)
    elif kind.startswith("pickle"):
        path.write_bytes(pickle.dumps([Opened()], protocol=int(kind[-1])))
    else:
        with path.open("wb") as file:
            (np.save if kind == "array" else np.savez)(file, np.zeros((2, 5)))


@pytest.mark.parametrize(
    "kind",
    ["torch", "torch of former versions", "pickle 2", "pickle 4", "pickle 5", "array", "arrays"],
)
@pytest.mark.parametrize("name", ["a.pt", "a.csv", "a.xlsx", "a"])
def test_results_that_hold_objects_are_one_line_and_never_opened(tmp_path, kind, name):
    results_of(kind, tmp_path / name)
    line = user_tables.read(tmp_path / name)
    assert f"/{name}: " in line
    assert "boxes_table" in line
    assert "\n" not in line


def workbook(path, rows, change=lambda book: None):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    change(book)
    book.save(path)
    return path


@pytest.mark.parametrize(
    ("number_format", "shown"),
    [("0000", "0012"), ("0", "12"), ("General", "12"), ("#,##0.00", "12"), ("0.00E+00", "12"),
     ("0%", "12"), ("0000;-0000", None), ("0,000", None)],
)  # fmt: skip
def test_zeros_that_a_number_format_shows_are_kept_or_asked_about(tmp_path, number_format, shown):
    def change(book):
        book.active["A2"].number_format = number_format

    path = workbook(tmp_path / "t.xlsx", [["file", "label"], [12, "mass"]], change)
    found = user_tables.read(path)
    if shown is None:
        assert "A2" in found
    else:
        assert found[1] == {2: [shown, "mass"]}


@pytest.mark.parametrize(
    ("stored", "cell"), [('t="str"><f>"a"</f><v>a.png</v>', "a.png"), ("><f>7</f><v>7</v>", "7"),
                         ("><f>7</f>", None), ("><f>7</f><v></v>", None)],
)  # fmt: skip
def test_of_a_formula_the_stored_value_counts(tmp_path, stored, cell):
    path = workbook(tmp_path / "t.xlsx", [["file", "label"], ["x", "mass"]])
    name = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    sheet = parts[name].decode()
    parts[name] = re.sub(r'(<c r="A2")[^>]*>.*?</c>', rf"\1 {stored}</c>", sheet).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    found = user_tables.read(path)
    assert ("A2" in found) if cell is None else (found[1] == {2: [cell, "mass"]})


SIGNS = st.text('a15.=+-@;," \t\n', max_size=10)


@settings(max_examples=40, deadline=None)
@given(SIGNS, SIGNS)
def test_no_text_of_a_written_table_begins_a_formula_and_reading_gives_it_back(
    tmp_path_factory, first, second
):
    path = tmp_path_factory.getbasetemp() / "ours.csv"
    text = user_tables.written([[first, second]], path)
    _, *cells = csv.reader(io.StringIO(text))
    for cell in (cell for row in cells for cell in row):
        for part in re.split(r"[;\t\n]", cell):  # as a program divides it that sees no quotes
            is_number = re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)\s*", part)
            assert is_number or not part.strip().startswith(("=", "+", "-", "@"))
    if first.strip() or second.strip():
        assert user_tables.read(path)[1][2] == [first.strip(), second.strip()]


# Names of images as other software writes them: each is its own image, or all are refused

ENDINGS = ("", ".png", ".PNG", ".jpeg", ".dcm", ".dcm.png", ".nii.gz")
FOLDERS = ("", "a/", "b/", "a/b/", "0001/")
MACHINES = ("", "/data/", "C:\\x\\", "/0a1b2c3d-x/")
STEMS = ("1", "01", "001", "10", "0010", "x", "x1", "x.1", "1.2.840", "1.2.841", "00", "\u00e9")

images = st.builds("{}{}{}".format, *map(st.sampled_from, (FOLDERS, STEMS, ENDINGS)))
stored = st.lists(images, min_size=1, max_size=6, unique=True)


def least(name):
    """Rest of a name without folder, ending and zeros."""
    last = re.split(r"[/\\]", name)[-1]
    last = re.sub(r"(?i)(\.(png|jpeg|dcm|nii|gz))+$", "", last)
    return str(int(last)) if last.isdecimal() else last


def dressed(draw, image):
    """A name that other software may give an image."""
    folder, slash, last = image.rpartition("/")
    if draw(st.booleans()):
        folder = slash = ""
    if draw(st.booleans()):
        last = last.partition(".png")[0]
    if draw(st.booleans()) and last.isdecimal():
        last = str(int(last))
    return draw(st.sampled_from(MACHINES)) + folder + slash + last + draw(st.sampled_from(ENDINGS))


@given(stored, st.data())
def test_names_find_their_own_images_or_are_refused(ids, data):
    assume(len({least(image) for image in ids}) == len(ids))
    chosen = data.draw(st.lists(st.sampled_from(ids), unique=True, min_size=1))
    names = {dressed(data.draw, image): image for image in chosen}
    found = images_of(list(names), ids)
    assert isinstance(found, tuple) or found == names


@given(
    st.lists(st.sampled_from(STEMS), min_size=1, unique=True),
    st.sampled_from([("test/", "train/"), ("", "0a1b2c3d-"), ("a/x/", "b/x/")]),
    st.sampled_from(ENDINGS),
)
def test_names_of_another_folder_or_with_a_prefix_are_refused(stems, parts, ending):
    own, other = parts
    found = images_of([other + stem + ending for stem in stems], [own + stem for stem in stems])
    assert isinstance(found, tuple)
