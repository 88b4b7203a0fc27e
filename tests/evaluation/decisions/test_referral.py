"""Which images are referred to a reader, and what is left: counted by hand and by brute force."""

import numpy as np
import pytest

from evaluation.decisions.thresholds import ReferralFigures, choose_referral, doubt_of


def plain(found):
    return {name: float(value[0]) for name, value in found.figures().items()}


def test_doubt_is_highest_at_the_threshold_and_alike_on_both_sides():
    doubt = doubt_of([0.5, 0.25, 0.75, 0.01], threshold=0.5)
    assert doubt[0] == 1.0
    assert doubt[1] == pytest.approx(doubt[2]) == pytest.approx(1 / 3)
    assert doubt[3] < doubt[1]


def test_a_spread_takes_the_place_of_nearness():
    assert doubt_of([0.5, 0.9], 0.5, np.array([0.01, 0.2])).tolist() == [0.01, 0.2]


@pytest.mark.parametrize(
    ("share", "referred"),
    [(0.5, 5), (0.45, 4), (0.1, 1), (0.3, 1)],  # the tied three go together or not at all
)
def test_at_most_the_share_is_referred_and_ties_go_together(share, referred):
    doubt = np.array([0.9, 0.8, 0.8, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    cut = choose_referral(doubt, share, "nearness").cut
    assert (doubt >= cut).sum() == referred
    assert cut not in doubt  # midpoints, like every threshold


def test_where_all_are_equally_doubtful_none_is_referred_and_the_reason_is_given():
    chosen = choose_referral(np.full(6, 0.5), 0.2, "spread")
    assert chosen.cut is None
    assert chosen.reason == "more than 0.2 of the validation images are equally doubtful"


def test_four_images_counted_by_hand():
    # The surest right, then a false alarm, a hit, and the most doubtful missed.
    y_true = np.array([False, False, True, True])
    called = np.array([False, True, True, False])
    found = ReferralFigures(y_true, called, np.array([0.1, 0.2, 0.3, 0.9]), 0.5, np.arange(4))
    assert plain(found) == pytest.approx(
        {
            "aurc": (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4,
            "coverage": 3 / 4,
            "accuracy_covered": 2 / 3,
            "recall_covered": 1.0,
            "specificity_covered": 0.5,
        }
    )
    curve = found.curve()
    assert curve.coverage == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert curve.accuracy == pytest.approx([1.0, 0.5, 2 / 3, 0.5])


def test_an_image_at_the_cut_is_referred():
    y_true, doubt = np.array([True, True]), np.array([0.5, 0.4])
    found = ReferralFigures(y_true, y_true, doubt, 0.5, np.arange(2))
    assert plain(found)["coverage"] == 0.5


def test_equal_doubt_counts_together_whatever_the_order():
    y_true = np.array([True, True, False, False])
    called = np.array([True, False, True, False])
    doubt = np.array([0.3, 0.3, 0.3, 0.7])
    order = np.array([2, 0, 3, 1])
    one = ReferralFigures(y_true, called, doubt, None, np.arange(4))
    other = ReferralFigures(y_true[order], called[order], doubt[order], None, np.arange(4))
    assert plain(one) == pytest.approx({"aurc": (3 * 2 / 3 + 2 / 4) / 4})
    assert plain(other) == pytest.approx(plain(one))
    assert one.curve().coverage == [0.75, 1.0]


def test_weights_mean_the_same_as_repeated_patients():
    rng = np.random.default_rng(2)
    y_true, called = rng.random(30) < 0.4, rng.random(30) < 0.4
    doubt, patients = rng.choice([0.1, 0.3, 0.6], 30), np.arange(30) // 3
    weights = rng.multinomial(10, np.full(10, 0.1), size=4)
    together = ReferralFigures(y_true, called, doubt, 0.5, patients).figures(weights)
    for row, weight in enumerate(weights):
        taken = np.repeat(np.arange(30), weight[patients])
        alone = ReferralFigures(
            y_true[taken], called[taken], doubt[taken], 0.5, np.arange(len(taken))
        )
        for name, value in plain(alone).items():
            assert together[name][row] == pytest.approx(value, nan_ok=True)


def test_referring_what_is_wrong_raises_accuracy():
    rng = np.random.default_rng(0)
    score = rng.random(500)
    y_true = rng.random(500) < score
    doubt = doubt_of(score, 0.5)
    cut = choose_referral(doubt, 0.3, "nearness").cut
    found = plain(ReferralFigures(y_true, score >= 0.5, doubt, cut, np.arange(500)))
    assert found["coverage"] == pytest.approx(0.7, abs=0.01)
    assert found["accuracy_covered"] > ((score >= 0.5) == y_true).mean() + 0.03
