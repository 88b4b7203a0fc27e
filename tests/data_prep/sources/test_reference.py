"""The reference of several readers: votes on findings, and which boxes are one lesion."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.formats.reference import (
    box_coverage_of_readers,
    fuse_boxes,
    same_lesions,
    vote_findings,
)

from cxr_compare.data_prep.contracts.text import TEXT


def votes(*states: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": "a",
            "finding": "mass",
            "reader": [f"R{number}" for number in range(1, len(states) + 1)],
            "state": states,
            "origin": "reader",
        }
    )


def boxes(*rows: tuple[str, float, float]) -> pd.DataFrame:
    """Boxes of 10 x 10 px by reader, x1 and y1."""
    frame = pd.DataFrame(rows, columns=["reader", "x1", "y1"])
    edges = {"x2": frame["x1"] + 10, "y2": frame["y1"] + 10}
    return frame.assign(image_id="a", finding="mass", **edges).astype({"x1": float, "y1": float})


@pytest.mark.parametrize(
    ("states", "majority", "any_", "all_"),
    [
        (("present", "present", "absent"), "present", "present", "absent"),
        (("present", "absent", "absent"), "absent", "present", "absent"),
        (("present", "absent"), "uncertain", "present", "absent"),  # one against one
        (("present", "uncertain"), "uncertain", "present", "uncertain"),
        (("absent", "uncertain", "absent"), "absent", "uncertain", "absent"),
        (("absent", "absent", "absent"), "absent", "absent", "absent"),
        (("present",), "present", "present", "present"),
    ],
)
def test_votes(states, majority, any_, all_):
    rules = ("majority", "any", "all")
    found = [vote_findings(votes(*states), rule)["state"] for rule in rules]
    assert [state.item() for state in found] == [majority, any_, all_]


def test_the_nearest_boxes_are_joined_first_and_a_reader_has_one_box_a_lesion():
    # R2's second box is nearer to R1's than its first.
    rows = boxes(("R1", 0, 0), ("R2", 3, 0), ("R2", 1, 0), ("R3", 2, 0))
    lesion = same_lesions(rows)
    assert lesion[0] == lesion[2] == lesion[3]
    assert lesion[1] != lesion[0]


def test_boxes_at_the_limit_stay_apart_and_other_findings_and_images_too():
    rows = boxes(("R1", 0, 0), ("R2", 6, 0))  # IoU 4 / 16
    assert len(set(same_lesions(rows, iou=0.25))) == 2
    assert len(set(same_lesions(rows, iou=0.249))) == 1
    for column in ("image_id", "finding"):
        apart = boxes(("R1", 0, 0), ("R2", 0, 0)).assign(**{column: ["a", "b"]})
        assert len(set(same_lesions(apart))) == 2


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(3)
    names = [f"R{number}" for number in rng.integers(1, 4, 40)]
    rows = boxes(*zip(names, rng.uniform(0, 20, 40), rng.uniform(0, 20, 40), strict=True))
    first = rows.assign(lesion=same_lesions(rows)).groupby("lesion")["x1"].apply(frozenset)
    for seed in range(5):
        mixed = rows.sample(frac=1, random_state=seed)
        again = mixed.assign(lesion=same_lesions(mixed)).groupby("lesion")["x1"].apply(frozenset)
        assert set(first) == set(again)


def test_a_lesion_never_has_two_boxes_of_one_reader():
    rng = np.random.default_rng(4)
    names = [f"R{number}" for number in rng.integers(1, 4, 60)]
    rows = boxes(*zip(names, rng.uniform(0, 12, 60), rng.uniform(0, 12, 60), strict=True))
    grouped = rows.assign(lesion=same_lesions(rows)).groupby("lesion")["reader"]
    assert (grouped.nunique() == grouped.size()).all()
    assert grouped.size().max() == 3


def test_a_fused_box_is_the_mean_of_its_edges_and_needs_enough_readers():
    findings = votes("present", "present", "present")
    rows = boxes(("R1", 0, 0), ("R2", 1, 0), ("R3", 2, 0), ("R1", 50, 0), ("R2", 51, 0))
    for rule, starts in {"majority": [1.0, 50.5], "any": [1.0, 50.5], "all": [1.0]}.items():
        reference = vote_findings(findings, rule)
        assert fuse_boxes(findings, rows, reference, rule)["x1"].tolist() == starts


def test_readers_who_drew_nothing_count_in_the_majority():
    findings = votes("present", "present", "absent", "absent", "present")
    rows = boxes(("R1", 0, 0), ("R2", 1, 0), ("R5", 90, 0))
    reference = vote_findings(findings, "majority")
    assert reference["state"].item() == "present"
    assert fuse_boxes(findings, rows, reference, "majority").empty  # 2 of 5 at most
    coverage = box_coverage_of_readers(reference, rows.iloc[:0], pd.Series(["mass"]))
    assert coverage.empty


def test_no_readers_give_no_reference():
    nobody = votes().astype(TEXT)
    nothing = boxes().astype({"reader": TEXT}).assign(image_id="", finding="")
    reference = vote_findings(nobody, "majority")
    assert reference.empty
    assert fuse_boxes(nobody, nothing, reference, "majority").empty
