"""Outcome, score and truth of an image as text."""

import pytest

from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.outcomes import describe_score, outcome

COLOUR = "#56B4E9"


@pytest.mark.parametrize(
    ("decision", "label", "localised", "sign", "why"),
    [
        (True, 1.0, True, "right", "right image and place"),
        (True, 1.0, None, "right", "place cannot be evaluated"),
        (True, 1.0, False, "wrong", "right image, wrong place"),
        (False, 1.0, None, "wrong", "missed"),
        (True, 0.0, None, "wrong", "false alarm"),
        (False, 0.0, None, "right", "clear"),
        (None, 1.0, None, "open", "no threshold"),
        (True, float("nan"), None, "open", "truth unknown"),
    ],
)
def test_outcome_of_an_image(decision, label, localised, sign, why):
    prediction = ImagePrediction("A", COLOUR, decision=decision, localised=localised)
    assert outcome(prediction, ImageTruth(label))[0] == sign, why


@pytest.mark.parametrize(
    ("score", "threshold", "text"),
    [(0.5, 0.5, "score 0.500 ≥ 0.500"), (0.50001, 0.50002, "score 0.50001 < 0.50002")],
)
def test_a_tie_is_positive_and_two_numbers_never_read_the_same(score, threshold, text):
    shown = describe_score(ImagePrediction("A", COLOUR, score=score, threshold=threshold))
    assert shown == text
