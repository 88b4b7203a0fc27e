"""Labels of few images that are a letter away from a frequent label."""

import pandas as pd
import pytest

from cxr_compare.data_prep.formats.misspelt_labels import count_changes, misspelt_labels


def findings(counts: dict[str, int], n_empty: int = 0) -> pd.DataFrame:
    """A table in which each image has one finding, and `n_empty` images have none."""
    rows = [
        {"image_id": f"{name}{number}", "finding": name, "state": "present"}
        for name, count in counts.items()
        for number in range(count)
    ]
    rows += [
        {"image_id": f"e{number}", "finding": next(iter(counts)), "state": "absent"}
        for number in range(n_empty)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("counts", "n_empty", "pair"),
    [
        ({"opacity": 30, "opacitiy": 1}, 0, ("opacitiy", "opacity")),
        ({"pneumonia": 30, "pnuemonia": 3}, 0, ("pnuemonia", "pneumonia")),
        ({"atelectasis": 30, "atelektases": 1}, 0, ("atelektases", "atelectasis")),
        ({"mass": 30, "nromal": 1}, 40, ("nromal", "normal")),
    ],
)
def test_a_rare_label_a_letter_from_a_frequent_one_is_asked_about(counts, n_empty, pair):
    (label,) = misspelt_labels(findings(counts, n_empty))
    assert (label.name, label.meant) == pair
    assert len(label.image_ids) == counts[pair[0]]
    assert f"did you mean '{pair[1]}'" in label.question
    assert ("--target" in label.question) == (pair[1] in counts)


@pytest.mark.parametrize(
    "counts",
    [
        {"opacity": 30, "opacitiy": 4},  # too many images for a slip
        {"opacity": 9, "opacitiy": 1},  # not ten times as many
        {"opacity": 30, "nodule": 1},
        {"nodule": 30, "modula": 1},  # two changes in a short word
        {"class_1": 30, "class_2": 1},
        {"pneumonia": 30, "pneumothorax": 1},
        {"mass": 30, "mess_of_lines": 1},
    ],
)
def test_other_rare_labels_are_left_alone(counts):
    assert misspelt_labels(findings(counts)) == []


def test_two_spellings_that_a_target_joins_are_not_asked_about():
    table = findings({"opacity": 30, "opacitiy": 1})
    assert misspelt_labels(table, [("opacity", "opacitiy")]) == []
    assert len(misspelt_labels(table, [("opacity",), ("opacitiy",)])) == 1


@pytest.mark.parametrize(
    ("one", "other", "changes"),
    [("abc", "abc", 0), ("abc", "ab", 1), ("abc", "xbc", 1), ("abcd", "acbd", 1), ("abc", "", 3),
     ("kitten", "sitting", 3)],
)  # fmt: skip
def test_changes_are_counted_as_by_hand(one, other, changes):
    assert count_changes(one, other, 5) == count_changes(other, one, 5) == changes
