"""The reference of several readers: votes on findings, and which boxes are one lesion."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.sources.joined_readers import same_lesions, with_reference


def votes(*states: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": "a",
            "finding": "mass",
            "reader": [f"R{number}" for number in range(1, len(states) + 1)],
            "state": states,
            "origin": "reader",
            "implied": False,
        }
    )


def boxes(*rows: tuple[str, float, float]) -> pd.DataFrame:
    """Boxes of 10 x 10 px by reader, x1 and y1."""
    frame = pd.DataFrame(rows, columns=["reader", "x1", "y1"])
    edges = {"x2": frame["x1"] + 10, "y2": frame["y1"] + 10}
    return frame.assign(image_id="a", finding="mass", **edges).astype({"x1": float, "y1": float})


def reference(*states: str, drawn: pd.DataFrame | None = None, rule: str = "majority"):
    """State and boxes of the reference."""
    drawn = boxes() if drawn is None else drawn
    findings, joined = with_reference(votes(*states), drawn, rule)
    return (
        findings.loc[findings["reader"] == "reference", "state"].item(),
        joined.loc[joined["reader"] == "reference", "x1"].tolist(),
    )


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
    found = [reference(*states, rule=rule)[0] for rule in ("majority", "any", "all")]
    assert found == [majority, any_, all_]


def test_the_nearest_boxes_are_joined_first_and_a_reader_has_one_box_a_lesion():
    # R2's second box is nearer to R1's than its first.
    rows = boxes(("R1", 0, 0), ("R2", 3, 0), ("R2", 1, 0), ("R3", 2, 0))
    lesion = same_lesions(rows)
    assert lesion[0] == lesion[2] == lesion[3]
    assert lesion[1] != lesion[0]


def test_boxes_apart_and_of_other_findings_and_images_are_other_lesions():
    assert len(set(same_lesions(boxes(("R1", 0, 0), ("R2", 5, 0))))) == 2  # IoU 5 / 15
    assert len(set(same_lesions(boxes(("R1", 0, 0), ("R2", 4, 0))))) == 1  # IoU 6 / 14
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


def test_a_joined_box_is_the_mean_of_its_edges_and_needs_enough_readers():
    states = ("present", "present", "present")
    drawn = boxes(("R1", 0, 0), ("R2", 1, 0), ("R3", 2, 0), ("R1", 50, 0), ("R2", 51, 0))
    for rule, starts in {"majority": [1.0, 50.5], "any": [1.0, 50.5], "all": [1.0]}.items():
        assert reference(*states, drawn=drawn, rule=rule)[1] == starts


def test_readers_who_drew_nothing_count_in_the_majority():
    states = ("present", "present", "absent", "absent", "present")
    drawn = boxes(("R1", 0, 0), ("R2", 1, 0), ("R5", 90, 0))
    assert reference(*states, drawn=drawn) == ("present", [])  # 2 of 5 at most
