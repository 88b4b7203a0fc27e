"""Files as people have them: each is read as it is meant, or one line says what is wrong where.

A case of ``conformance/inputs/people.json`` writes ``files``, then calls the command with its
``arguments`` and ``options`` in that folder, as a user types them. The outcome is ``expect`` or
``refused``; ``said`` are lines that the user must see. A part of ``refused`` or of such a line is a
text, or a list of texts of which one is enough. ``then`` holds further calls in the same folder:
what the line advises, and its outcome.
"""

import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import people, sources, tables
from tests.adapters.commands import on_command_line
from tests.adapters.sets import data_page_only_if
from tests.advised import assert_leads_on, options_after, options_as_in_python, ways
from tests.cases import load, write_file

FIGURES = {"recall": "sensitivity"}
OUTCOMES = {"truth", "scores", "boxes", "figures", "said"}


def plain(value):
    """None for what is not known or not defined."""
    return None if pd.isna(value) else value


def by_key(keys, values):
    return {key: plain(value) for key, value in zip(keys, values, strict=True)}


def prepare(arguments, options, out):
    """A data set that is made whole: images are decoded and roles are drawn."""
    with data_page_only_if(False):
        data = cxr_compare.prepare(*arguments, out, workers=0, **options)
    path = data.images.set_index("image_id")["path"]
    split = data.split()
    return {
        **people.tables_of(path, data.findings, data.boxes),
        "roles": by_key(path[split["image_id"]], split["role"]),
        "used_roles": sorted(set(split["role"])),
        "views": by_key(path, data.images["view"]),
        "patients": people.patients_of(data.images),
        "left_out": sorted(data.table("excluded")["path"]),
        "text": str(data),
    }


def compare(arguments, options, names):
    """Readings of the systems; the comparison itself where it is asked for."""
    (systems,) = arguments
    found = {}
    if {"truth", "scores", "boxes"} & names and "data" not in options:
        found = results_read(systems, {k: v for k, v in options.items() if k != "policy"})
    if not names or "figures" in names or "data" in options or "said" in names:
        result = cxr_compare.compare(systems, replicates=100, **options)
        table = result.to_frame()
        alone = table[(table["second"] == "")]
        figures = {
            name: by_key(rows["metric"].replace(FIGURES), rows["estimate"])
            for name, rows in alone.groupby("first")
        }
        found = {**decided(result.decisions), **found, "figures": figures, "text": str(result)}
    return found


def results_read(systems, options):
    read = tables.read(systems=systems, **options)
    if isinstance(read, tuple):
        raise InputError(read[1])
    scores, boxes = {}, {}
    for name, system in read["systems"].items():
        boxes[name] = system.get("boxes")
        scores[name] = system.get("scores")
        if scores[name] is None:
            scores[name] = dict.fromkeys(system["run"], 0)
            for image, *_, score in boxes[name]:
                scores[name][image] = max(scores[name][image], score or 0)
    return {"truth": read["labels"], "scores": scores, "boxes": boxes}


def decided(decisions):
    """Labels and scores of the test images."""
    return {
        "truth": by_key(decisions["image_id"], decisions["label"]),
        "scores": {
            name: by_key(rows["image_id"], rows["score"])
            for name, rows in decisions.groupby("system")
        },
    }


@on_command_line()
def call(step, out):
    """("read", values), or ("refused", line)."""
    arguments, options = step["arguments"], step.get("options", {})
    try:
        if step["command"] == "prepare":
            read = prepare if step.get("whole") else people.read
            return "read", read(arguments, options, out)
        if step["command"] == "compare":
            return "read", compare(arguments, options, {*step.get("expect", {}), *step} & OUTCOMES)
        return "read", {"value": getattr(metrics, step["command"])(*arguments)}
    except InputError as error:
        return "refused", sources.said(error)


def again(step, options, out):
    """The outcome of a call with other options, as far as it is read."""
    return call({**step, "options": options, "whole": False, "expect": {"truth": {}}}, out)


def holds(line, parts):
    """True if each part stands in a line; of a list one is enough."""
    return all(
        any(option in line for option in ([part] if isinstance(part, str) else part))
        for part in parts
    )


def asked(figures, expected):
    """The figures of the systems that are expected by name."""
    return {
        system: {figure: figures[system].get(figure) for figure in names}
        for system, names in expected.items()
    }


def equal(found, expected):
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(equal(found[k], expected[k]) for k in found)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(equal, found, expected))
    if isinstance(expected, int | float):
        return found is not None and found == pytest.approx(expected, abs=1e-6)
    return found == expected


def check(step, out, capsys, later=()):
    """Compare an outcome with that of its case; `later` are further calls of it."""
    kind, found = call(step, out)
    lines = capsys.readouterr().err.splitlines()
    if "refused" in step:
        assert kind == "refused", found
        assert "\n" not in found
        assert holds(found, step["refused"]), found
        if step["command"] in ("prepare", "compare"):
            checked = [each.get("options") for each in later]

            def outcome(options):
                return ("read", None) if options in checked else again(step, options, out)

            assert_leads_on(found, step.get("options", {}), outcome, options_after)
        return
    assert kind == "read", found
    lines += found.get("text", "").splitlines()
    assert [options_as_in_python(line) for line in lines if options_as_in_python(line)] == []
    cautions = [line for line in lines if line.startswith("WARNING")]
    found["repeated"] = sorted({line for line in cautions if cautions.count(line) > 1})
    for name, expected in step["expect"].items():
        of_name = asked(found[name], expected) if name == "figures" else found[name]
        assert equal(of_name, expected), (name, of_name)
    for parts in step.get("said", []):
        assert any(holds(line, parts) for line in lines), lines


@pytest.mark.parametrize("case", load("inputs/people.json"))
def test_what_people_have_means_what_its_case_says(case, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in case["files"].items():
        write_file(folder, name, content, noise=True)
    monkeypatch.chdir(folder)
    steps = [case, *case.get("then", [])]
    for number, step in enumerate(steps):
        check(step, f"../set{number}", capsys, steps[number + 1 :])


# The advice that is taken from a line; the tests of conformance follow it


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "a.csv: box; if it is x, add --columns box_form=xyxy (mass 1 present); if it is y, add "
            "--columns A.box_form=xywh,A.box_unit=percent --keep-ids; correct them",
            [
                [("columns", "box_form=xyxy")],
                [("columns", "A.box_form=xywh,A.box_unit=percent"), ("keep_ids", True)],
            ],
        ),
        ("if it is none, add --columns 'unused=my column'", [[("columns", "unused=my column")]]),
        ("set: it fits coco and yolo; add --format yolo", [[("format", "yolo")]]),
        ("--sheet Befunde: no table is a spreadsheet; leave it out", [[("sheet", None)]]),
        (
            "--columns lable=x: there is no role 'lable'; did you mean 'label'?",
            [[("columns", ("lable=x", "label=x"))]],
        ),
        ("truth: has no row", []),
    ],
)
def test_ways_on_are_taken_from_a_line(line, expected):
    assert ways(line) == expected


def test_a_line_that_comes_again_is_a_dead_end_and_another_line_is_none():
    line = "a.csv: is this x? If so, add --columns label=x"
    after = {"the same": line, "on the advice": "--columns label=x: no such column"}
    for found in after.values():
        with pytest.raises(AssertionError):
            assert_leads_on(line, {}, lambda _, found=found: ("refused", found), options_after)
    assert_leads_on(line, {}, lambda _: ("refused", "a.csv: line 2: age='old'"), options_after)
    assert_leads_on(line, {}, lambda _: ("read", None), options_after)


def test_a_line_that_leaves_a_column_to_the_user_shows_the_columns():
    assert_leads_on("a.csv: no score; it has id, p; add --columns A.score=COLUMN", {}, None, None)
    with pytest.raises(AssertionError):
        assert_leads_on("a.csv: no score; add --columns A.score=COLUMN", {}, None, None)
