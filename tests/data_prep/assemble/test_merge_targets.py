"""A finding made of several: present if any is, absent only if all that were asked about are."""

from pathlib import Path

import pandas as pd
import pytest

from data_prep.assemble.combine import merge_targets
from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import empty_table
from data_prep.formats.source import SourceTables, no_roles

# Two images a line: what a set says of an image, and what the made finding is.
CASES = {
    "both present": ({"mass": "present", "nodule": "present"}, "present"),
    "one present": ({"mass": "absent", "nodule": "present"}, "present"),
    "present beats uncertain": ({"mass": "uncertain", "nodule": "present"}, "present"),
    "both absent": ({"mass": "absent", "nodule": "absent"}, "absent"),
    "one absent, one unknown": ({"mass": "absent"}, None),
    "one absent, one uncertain": ({"mass": "absent", "nodule": "uncertain"}, "uncertain"),
    "nothing known": ({}, None),
}


def rows(image_id: str, states: dict[str, str], reader: str = "reference") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": image_id,
            "finding": list(states),
            "reader": reader,
            "state": list(states.values()),
            "origin": "consensus",
        },
        dtype="str",
    )


def merge(asked: dict[str, pd.DataFrame], wanted: dict, **tables: pd.DataFrame) -> SourceTables:
    findings = pd.concat(asked.values(), ignore_index=True)
    names = ("boxes", "box_coverage", "excluded")
    joined = SourceTables(
        "combined", Path(), empty_table("images"), findings,
        *(tables.get(name, empty_table(name)) for name in names), {}, no_roles(),
    )  # fmt: skip
    own = {part: {} for part in asked}
    return merge_targets(joined, own, asked, wanted)


def make_sets() -> dict[str, pd.DataFrame]:
    """One set asked about mass and nodule, the other about opacity alone."""
    one = pd.concat([rows(name, states) for name, (states, _) in CASES.items()])
    other = pd.concat([rows("white", {"opacity": "present"}), rows("clear", {"opacity": "absent"})])
    another_reader = rows("clear", {"opacity": "present"}, reader="A")
    return {"one": one, "other": pd.concat([other, another_reader])}


def test_the_state_follows_from_what_the_set_asked_about():
    made = merge(make_sets(), {"lesion": ["mass", "nodule", "opacity"]})
    states = made.findings[made.findings["finding"] == "lesion"].set_index("image_id")["state"]
    for name, (_, expected) in CASES.items():
        assert states.get(name) == expected, name
    assert (states["white"], states["clear"]) == ("present", "absent")
    assert made.targets["lesion"]["any_of"] == ["lesion"]
    assert made.findings.duplicated(["image_id", "finding", "reader"]).sum() == 0


def test_boxes_go_along_and_are_whole_only_where_those_of_every_present_finding_are():
    boxes = pd.DataFrame(
        {
            "image_id": ["both present", "one present"],
            "finding": ["mass", "nodule"],
            **{"x1": 1.0, "y1": 1.0, "x2": 9.0, "y2": 9.0, "reader": "reference"},
        }
    )
    coverage = boxes[["image_id", "finding", "reader"]].assign(coverage="all")
    wanted = {"lesion": ["mass", "nodule", "opacity"]}
    made = merge(make_sets(), wanted, boxes=boxes, box_coverage=coverage)
    assert (made.boxes["finding"] == "lesion").sum() == 2
    new = made.box_coverage[made.box_coverage["finding"] == "lesion"]
    covered = new.set_index("image_id")["coverage"].to_dict()
    # Where both are present, the nodule was not boxed; where one is absent, it needs no box.
    assert covered == {"both present": "some", "one present": "all"}


def test_a_target_that_every_set_asked_about_in_full_or_not_at_all_needs_no_new_finding():
    made = merge(make_sets(), {"either": ["mass", "nodule"]})
    assert made.targets["either"]["any_of"] == ["mass", "nodule"]
    assert len(made.findings) == sum(len(table) for table in make_sets().values())


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"a": []}, "--target a"),
        ({"a": ["mass", "gout"]}, "'gout' is in none of the sets; they have mass, nodule, opacity"),
        ({"mass": ["mass", "opacity"]}, "'mass' is a finding"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted, message):
    with pytest.raises(InputError, match=message):
        merge(make_sets(), wanted)
