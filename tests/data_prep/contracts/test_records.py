"""Records: a file is read as the object that wrote it; an error names file, key, rule and value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import SCHEMA_VERSION, Items, Record, Whole, write_json
from pydantic import Field


class Part(Record):
    names: Items[str] = ()
    share: float | None = None


class Bench(Record, kind="bench"):
    n: Whole
    facts: dict[str, Any] = Field(default_factory=dict)
    parts: dict[str, Part] = Field(default_factory=dict)


class Other(Record, kind="other"):
    place: tuple[float, float] = (0.0, 1.0)
    parts: dict[str, Part] = Field(default_factory=dict)


def refusal(path: Path, kind: type[Record] = Bench) -> str:
    with pytest.raises(InputError) as caught:
        kind.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_record_is_read_as_it_was_written_and_only_as_its_kind(tmp_path):
    path = tmp_path / "bench.json"
    record = Bench(n=3, parts={"a": Part(names=["x", "y"])})
    record.write(path)
    assert Bench.read(path) == record
    assert "share" not in path.read_text(), "what was not set is absent"
    assert "'bench'" in refusal(path, Other)


def test_a_written_number_is_finite(tmp_path):
    path = tmp_path / "bench.json"
    write_json(path, "bench", {"n": np.int64(3)})
    with pytest.raises(ValueError, match="finite"):
        Part(share=float("nan"))
    with pytest.raises(ValueError, match="Out of range"):
        Bench(n=1, facts={"auroc": float("nan")}).write(path)
    assert Bench.read(path).n == 3, "the refused write left the old file whole"


def test_a_record_cannot_be_changed_and_a_copy_is_checked():
    record = Bench(n=3)
    with pytest.raises(ValueError, match="frozen"):
        record.n = 4  # type: ignore[misc]
    assert record.with_values(n=4).n == 4
    with pytest.raises(ValueError, match="valid integer"):
        record.with_values(n="4")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({}, " n: "),
        ({"n": 1, "no such": 2}, " no such: "),
        ({"n": 1, "parts": {"a": {"odd": 2}}}, " parts.a.odd: "),
        ({"n": True}, " n: "),
        ({"n": 10**400}, " n: "),
        ({"n": 1, "facts": {"deep": json.loads("[" * 150 + "]" * 150)}}, None),
    ],
)
def test_content_is_checked_by_its_class(tmp_path, content, named):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"contract": "bench", "schema_version": SCHEMA_VERSION} | content))
    if named is None:
        Bench.read(path)
    else:
        assert named in refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"n": NaN}',
        '{"n": 1, "facts": {"a": 1e999}}',
        '{"n": 1, "facts": {"a": "\\ud800"}}',
        '{"n": 1, "facts": {"a": "\\u0000"}}',
        '{"n": 1, "facts": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_text_that_is_no_such_file_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "bench.json"
    header = f'{{"contract": "bench", "schema_version": {SCHEMA_VERSION}, '
    path.write_text(header + text.removeprefix("{") if text.startswith("{") else text)
    refusal(path)


def test_another_schema_version_is_refused(tmp_path):
    path = tmp_path / "opacity.json"
    path.write_text(json.dumps({"contract": "other", "schema_version": 1}))
    assert "schema version 1" in refusal(path, Other)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("parts", "a", "share"), "0.5", ("parts.a.share", "'0.5'")),
        (("place", 1), None, ("place.1", "None")),
        (("parts", "a", "names"), "steep", ("parts.a.names", "'steep'")),
    ],
)
def test_a_broken_value_is_named_with_its_position(tmp_path, place, value, named):
    content: dict[str, Any] = {"place": [0.0, 2.5], "parts": {"a": {"names": [], "share": 0.1}}}
    inner: Any = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "opacity.json"
    write_json(path, "other", content)
    message = refusal(path, Other)
    for words in named:
        assert words in message
