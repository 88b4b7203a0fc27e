"""Tables of boxes and scores as people have them: what each means, or what its refusal names."""

import base64
import json

import numpy as np
import pandas as pd
import pytest

from cxr_compare import InputError, boxes_table
from tests.adapters import tables
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
            found = tables.read(truth, systems, **given, **options)
            return found if isinstance(found, tuple) else ("read", found)

        assert_leads_on(got[1], options, outcome, options_after)
        return
    assert isinstance(got, dict), got
    if "finding" not in case["read"]:  # labels that nobody named may be called anything
        got.pop("finding", None)
    assert plain(got) == plain(whole(case["read"]))
