"""The advice that is taken from a line; the tests of conformance follow it.

`assert_leads_on` is called for each refused case of people, sources and scores, and of the commands
`prepare` and `compare`.
"""

import pytest

from tests.advised import assert_leads_on, options_after, ways


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


def test_a_line_that_comes_again_is_a_dead_end_and_another_line_is_none():
    line = "a.csv: is this x? Say --columns label=x"
    after = {"the same": line, "on the advice": "--columns label=x: no such column"}
    for found in after.values():
        with pytest.raises(AssertionError):
            assert_leads_on(line, {}, lambda _, found=found: ("refused", found), options_after)
    assert_leads_on(line, {}, lambda _: ("refused", "a.csv: line 2: age='old'"), options_after)
    assert_leads_on(line, {}, lambda _: ("read", None), options_after)


def test_a_line_that_leaves_a_column_to_the_user_shows_the_columns():
    assert_leads_on("a.csv: no score; it has id, p; say columns A.score=COLUMN", {}, None, None)
    with pytest.raises(AssertionError):
        assert_leads_on("a.csv: no score; say columns A.score=COLUMN", {}, None, None)
