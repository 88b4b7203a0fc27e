"""What the line of a refusal advises leads on: the same line never comes again.

Each refused case of ``conformance/inputs`` is called again with each way on that its line advises.
"""

import itertools
import json
import re

import pytest

from cxr_compare import InputError
from tests import test_conformance_people as of_people
from tests import test_conformance_sources as of_sources
from tests import test_conformance_tables as of_tables
from tests.adapters import people, tables
from tests.advised import is_placeholder, options_after, ways
from tests.cases import CONFORMANCE

PEOPLE, SCORES = "inputs/people.json", "inputs/scores.json"


def refused_calls(name, case, folder):
    """Options of each call of a case that is refused, and a function from options to the outcome.

    An outcome is ("read", anything) or ("refused", line).
    """
    if name == PEOPLE:
        of_people.write(folder, case["files"])
        for step in (case, *case.get("then", [])):
            if "refused" in step and step["command"] in ("prepare", "compare"):
                options = step.get("options", {})
                yield options, lambda options, step=step: outcome_of_step(step, options)
    elif "refused" not in case:
        return
    elif name == SCORES:
        of_tables.write(case.get("files", {}), folder)
        yield case.get("options", {}), lambda options: outcome_of_scores(case, options, folder)
    else:
        number = itertools.count()
        options = {"format": case["format"], **case.get("options", {})}
        yield options, lambda options: outcome_of_source(case, options, folder / f"{next(number)}")


def outcome_of_step(step, options):
    """A call of people.json; nothing is decoded or evaluated."""
    if step["command"] == "compare":
        return of_people.call({**step, "options": options, "expect": {"truth": {}}}, None)
    try:
        return "read", people.read(step["arguments"], options, "../set")
    except InputError as error:
        return "refused", str(error)


def outcome_of_scores(case, options, folder):
    def made(value):
        return of_tables.made(value, folder)

    given = {name: made(case[name]) for name in ("boxes", "patients") if name in case}
    systems = case["systems"]
    if isinstance(systems, dict):
        systems = {name: made(value) for name, value in systems.items()}
    else:
        systems = [made(value) for value in systems]
    found = tables.read(made(case["truth"]), systems, **given, **options)
    return found if isinstance(found, tuple) else ("read", found)


def outcome_of_source(case, options, folder):
    folder.mkdir()
    options = dict(options)
    form = options.pop("format")
    return of_sources.outcome({**case, "format": form, "options": options}, folder)


def is_dead_end(line, way, outcome):
    """True if the same line comes again, or one that complains of what was advised."""
    kind, found = outcome
    advised = tuple(f"{sign}{option.replace('_', '-')}" for option, _ in way for sign in ("--", ""))
    return kind == "refused" and (found == line or found.startswith(advised))


def names_columns(line):
    """True if a line that leaves a name to the user shows the names, or cannot know them."""
    return re.search(r"\bit (also )?has \S|'[^']+' or '[^']+'|\bnone of (its|the) \d", line)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*of_sources.FILES, PEOPLE, SCORES])
def test_no_advice_leads_back_to_the_same_line(name, tmp_path, monkeypatch):
    dead_ends, nameless = [], []
    for number, case in enumerate(json.loads((CONFORMANCE / name).read_text())["cases"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        for options, outcome in refused_calls(name, case, folder):
            kind, line = outcome(options)
            advised = ways(line) if kind == "refused" else []  # read: the case is not yet true
            followed = [way for way in advised if not is_placeholder(way)]
            for way in followed:
                found = outcome(options_after(options, way))
                if is_dead_end(line, way, found):
                    dead_ends.append((case["name"], way, found[1]))
            if advised and not followed and "=COLUMN" in line and not names_columns(line):
                nameless.append((case["name"], line))
    assert dead_ends == []
    assert nameless == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "is this x? If so, say --columns box_form=xyxy; if not, say --columns box_form=xywh",
            [[("columns", "box_form=xyxy")], [("columns", "box_form=xywh")]],
        ),
        (
            "If so, say columns A.box_form=xywh, and say columns A.box_unit=percent. Or correct it",
            [[("columns", "A.box_form=xywh"), ("columns", "A.box_unit=percent")]],
        ),
        ("say --columns 'unused=my column' if it is none", [[("columns", "unused=my column")]]),
        ("set: it fits coco and yolo; say --format yolo", [[("format", "yolo")]]),
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
