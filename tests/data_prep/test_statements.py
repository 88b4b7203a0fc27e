"""Statements of readers (persons) become labels, and those of several readers one reference."""

import numpy as np
import pytest

from tests.adapters import sources

STATES = {"present": 1, "absent": 0, "uncertain": "?"}
READERS = ("reference", "R1")


def labels_by_hand(rows, normal):
    """State by reader, image and finding; without the images about which a reader says two things.

    An absence that only follows is none where the reader states something.
    """
    said = {}
    for image, finding, state, reader, implied, boxed in rows:
        kind = "boxes" if boxed else "implied" if implied else "labels"
        of_key = said.setdefault((reader, image, finding), {})
        of_key.setdefault(kind, set()).add(state)
    states, left_out = {}, set()
    for (reader, image, finding), kinds in said.items():
        boxed = kinds.get("boxes", set())
        chosen = kinds.get("labels") or boxed or kinds["implied"]
        is_named = bool(boxed) or "present" in chosen
        is_denied = bool(boxed) and "absent" in chosen | boxed
        if len(chosen) > 1 or is_denied or (is_named and (image, reader) in normal):
            left_out.add(image)
        states.setdefault(reader, {}).setdefault(image, {})[finding] = STATES[min(chosen)]
    for image, findings in states.get("R1", {}).items():  # one person is the majority
        of_image = states.setdefault("reference", {}).setdefault(image, {})
        states["reference"][image] = {**findings, **of_image}
    kept = {
        reader: {image: of for image, of in images.items() if image not in left_out}
        for reader, images in states.items()
    }
    return {reader: images for reader, images in kept.items() if images}, left_out


def drawn_statements(random, image, most):
    """Up to some statements of an image, and the readers who find nothing on it."""
    rows = []
    for _ in range(random.integers(most + 1)):
        finding = random.choice(["mass", "nodule"])
        state = random.choice(list(STATES))
        kind = random.choice(["label", "box", "implied"])
        row = [image, finding, state, random.choice(READERS), kind == "implied", kind == "box"]
        rows.append([str(value) if isinstance(value, str) else bool(value) for value in row])
    return rows, [(image, reader) for reader in READERS if random.random() < most / 50]


def test_what_nobody_states_is_unknown_and_what_contradicts_itself_is_left_out():
    random = np.random.default_rng(1)
    images = [f"i{number}" for number in range(1500)]
    # Only few images may contradict themselves: else the whole table is asked about.
    drawn = [drawn_statements(random, image, 4 if n < 200 else 1) for n, image in enumerate(images)]
    rows = [row for of_image, _ in drawn for row in of_image]
    normal = {pair for _, of_image in drawn for pair in of_image}
    found = sources.built(images, rows, normal)
    states, left_out = labels_by_hand(rows, normal)
    assert 20 < len(left_out) < 150
    assert found["states"] == states
    assert set(found["images"]) == set(images) - left_out
    assert set(found["left_out"]) == left_out
    boxes = {(row[0], row[1], row[3]) for row in rows if row[5] and row[0] not in left_out}
    of_person = {key for key in boxes if key[2] == "R1"}
    assert {tuple(box[:3]) for box in found["boxes"] if box[2] == "R1"} == of_person
    complete = {tuple(row[:3]) for row in found["boxed"] if row[3] == "all"}
    absent = {
        (image, finding, reader)
        for reader, of_reader in states.items()
        for image, findings in of_reader.items()
        for finding, state in findings.items()
        if state == 0
    }
    assert absent <= complete


# Several readers


def squares(*rows):
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


@pytest.mark.parametrize("seed", range(2))
def test_no_order_of_rows_changes_a_lesion_and_none_has_two_boxes_of_a_reader(seed):
    random = np.random.default_rng(seed)
    names = [f"R{number}" for number in random.integers(1, 4, 50)]
    at = random.uniform(0, 15, (50, 2)).tolist()
    rows = squares(*((name, x, y) for name, (x, y) in zip(names, at, strict=True)))

    def lesions(rows):
        found = {}
        for row, number in zip(rows, sources.same_lesions(rows), strict=True):
            found.setdefault(number, []).append(tuple(row))
        return {frozenset(each) for each in found.values()}

    first = lesions(rows)
    assert lesions([rows[row] for row in random.permutation(50)]) == first
    for lesion in first:
        assert len({row[2] for row in lesion}) == len(lesion) <= 3


def test_readers_who_drew_nothing_count_in_the_majority():
    states = ("present", "present", "absent", "absent", "present")
    drawn = squares(("R1", 0, 0), ("R2", 1, 0), ("R5", 90, 0))
    assert reference(*states, drawn=drawn) == ("present", [])  # 2 of 5 at most
