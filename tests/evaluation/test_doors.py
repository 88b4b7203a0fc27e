"""One table of labels at both commands that read it: the same labels, boxes and questions."""

import re

import pandas as pd
import pytest

from tests.adapters import sources, tables
from tests.cases import load, write_file

IMAGES = ["a.png", "b.png", "c.png", "d.png"]


def of_prepare(case, folder):
    given = [folder / name for name in case["tables"] if name.endswith(".csv")]
    options = {"columns": tuple(case.get("columns", ()))} if given else {}
    kind, found = sources.read(folder, "table" if given else None, given, options)
    if kind == "refused":
        return found
    states = found["states"].get("reference", {})
    labels = {}
    for image, of_image in states.items():
        for finding, state in of_image.items():
            labels.setdefault(finding, {})[image] = state
    boxes = [[image, finding, *box] for image, finding, _, *box in found["boxes"]]
    boxed = {(image, finding) for image, finding, _, how in found["boxed"] if how == "all"}
    known = {(image, finding) for finding, of in labels.items() for image in of}
    unboxed = sorted(map(list, known - boxed)) if boxes else []
    return {"labels": labels, "boxes": boxes, "unboxed": unboxed, "left_out": found["left_out"]}


def frames_of(folder, names):
    """The tables as frames, in which numbers are numbers."""
    return [pd.read_csv(folder / name) for name in names]


def checked(expected, found):
    """Compare an outcome with that of its case."""
    if "refused" in expected:
        assert isinstance(found, str), found
        assert [part for part in expected["refused"] if part not in found] == [], found
    else:
        assert found == {"unboxed": [], "left_out": [], **expected}


def question(line, folder):
    """A line without its file, and without what each command does about it."""
    return re.split("[;?]", line.replace(f"{folder}/", "").replace("--", ""))[0]


@pytest.mark.parametrize("case", load("inputs/doors.json"))
def test_a_table_means_the_same_at_both_commands_but_for_what_is_decided(case, tmp_path):
    for name, text in case["files"].items():
        write_file(tmp_path, name, text)
    for name in case.get("images", IMAGES):
        write_file(tmp_path, name, {"image": [100, 100]})
    options = {"columns": case.get("columns", []), "target": case.get("target", [])}
    prepared = of_prepare(case, tmp_path)
    checked(case.get("both") or case["prepare"], prepared)
    paths = [tmp_path / name for name in case["tables"] or [""]]
    expected = case.get("both") or case["compare"]
    compared = tables.labels(*paths, **options)
    checked(expected, compared)
    if "refused" in case.get("both", {}):
        assert question(prepared, tmp_path) == question(compared, tmp_path)
    if paths[0].suffix == ".csv":  # a frame is a sheet like a file, and has rows in place of lines
        framed = tables.labels(*frames_of(tmp_path, case["tables"]), **options)
        assert isinstance(framed, str) == ("refused" in expected), framed
        assert isinstance(framed, str) or framed == compared
