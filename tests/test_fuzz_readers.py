"""Fuzz of what the program writes and reads again: a result, or one line that names the file.

`tests.attacks.strangers` runs the same with thousands of examples. Sources of every format, images
and uploads have tests of their own (``test_fuzz_tables.py``, ``test_fuzz_images.py`` and
``test_fuzz_uploads.py``).
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

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import SCHEMA_VERSION, SEAL, atomic_path, read_json
from data_prep.contracts.schemas import JSON_SHAPES, broken_shape, odd_value
from data_prep.store.dataset import DataSet
from evaluation.studies.study_plan import plans_of_readers
from scripts.import_predictions import import_predictions
from scripts.next_steps import next_steps
from scripts.prepare import prepare
from scripts.show import show
from scripts.synth import synth
from tests.attacks import flips

DEEP: Any = 0
for _ in range(900):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 10**30, 10**400, 0.5, -1e300, float("nan"), float("inf"), "", " ", "0",
    "a/../b", "/etc/passwd", "\0", "\ud800", "\u202e<b>é中", "a\rb", "x" * 3000, [], [[]], ["a"],
    [None], [1, "a"], {}, {"": {}}, {"a": None}, DEEP,
)  # fmt: skip
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
    kept = [way for way in ways if way[0] not in ("contract", "schema_version", *SEAL)]
    *above, last = draw.choice(kept or ways)
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


def write_sealed(path: Path, text: str) -> None:
    """A file as a stranger writes it, whose checksum is right."""
    with atomic_path(path, sealed=True) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogatepass")


def change_json(path: Path, draw: random.Random) -> None:
    content = {k: v for k, v in json.loads(path.read_text()).items() if k not in SEAL}
    write_sealed(path, json.dumps({**mutate_value(content, draw), **SEAL}))


def change_toml(path: Path, draw: random.Random) -> None:
    content = mutate_value(tomllib.loads(path.read_text()), draw)
    try:
        text = tomli_w.dumps(content)
    except (TypeError, ValueError, AttributeError, RecursionError):  # TOML has no such value
        text = path.read_text().replace("=", draw.choice(CELLS), 1)
    write_sealed(path, text)


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
    """Another type or value in a column, or none; the table is sealed again."""
    table = pq.read_table(path)
    place, odd, kind = draw.randrange(table.num_columns), draw.choice(ODD[:-1]), draw.randrange(4)
    name, values = table.column_names[place], table.column(place).to_pylist()
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = draw.choice([table.slice(0, 0), table.slice(1), pa.concat_tables([table] * 2)])
    else:
        with suppress(pa.ArrowException, OverflowError, ValueError, TypeError):
            values = [odd] * len(values) if kind == 2 else [odd, *values[1:]]
            table = table.set_column(place, name, pa.array(values))
    metadata = {**(table.schema.metadata or {}), **SEAL}
    with suppress(pa.ArrowException), atomic_path(path, sealed=True) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


CHANGES: dict[str, Callable[[Path, random.Random], None]] = {
    ".json": change_json, ".toml": change_toml, ".csv": change_csv, ".parquet": change_parquet,
}  # fmt: skip


def opened(folder: Path) -> None:
    """All that `cxr show`, the next commands and the readers of a folder read in it."""
    str(show(folder))
    next_steps(folder)
    markers = [name for name in flips.READERS if (folder / name).is_file()]
    if markers:
        list(flips.READERS[markers[0]](folder))
    if (folder / "readers.json").is_file():
        plans_of_readers(folder)


def fell(folder: Path, path: Path) -> str | None:
    """What came of opening a folder with a changed file, in words; None where all is well."""
    try:
        opened(folder)
    except InputError as error:
        above = [path.name, *(p.name for p in path.parents if p.is_relative_to(folder))]
        named = any(name in str(error) for name in above) and "\n" not in str(error)
        return None if named else f"names no file: {error}"
    except Exception as error:  # noqa: BLE001
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({place.filename}:{place.lineno})"
    return None


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that are changed: those that the program reads again."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in CHANGES and path.is_file())
    return [p for p in found if not any(part.startswith(".") for part in p.parts[-3:])]


def try_one(folder: Path, path: Path, draw: random.Random) -> str | None:
    """Change a file once, open its folder, and put the file back."""
    before = path.read_bytes()
    try:
        CHANGES[path.suffix](path, draw)
        return fell(folder, path)
    finally:
        path.write_bytes(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("fuzz")
    synth(work / "xrays", images=16, size=64, seed=5)
    prepare(work / "xrays", work / "data", format="rsna", size=[64])
    images = DataSet.open(work / "data").images["image_id"]
    pd.DataFrame({"image_id": images, "score": 0.5}).to_csv(work / "scores.csv", index=False)
    import_predictions(work / "scores.csv", data=work / "data", out=work / "scores", name="S")
    return work


@pytest.mark.parametrize(
    ("name", "suffix", "examples"),
    [("data", ".json", 30), ("data", ".parquet", 20), ("scores", ".json", 60),
     ("scores", ".parquet", 20), ("xrays", ".json", 30)],
)  # fmt: skip
def test_changed_files_give_a_result_or_one_line(made, name, suffix, examples):
    folder = made / name
    paths = [path for path in files_of(folder) if path.suffix == suffix]

    @settings(max_examples=examples)
    @given(path=st.sampled_from(paths), draw=st.randoms(use_true_random=False))
    def hold(path: Path, draw: random.Random) -> None:
        assert try_one(folder, path, draw) is None

    hold()


@given(kind=st.sampled_from(sorted(JSON_SHAPES)), draw=st.randoms(use_true_random=False))
def test_json_that_is_not_of_its_shape_is_refused_by_its_name(tmp_path_factory, kind, draw):
    path = tmp_path_factory.mktemp("json") / f"{kind}.json"
    known = {"contract": kind, "schema_version": SCHEMA_VERSION}
    shape = {key.removesuffix("?"): draw.choice(ODD) for key in JSON_SHAPES[kind]}
    write_sealed(path, json.dumps({**shape, **known, **SEAL}))
    content = {**shape, **known}
    if odd_value(content) is None and broken_shape(content, JSON_SHAPES[kind]) is None:
        with pytest.raises(InputError, match=rf"{kind}\.json: lacks 'no such key'"):
            _ = read_json(path, kind)["no such key"]
    else:
        with pytest.raises(InputError, match=rf"{kind}\.json: .*; bring back an unchanged copy"):
            read_json(path, kind)
