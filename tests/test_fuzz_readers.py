"""Fuzz of what the program writes and reads again: a result, or one line that names the file.

Sources of every format, images and uploads have tests of their own (``test_fuzz_tables.py``,
``test_fuzz_images.py`` and ``test_fuzz_uploads.py``).
"""

from __future__ import annotations

import json
import random
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

from cxr_compare.configs.load import dump_config, find_config, read_config
from cxr_compare.configs.protocol_file import read_protocol
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.scripts.commands.import_predictions import import_predictions
from cxr_compare.scripts.commands.show import show
from cxr_compare.scripts.next_steps import next_steps
from tests.adapters import folders
from tests.scripts.small_sets import scored_images
from tests.stored_json import bind_tables

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
    text = json.dumps(mutate_value(json.loads(path.read_text()), draw))
    path.write_text(text, encoding="utf-8", errors="surrogatepass")


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


def opened(folder: Path) -> None:
    """All that `cxr show`, the next commands and the readers of a folder read in it."""
    str(show(folder))
    next_steps(folder)
    if folders.reader_of(folder):
        folders.content(folder)


def fell(folder: Path, path: Path) -> str | None:
    """What came of opening a folder with a changed file, in words; None where all is well."""
    try:
        opened(folder)
    except InputError as error:
        above = [path.name, *(p.name for p in path.parents if p.is_relative_to(folder))]
        named = any(name in str(error) for name in above) and "\n" not in str(error)
        return None if named else f"names no file: {error}"
    except Exception as error:  # noqa: BLE001
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({frame.filename}:{frame.lineno})"
    return None


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that are changed: those that the program reads again."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in CHANGES and path.is_file())
    return [p for p in files if not any(part.startswith(".") for part in p.parts[-3:])]


def try_one(folder: Path, path: Path, draw: random.Random) -> str | None:
    """Change a file once, open its folder, and put the file back."""
    before = {each: each.read_bytes() for each in (path, *folder.rglob("*.json"))}
    try:
        CHANGES[path.suffix](path, draw)
        return fell(folder, path)
    finally:
        for each, content in before.items():
            each.write_bytes(content)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scored_images(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize(
    ("name", "suffix", "examples"),
    [
        ("data", ".json", 12),
        ("data", ".parquet", 10),
        ("scores", ".json", 20),
        ("scores", ".parquet", 10),
        ("xrays", ".json", 12),
    ],
)
def test_changed_files_give_a_result_or_one_line(made, name, suffix, examples):
    folder = made / name
    paths = [path for path in files_of(folder) if path.suffix == suffix]

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


TABLES = {
    "scores.csv": "image_id,score\n{0},0.25\n{1},0.5\n",
    "boxes.csv": "image_id,x1,y1,x2,y2,score\n{0},1,2,30,40,0.25\n{1},1,2,30,40,0.5\n",
    "boxes.json": '[{{"image_id": "{0}", "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}}]',
}


@pytest.mark.parametrize("name", TABLES)
def test_predictions_of_other_software_give_a_result_or_one_line(made, tmp_path_factory, name):
    images = DataSet.open(made / "data").image_ids("test")

    @settings(max_examples=15)
    @given(draw=st.randoms(use_true_random=False))
    def hold(draw: random.Random) -> None:
        folder = tmp_path_factory.mktemp("import")
        path = folder / name
        text = TABLES[name].format(*images)
        path.write_text(text)
        if name.endswith(".csv"):
            change_csv(path, draw)
        else:
            changed = mutate_value({"all": json.loads(text)}, draw)
            path.write_text(json.dumps(changed.get("all", changed)), errors="surrogatepass")
        out = folder / "out"
        data = made / "data"
        outcome(lambda: import_predictions(path, data=data, out=out, name="S"), name)

    hold()


def test_annotations_of_coco_results_give_a_result_or_one_line(made, tmp_path_factory):
    image = DataSet.open(made / "data").image_ids("test")[0]
    truth = {
        "images": [{"id": 1, "file_name": f"{image}.png"}],
        "categories": [{"id": 1, "name": "lung_opacity"}],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}]

    @settings(max_examples=15)
    @given(draw=st.randoms(use_true_random=False))
    def hold(draw: random.Random) -> None:
        folder = tmp_path_factory.mktemp("coco")
        (folder / "results.json").write_text(json.dumps(results))
        named = folder / "truth.json"
        named.write_text(json.dumps(mutate_value(truth, draw)), errors="surrogatepass")
        options = {"data": made / "data", "out": folder / "out", "coco_truth": named}
        outcome(lambda: import_predictions(folder / "results.json", name="S", **options), ".json")

    hold()


def test_half_a_character_in_coco_results_is_one_line(made, tmp_path):
    path = tmp_path / "results.json"
    box = {"image_id": "\ud800", "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}
    path.write_text(json.dumps([box]))
    with pytest.raises(InputError, match=r"results\.json: .*line 1 column 22"):
        import_predictions(path, data=made / "data", out=tmp_path / "out", name="S")


def test_a_table_whose_column_holds_objects_is_one_line(made, tmp_path):
    split = pq.read_table(made / "data/splits/default.parquet")
    values = pa.array([{"a": None}] + [None] * (len(split) - 1))
    column = split.column_names.index("fold")
    path = tmp_path / "split.parquet"
    pq.write_table(split.set_column(column, "fold", values), path)
    with pytest.raises(InputError, match=r"split\.parquet: .*struct<a: null>"):
        read_table(path, "split")


SHIPPED = [read_config(find_config(name)) for name in ("chexnet_small", "retinanet_lite")]
VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from([*CELLS, "[" * 2000, "1" * 5000, "1..3", "log:1..2", "true", '"\\u0000"']),
)
KEYS = st.sampled_from(
    [
        "training.epochs",
        "training.learning_rate",
        "model.weights",
        "data",
        "é",
        "training.monitor",
        "augmentation.rotate_degrees",
        "kind",
        "",
    ]
)


@settings(max_examples=30)
@given(config=st.sampled_from(SHIPPED), draw=st.randoms(use_true_random=False))
def test_a_configuration_gives_a_result_or_one_line(tmp_path_factory, config, draw):
    path = tmp_path_factory.mktemp("config") / "mine.toml"
    path.write_text(dump_config(config))
    change_toml(path, draw)
    outcome(lambda: read_config(path), "mine.toml")


@settings(max_examples=100)
@given(key=KEYS, value=VALUES, equals=st.sampled_from(["=", " = ", ""]))
def test_a_setting_or_a_range_gives_a_result_or_one_line(key, value, equals):
    text = f"{key}{equals}{value}"
    outcome(lambda: read_config(find_config("chexnet_small"), [text]), "--set")


@settings(max_examples=40)
@given(draw=st.randoms(use_true_random=False))
def test_a_protocol_gives_a_result_or_one_line(tmp_path_factory, draw):
    path = tmp_path_factory.mktemp("protocol") / "protocol.toml"
    path.write_text('target = "opacity"\nmetric = ["auroc"]\nmargin = 0.05\nsubgroups = ["view"]\n')
    change_toml(path, draw)
    outcome(lambda: read_protocol(path), "protocol.toml")


CELL = st.text(st.sampled_from("a1=+-'\",;\r\n\t é"), max_size=6).map(str.strip)


@given(cells=st.lists(CELL.filter(bool), min_size=1, max_size=4))
def test_texts_of_a_csv_file_are_read_as_they_were_written(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    write_csv(pd.DataFrame({"text": cells, "end": "x"}), path)
    assert list(read_text_table(path, ["text", "end"])["text"]) == cells
