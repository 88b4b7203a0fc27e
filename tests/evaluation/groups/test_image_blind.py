"""The image-blind baseline: constant positions with the system's own image scores."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.figures import Figure, Figures, image_blind_name
from cxr_compare.evaluation.groups import image_blind
from cxr_compare.evaluation.groups.image_blind import learn_places
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.verdict.verdict import state_verdict

PLACE = np.array([40.0, 80.0, 140.0, 220.0])
"""Usual place of a lesion on an image of 400 px."""
OTHER_LUNG = np.array([240.0, 80.0, 340.0, 220.0])
ELSEWHERE = np.array([300.0, 300.0, 390.0, 390.0])
FROC = MetricKey(ALL, "", "froc_mean")


def box(image_id, corners, **score):
    return {"image_id": image_id, **dict(zip(EDGES, corners, strict=True)), **score}


def compared(n_boxes):
    """Eight test images of 800 px; of four lesions, three are at the place of the validation boxes.

    The detector's box is never on a lesion, and its score is the score of the image.
    """
    n_val = 2 * n_boxes
    rows = [(f"v{n}", n % 2, "val", 400) for n in range(n_val)]
    scores = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
    rows += [(f"t{n}", int(n < 4), "test", 800) for n in range(len(scores))]
    truth = pd.DataFrame(rows, columns=["image_id", "label", "role", "width"])
    truth = truth.assign(height=truth["width"], patient_id=truth["image_id"])
    lesions = [box(f"v{n}", PLACE) for n in range(1, n_val, 2)]
    lesions += [box(f"t{n}", 2 * (ELSEWHERE if n == 2 else PLACE)) for n in range(4)]
    corner = (300.0, 290.0, 329.0, 329.0)
    found = [box(f"t{n}", corner, score=score) for n, score in enumerate(scores)]
    found += [box(f"v{n}", corner, score=0.2 + 0.5 * (n % 2) + n / 1000) for n in range(n_val)]
    systems = {"A": pd.DataFrame(found)}
    return cxr_compare.compare(systems, truth=truth, boxes=pd.DataFrame(lesions), replicates=100)


@pytest.fixture(scope="module")
def hand_made():
    return compared(n_boxes=100)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("pointing_accuracy", 3 / 4),
        ("froc_mean", 3 / 4),  # three of four lesions at one false positive, which is 1/8 an image
        ("ap50", (51 * 1 + 25 * 3 / 4) / 101),  # precision 1, 1 and 3/4 at recalls 1/4, 1/2 and 3/4
        ("ap50_decided", (51 * 1 + 25 * 3 / 4) / 101),
    ],
)
def test_figures_of_constant_places_with_the_scores_of_the_images(hand_made, metric, expected):
    figures = hand_made.to_frame().query("metric == @metric").set_index(["first", "second"])
    estimates = figures["estimate"]
    assert estimates[image_blind_name("A"), ""] == pytest.approx(expected, abs=1e-9)
    assert estimates["A", ""] == 0
    assert estimates["A", image_blind_name("A")] == pytest.approx(-expected, abs=1e-9)


def test_only_localisation_figures_have_a_baseline_and_its_p_values_are_no_further_pairs(hand_made):
    figures = hand_made.figures
    of_baseline = figures[figures["first"] == image_blind_name("A")]
    assert "auroc" not in set(of_baseline["metric"])
    assert {"wafroc", "rsna_score", "localised_sensitivity"} <= set(of_baseline["metric"])
    tests = hand_made.tests[hand_made.tests["second"] == image_blind_name("A")]
    assert len(tests)
    assert tests["p_holm_pairs"].isna().all()
    read = Figures.from_table(hand_made.figures)
    assert read.systems == ("A",)
    assert read.difference("A", image_blind_name("A"), "froc_mean").estimate < 0


def test_a_baseline_that_learned_from_fewer_than_100_boxes_has_figures_and_gives_no_claim(
    hand_made,
):
    few = compared(n_boxes=99)
    baseline = image_blind_name("A")
    rows = [
        report.to_frame()
        .query("metric == 'froc_mean' and (second != '' or first != 'A')")
        .set_index(["first", "second"])
        for report in (hand_made, few)
    ]
    same = ["estimate", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(rows[0][same], rows[1][same])
    p_values = [table.loc[("A", baseline), "p_value"] for table in rows]
    assert pd.notna(p_values[0])
    assert pd.isna(p_values[1])
    assert any("constant positions" in text.lower() for text in hand_made.findings)
    assert not any("constant positions" in text.lower() for text in few.findings)
    assert baseline not in set(few.tests["second"])
    notes = [note for note in few.answer.notes if "99 validation boxes" in note]
    assert any("claim" in note for note in notes)


def test_a_system_with_the_name_of_a_baseline_is_refused():
    scores = [0.1, 0.2, 0.8, 0.9]
    with pytest.raises(cxr_compare.InputError, match="baseline of A"):
        cxr_compare.compare({"A": scores, image_blind_name("A"): scores}, truth=[0, 0, 1, 1])


def places_of(boxes, roles):
    ids = pd.Index(roles.index)
    images = pd.DataFrame({"image_id": ids, "patient_id": ids, "width": 400, "height": 400})
    labels = pd.DataFrame({"label": 1.0}, ids)
    truth = LabelledImages(images, labels, roles, true_boxes=boxes, boxes_trusted=ids)
    return learn_places(truth, Resamples(len(ids), 50))


def drawn_boxes(roles, seed):
    rng = np.random.default_rng(seed)
    moved = PLACE + [160, 0, 160, 0] * rng.integers(0, 2, (len(roles), 1))
    table = pd.DataFrame(moved + rng.normal(0, 9, moved.shape), columns=EDGES)
    return table.assign(image_id=roles.index)


def test_test_boxes_change_neither_the_point_nor_the_boxes():
    names = [f"i{n:03d}" for n in range(240)]
    roles = pd.Series(["val", "train", "test"] * 80, index=names)
    boxes = drawn_boxes(roles, 0)
    places = places_of(boxes, roles)
    assert places.n_boxes == {"val": 80, "train": 80}
    tested = boxes["image_id"].isin(roles.index[roles == "test"])
    exchanged = boxes.copy()
    exchanged.loc[tested, EDGES] = boxes.loc[tested, EDGES].to_numpy()[::-1]
    for other in (exchanged, boxes[~tested]):
        again = places_of(other, roles)
        assert np.array_equal(again.learned.point, places.learned.point)
        assert np.array_equal(again.learned.boxes, places.learned.boxes)
        for one, other in zip(again.relearned, places.relearned, strict=True):
            assert np.array_equal(one.boxes, other.boxes)
    shifted = boxes.copy()
    shifted.loc[~tested, EDGES] += 30.0
    assert not np.array_equal(places_of(shifted, roles).learned.point, places.learned.point)


def test_validation_and_training_boxes_teach_together():
    names = [f"i{n:03d}" for n in range(90)]
    roles = pd.Series(["val"] * 20 + ["train"] * 70, index=names)
    boxes = drawn_boxes(roles, 1)
    boxes.loc[:19, EDGES] = PLACE  # those of training are twice as many at either place
    boxes.loc[20:, EDGES] = np.where(np.arange(70)[:, None] < 35, PLACE, OTHER_LUNG)
    places = places_of(boxes, roles)
    assert places.n_boxes == {"val": 20, "train": 70}
    assert np.allclose(places.learned.boxes, np.array([PLACE, OTHER_LUNG]) / 400)
    assert places.no_claim  # 90 boxes
    alone = places_of(boxes[:20], roles)
    assert np.allclose(alone.learned.boxes, [PLACE / 400])
    roles[:] = "test"
    assert places_of(boxes, roles) is None


def test_positions_are_learned_again_on_resamples_of_patients():
    names = [f"i{n:03d}" for n in range(12)]
    roles = pd.Series("val", index=names)
    places = places_of(drawn_boxes(roles, 3), roles)
    assert len(places.relearned) == 50
    assert len({tuple(each.point) for each in places.relearned}) > 5
    again = places_of(drawn_boxes(roles, 3), roles)
    assert all(
        np.array_equal(one.point, other.point)
        for one, other in zip(places.relearned, again.relearned, strict=True)
    )


@pytest.mark.parametrize("n_kept", [1, 2])
def test_moved_boxes_are_paired_as_if_they_had_been_read_there(n_kept):
    rng = np.random.default_rng(0)
    ids = pd.Index([f"i{n}" for n in range(6)])
    corners = rng.uniform(0, 60, (3, 24, 4))
    corners[..., 2:] = corners[..., :2] + rng.uniform(20, 60, (3, 24, 2))
    tables = [pd.DataFrame(each, columns=EDGES) for each in corners]
    truth = tables[0].assign(image_id=rng.choice(ids[:4], 24))
    boxes = tables[1][:12].assign(image_id=ids.repeat(2), score=rng.choice([0.3, 0.7], 6).repeat(2))
    pairs = pair_boxes(boxes, truth, ids)
    kept = np.arange(12) % 2 < n_kept  # the first one or both boxes of each image
    moved = pairs.subset(kept[pairs.boxes.row]).moved(corners[2, :12])
    there = boxes.assign(**tables[2][:12])[kept]
    expected = pair_boxes(there, truth, ids)
    assert np.array_equal(moved.iou, expected.iou)
    assert np.array_equal(moved.true, expected.true)
    assert np.array_equal(moved.boxes.corners, expected.boxes.corners)
    assert np.array_equal(moved.boxes.rank, expected.boxes.rank)


def test_best_places_of_lesions_in_two_lungs():
    names = [f"i{n:03d}" for n in range(120)]
    roles = pd.Series("val", index=names)
    left = pd.DataFrame([box(name, PLACE) for name in names])
    right = pd.DataFrame([box(name, OTHER_LUNG) for name in names[:80]])
    places = places_of(pd.concat([left, right], ignore_index=True), roles)
    assert np.allclose(places.learned.boxes, np.array([PLACE, OTHER_LUNG]) / 400)
    point = places.learned.point * 400
    assert np.all((point > PLACE[:2]) & (point < PLACE[2:]))


def test_lesions_too_small_for_any_constant_box_still_give_one():
    names = [f"i{n:03d}" for n in range(5)]
    corners = np.array([[0, 0, 4, 4], [390, 11, 394, 15], [201, 7, 205, 11], [13, 371, 17, 375],
                        [389, 391, 393, 395]], dtype=float)  # fmt: skip
    boxes = pd.DataFrame([box(name, place) for name, place in zip(names, corners, strict=True)])
    assert 1 <= len(places_of(boxes, pd.Series("val", index=names)).learned.boxes) <= 4


def test_sizes_that_are_unknown_leave_positions_in_px():
    names = [f"i{n:03d}" for n in range(20)]
    roles = pd.Series(["val", "test"] * 10, index=names)
    images = pd.DataFrame({"image_id": names, "patient_id": names})
    boxes = pd.DataFrame([box(name, PLACE) for name in names[::2]])
    labels = pd.DataFrame({"label": 1.0}, names)
    ids = pd.Index(names)
    truth = LabelledImages(images, labels, roles, true_boxes=boxes, boxes_trusted=ids)
    places = learn_places(truth, Resamples(20, 10))
    assert np.allclose(places.learned.boxes, [PLACE])
    on_test = places.boxes_on(places.learned, pd.Series([0.7], ["i001"]), 1)
    assert on_test[[*EDGES, "score"]].to_numpy().tolist() == [[*PLACE, 0.7]]


def localisation_figures(low, high):
    """FROC means of a system and its baseline, with an interval of their difference."""
    gap = Figure((low + high) / 2, low, high, interval_at=lambda _: (low, high))
    return Figures(
        "opacity",
        "image",
        ("A",),
        {
            ("A", ""): {MetricKey(ALL, "", "auroc"): Figure(0.9, 0.8, 0.95), FROC: Figure(0.7)},
            (image_blind_name("A"), ""): {FROC: Figure(0.7 - gap.estimate)},
            ("A", image_blind_name("A")): {FROC: gap},
        },
    )


@pytest.mark.parametrize(
    ("low", "high", "leader"),
    [(0.1, 0.3, "A"), (-0.1, 0.3, ""), (-0.4, -0.2, image_blind_name("A"))],
)
def test_a_system_localises_only_by_its_difference_from_the_baseline(low, high, leader):
    figures = localisation_figures(low, high)
    (conclusion,) = state_verdict(figures, ["A"], "opacity").conclusions
    assert conclusion.kind == "image_blind"
    assert conclusion.claims[0].leader == leader
    assert conclusion.decided == bool(leader)
    assert conclusion.text.startswith("A localises") == (leader == "A")


def test_a_primary_localisation_figure_is_told_with_its_baseline():
    figures = localisation_figures(0.1, 0.3)
    verdict = state_verdict(figures, ["A"], "opacity", protocol=Protocol(metric="froc_mean"))
    assert verdict.conclusions[0].text in verdict.headline
    by_auroc = state_verdict(figures, ["A"], "opacity")
    assert by_auroc.conclusions[0].text not in by_auroc.headline


@pytest.fixture(scope="module")
def duplicated():
    """A detector with a second, worse box on each lesion, and the same without these boxes."""
    rng = np.random.default_rng(5)
    names = [f"i{n:03d}" for n in range(160)]
    truth = pd.DataFrame({"image_id": names, "patient_id": names, "width": 400, "height": 400})
    truth["label"] = np.arange(160) % 2
    truth["role"] = np.where(np.arange(160) < 80, "val", "test")
    lesions = [box(name, PLACE + rng.integers(0, 150)) for name in names[1::2]]
    once = []
    for lesion in lesions:
        corners = np.array([lesion[edge] for edge in EDGES]) + rng.normal(0, 12, 4)
        once.append(box(lesion["image_id"], corners, score=rng.uniform(0.3, 0.9)))
    once += [box(name, ELSEWHERE, score=rng.uniform(0.05, 0.7)) for name in names]
    twice = [{**row, "score": row["score"] - 0.02, "x2": row["x2"] + 3} for row in once]
    systems = {"Raw": pd.DataFrame(once + twice), "Suppressed": pd.DataFrame(once)}
    return systems, truth, pd.DataFrame(lesions)


def test_one_detector_is_not_better_than_itself_after_suppression(duplicated):
    systems, truth, lesions = duplicated
    report = cxr_compare.compare(systems, truth=truth, boxes=lesions, replicates=100)
    table = report.to_frame().query("first == 'Raw' and second == 'Suppressed'").set_index("metric")
    assert table.loc["ap50", "estimate"] < -0.05
    assert table.loc[["ap50", "ap"], "p_value"].isna().all()
    assert table.loc["ap50_decided", "estimate"] == 0
    assert not {"ap50", "ap"} & set(report.tests["metric"])
    assert "higher" not in "".join(text for text in report.findings if "AP50" in text)


def test_without_validation_images_no_claim_rests_on_boxes(duplicated):
    systems, truth, lesions = duplicated
    report = cxr_compare.compare(
        systems, truth=truth.drop(columns="role"), boxes=lesions, replicates=100
    )
    rows = report.to_frame().query("metric in ['ap50_decided', 'froc_mean', 'wafroc']")
    assert rows["p_value"].isna().all()
    (of_boxes,) = [text for text in report.findings if "AP50" in text]
    assert "higher" not in of_boxes
    assert "no claim" in of_boxes
    assert "image_blind" in {note.kind for note in report.compared.comparison.notes}


def with_boxes_an_image(per_image, positions=(PLACE, OTHER_LUNG)):
    """Compare a detector that gives boxes at positions in turn, on 60 and 60 images."""
    rng = np.random.default_rng(8)
    names = [f"i{n:03d}" for n in range(120)]
    truth = pd.DataFrame({"image_id": names, "patient_id": names, "width": 400, "height": 400})
    truth["label"] = np.arange(120) % 2
    truth["role"] = np.where(np.arange(120) < 60, "val", "test")
    lesions = []
    for number, name in enumerate(names[1::2]):
        place = positions[number % 2] + np.tile(rng.normal(0, 25, 2), 2)
        lesions.append(box(name, place))
    score = rng.uniform(0.3, 0.6, 120) + 0.3 * truth["label"]
    found = [
        box(name, ELSEWHERE - [70 * rank, 0, 70 * rank, 0], score=score[number] - 0.01 * rank)
        for number, name in enumerate(names)
        for rank in range(per_image)
    ]
    systems = {"A": pd.DataFrame(found)}
    return cxr_compare.compare(systems, truth=truth, boxes=pd.DataFrame(lesions), replicates=100)


def test_the_baseline_has_as_many_boxes_an_image_as_the_system():
    counts = []
    for per_image in (1, 3):
        (note,) = (
            note
            for note in with_boxes_an_image(per_image).compared.comparison.notes
            if note.kind == "image_blind"
        )
        counts.append(f"(A: {per_image} an image" in note.text)
    assert counts == [True, True]


def test_an_interval_of_the_difference_includes_the_learning_of_positions(monkeypatch):
    widths = []
    for relearned in (image_blind.RELEARNED, 0):
        monkeypatch.setattr(image_blind, "RELEARNED", relearned)
        table = with_boxes_an_image(2).to_frame()
        of_difference = (table["second"] == image_blind_name("A")) & (table["metric"] == "ap50")
        (row,) = table[of_difference].to_dict("records")
        widths.append(row["ci_high"] - row["ci_low"])
    assert widths[0] > 1.1 * widths[1]
