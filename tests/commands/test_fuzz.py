"""Fuzz of what the program writes or is given: a result, or one line that names the file."""

from __future__ import annotations

import json
import random
import shutil
import tomllib
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import cxr_compare
from cxr_compare import InputError
from tests.adapters import folders, tables
from tests.adapters.sets import bind_tables

DEEP: Any = 0
for _ in range(900):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    10**30,
    10**400,
    0.5,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    " ",
    "0",
    "a/../b",
    "/etc/passwd",
    "\0",
    "\ud800",
    "\u202e<b>é中",
    "a\rb",
    "x" * 3000,
    [],
    [[]],
    ["a"],
    [None],
    [1, "a"],
    {},
    {"": {}},
    {"a": None},
    DEEP,
)
CELLS = (
    "",
    "nan",
    "inf",
    "-1",
    "1e400",
    "0",
    "a\rb",
    '"',
    "\0",
    "é中\u202e",
    "=1+1",
    "x" * 3000,
    "a,b",
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield (*above, key)
        if isinstance(item, dict | list):
            yield from places(item, (*above, key))


def mutate_value(content: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Drop, repeat, rename or replace a value of a JSON file or a TOML file, anywhere in it."""
    changed: dict[str, Any] = json.loads(json.dumps(content))
    ways = sorted(places(changed), key=len)
    keys = [mutation for mutation in ways if mutation[0] not in ("contract", "schema_version")]
    *above, last = draw.choice(keys or ways)
    holder: Any = changed
    for key in above:
        holder = holder[key]
    kind = draw.randrange(5)
    if kind == 0:
        del holder[last]
    elif kind == 1 and isinstance(holder, list):
        holder += holder[:1] * draw.randrange(1, 9)
    elif kind == 1:
        holder[f"{last}é"] = holder.pop(last)
    else:
        holder[last] = draw.choice(ODD)
    return changed


def change_json(path: Path, draw: random.Random) -> None:
    changed = mutate_value(json.loads(path.read_text()), draw)
    with suppress(ValueError):  # a number that is not finite
        folders.reseal(path, changed)
        return
    path.write_text(json.dumps(changed), encoding="utf-8", errors="surrogatepass")


def change_toml(path: Path, draw: random.Random) -> None:
    content = mutate_value(tomllib.loads(path.read_text()), draw)
    try:
        text = tomli_w.dumps(content)
    except (TypeError, ValueError, AttributeError, RecursionError):  # TOML has no such value
        text = path.read_text().replace("=", draw.choice(CELLS), 1)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")


def change_csv(path: Path, draw: random.Random) -> None:
    lines = path.read_text().splitlines()
    row = draw.randrange(len(lines))
    cells = lines[row].split(",")
    kind = draw.randrange(4)
    if kind == 0:
        lines += [lines[row]] * draw.randrange(1, 4)
    elif kind == 1:
        lines.pop(row)
    else:
        cells[draw.randrange(len(cells))] = draw.choice(CELLS)
        lines[row] = ",".join(cells)
    ending = draw.choice(["\n", "\n", "\r\n", "\r"])
    path.write_bytes((ending.join(lines) + ending).encode("utf-8", "surrogatepass"))


def change_parquet(path: Path, draw: random.Random) -> None:
    """Another type or value in a column, or none; the record names the changed table."""
    table = pq.read_table(path)
    column = draw.randrange(table.num_columns)
    odd = draw.choice(ODD[:-1])
    kind = draw.randrange(4)
    name = table.column_names[column]
    values = table.column(column).to_pylist()
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = draw.choice([table.slice(0, 0), table.slice(1), pa.concat_tables([table] * 2)])
    else:
        with suppress(pa.ArrowException, OverflowError, ValueError, TypeError):
            values = [odd] * len(values) if kind == 2 else [odd, *values[1:]]
            table = table.set_column(column, name, pa.array(values))
    with suppress(pa.ArrowException):
        pq.write_table(table, path)
    bind_tables(next(parent for parent in path.parents if folders.reader_of(parent)))


CHANGES: dict[str, Callable[[Path, random.Random], None]] = {
    ".json": change_json,
    ".toml": change_toml,
    ".csv": change_csv,
    ".parquet": change_parquet,
}


def fell(folder: Path, path: Path) -> str | None:
    """What came of opening a folder with a changed file, in words; None where all is well."""
    try:
        str(cxr_compare.show(folder))
        folders.content(folder)
    except InputError as error:
        above = [path.name, *(p.name for p in path.parents if p.is_relative_to(folder))]
        named = any(name in str(error) for name in above) and "\n" not in str(error)
        return None if named else f"names no file: {error}"
    except Exception as error:  # noqa: BLE001
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({frame.filename}:{frame.lineno})"
    return None


def try_one(folder: Path, path: Path, draw: random.Random) -> str | None:
    """Change a file once, open its folder, and put the file back."""
    before = {each: each.read_bytes() for each in (path, *folder.rglob("*.json"))}
    try:
        CHANGES[path.suffix](path, draw)
        return fell(folder, path)
    finally:
        for each, content in before.items():
            each.write_bytes(content)


@pytest.mark.parametrize(
    ("part", "suffix", "examples"),
    [
        ("data", ".json", 8),
        ("data", ".parquet", 10),
        ("predictions", ".json", 12),
        ("predictions", ".parquet", 10),
        ("run", ".json", 15),
        ("run", ".toml", 10),
        ("export", ".json", 10),
    ],
)
def test_changed_files_give_a_result_or_one_line(world, tmp_path, part, suffix, examples):
    source = world.data if part == "data" else getattr(world, part)("classifier")
    folder = Path(shutil.copytree(source, tmp_path / "copy"))
    files = sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())
    paths = [path for path in files if not any(p.startswith(".") for p in path.parts[-3:])]

    @settings(max_examples=examples)
    @given(path=st.sampled_from(paths), draw=st.randoms(use_true_random=False))
    def hold(path: Path, draw: random.Random) -> None:
        assert try_one(folder, path, draw) is None

    hold()


def outcome(read: Callable[[], object], named: str) -> None:
    """What users give is read, or refused in one line that names it."""
    message = ""
    try:
        read()
    except InputError as error:
        message = str(error)
    assert not message or (named in message and "\n" not in message), message


# Boxes of half an image: small ones in a corner are asked about before anything else is read.
RESULTS = {
    "scores.csv": "image_id,score\nimage000,0.25\nimage001,0.5\n",
    "boxes.csv": "image_id,x1,y1,x2,y2,score\nimage000,9,99,330,400,0.2\nimage001,9,9,99,460,0.5\n",
    "sizes.csv": "image_id,x,y,width,height,score\nimage000,9,99,330,300,0.2\nimage001,9,9,9,9,1\n",
    "boxes.json": '[{"image_id": "image000", "category_id": 1, "bbox": [9, 9, 99, 400], '
    '"score": 1}]',
}


def few_true_boxes(world: Any) -> dict[str, Any]:
    """Eight images of the small world with their true boxes, as COCO."""
    content = json.loads((world.tables / "coco.json").read_text())
    images = content["images"][:8]
    ids = [image["id"] for image in images]
    boxes = [box for box in content["annotations"] if box["image_id"] in ids]
    return {**content, "images": images, "annotations": boxes}


@pytest.mark.parametrize("name", RESULTS)
def test_result_files_are_read_or_refused_in_one_line(world, tmp_path_factory, name):
    truth = tmp_path_factory.mktemp("truth") / "coco.json"
    truth.write_text(json.dumps(few_true_boxes(world)))

    @settings(max_examples=12)
    @given(draw=st.randoms(use_true_random=False))
    def hold(draw: random.Random) -> None:
        path = tmp_path_factory.mktemp("results") / name
        path.write_text(RESULTS[name])
        if name.endswith(".csv"):
            change_csv(path, draw)
        else:
            changed = mutate_value({"all": json.loads(RESULTS[name])}, draw)
            path.write_text(json.dumps(changed.get("all", changed)), errors="surrogatepass")
        read = tables.read(str(truth), {"S": str(path)}, images="common")
        assert isinstance(read, dict) or "\n" not in read[1]

    whole = tmp_path_factory.mktemp("whole") / name
    whole.write_text(RESULTS[name])
    assert isinstance(tables.read(str(truth), {"S": str(whole)}, images="common"), dict)
    hold()


def test_true_annotations_are_read_or_refused_in_one_line(world, tmp_path_factory):
    truth = few_true_boxes(world)
    scores = pd.Series(0.5, [Path(image["file_name"]).stem for image in truth["images"]])

    @settings(max_examples=12)
    @given(draw=st.randoms(use_true_random=False))
    def hold(draw: random.Random) -> None:
        path = tmp_path_factory.mktemp("coco") / "truth.json"
        path.write_text(json.dumps(mutate_value(truth, draw)), errors="surrogatepass")
        read = tables.read(str(path), {"S": scores})
        assert isinstance(read, dict) or "\n" not in read[1]

    whole = tmp_path_factory.mktemp("coco") / "truth.json"
    whole.write_text(json.dumps(truth))
    assert isinstance(tables.read(str(whole), {"S": scores}), dict)
    hold()


# Label files of every format
