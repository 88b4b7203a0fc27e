"""The reference of several readers: votes on findings, and which boxes are one lesion."""

import numpy as np
import pytest

from tests.adapters import sources


def boxes(*rows):
    """Boxes of 10 x 10 px by reader, x1 and y1."""
    return [["a", "mass", reader, x, y, x + 10, y + 10] for reader, x, y in rows]


def reference(*states, drawn=(), rule="majority"):
    readers = {f"R{number}": state for number, state in enumerate(states, start=1)}
    state, joined = sources.join_readers(readers, drawn, rule)
    return state, [box[0] for box in joined]


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
def test_a_finding_is_what_enough_readers_say_and_else_uncertain(states, majority, any_, all_):
    found = [reference(*states, rule=rule)[0] for rule in ("majority", "any", "all")]
    assert found == [majority, any_, all_]


def test_the_nearest_boxes_are_joined_first_and_a_reader_has_one_box_a_lesion():
    # R2's second box is nearer to R1's than its first.
    lesion = sources.same_lesions(boxes(("R1", 0, 0), ("R2", 3, 0), ("R2", 1, 0), ("R3", 2, 0)))
    assert lesion[0] == lesion[2] == lesion[3] != lesion[1]


def test_boxes_apart_and_of_other_findings_and_images_are_other_lesions():
    assert len(set(sources.same_lesions(boxes(("R1", 0, 0), ("R2", 5, 0))))) == 2  # IoU 5 / 15
    assert len(set(sources.same_lesions(boxes(("R1", 0, 0), ("R2", 4, 0))))) == 1  # IoU 6 / 14
    one, other = boxes(("R1", 0, 0), ("R2", 0, 0))
    assert len(set(sources.same_lesions([one, ["b", *other[1:]]]))) == 2
    assert len(set(sources.same_lesions([one, ["a", "nodule", *other[2:]]]))) == 2


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_rows_changes_a_lesion_and_none_has_two_boxes_of_a_reader(seed):
    random = np.random.default_rng(seed)
    names = [f"R{number}" for number in random.integers(1, 4, 50)]
    at = random.uniform(0, 15, (50, 2)).tolist()
    rows = boxes(*((name, x, y) for name, (x, y) in zip(names, at, strict=True)))

    def lesions(rows):
        found = {}
        for row, number in zip(rows, sources.same_lesions(rows), strict=True):
            found.setdefault(number, []).append(tuple(row))
        return {frozenset(each) for each in found.values()}

    first = lesions(rows)
    assert lesions([rows[row] for row in random.permutation(50)]) == first
    for lesion in first:
        assert len({row[2] for row in lesion}) == len(lesion) <= 3


def test_a_joined_box_is_the_mean_of_its_edges_and_needs_enough_readers():
    states = ("present", "present", "present")
    drawn = boxes(("R1", 0, 0), ("R2", 1, 0), ("R3", 2, 0), ("R1", 50, 0), ("R2", 51, 0))
    for rule, starts in {"majority": [1.0, 50.5], "any": [1.0, 50.5], "all": [1.0]}.items():
        assert reference(*states, drawn=drawn, rule=rule)[1] == starts


def test_readers_who_drew_nothing_count_in_the_majority():
    states = ("present", "present", "absent", "absent", "present")
    drawn = boxes(("R1", 0, 0), ("R2", 1, 0), ("R5", 90, 0))
    assert reference(*states, drawn=drawn) == ("present", [])  # 2 of 5 at most
