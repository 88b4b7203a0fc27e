"""Choices on validation that no resample makes again: named, noted and no primary figure."""

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.box_choice import MAP_CUT, OVERLAP
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.compare import check_protocol
from cxr_compare.evaluation.figures import FIXED_CHOICE
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.calibration import fit_calibration
from cxr_compare.evaluation.verdict.verdict import state_verdict
from tests.compared import compare_predictions
from tests.evaluation.boxes.simulated import simulate
from tests.evaluation.evaluated_images import evaluated_images, figures_of, model_of

FIXED_CUT = {"map_boxes": MapBoxRule(0.5)}
"""A stored rule that cuts boxes out of maps; what chose it is not known."""


def test_a_fixed_cut_of_maps_is_noted():
    a, truth, ids = simulate(1, 60)
    b = simulate(1, 60, jitter=9)[0]
    y_true = ids.isin(truth["image_id"])
    images = evaluated_images(y_true, image_ids=ids, is_boxed=np.ones(60, bool), true_boxes=truth)
    models = {
        "A": [model_of(images, None, boxes=a)],
        "B": [model_of(images, None, boxes=b, **FIXED_CUT)],
    }
    resamples = Resamples(60, 60)
    figures = figures_of(models, resamples)
    assert figures.difference("A", "B", "ap50").method.endswith(f"{FIXED_CHOICE}: {MAP_CUT}")
    told = [each.text for each in state_verdict(figures, ["A", "B"], "Finding").conclusions]
    (of_boxes,) = [text for text in told if text.startswith("AP50")]
    assert "The boxes of B are cut out of a map" in of_boxes
    assert figures.get("A", "ap50").method.endswith(", lower end bias-corrected")
    seeds = figures_of({"A": [*models["A"], *models["A"]]}, resamples)
    assert "bias-corrected" not in seeds.get("A", "ap50").method != ""  # which is not of seeds


def test_a_protocol_cannot_name_a_figure_that_rests_on_a_fixed_choice():
    calibration = fit_calibration("platt", [0, 1], [0, 1])
    model = model_of(evaluated_images([0, 1]), [0.1, 0.9], calibration=calibration, **FIXED_CUT)
    check_protocol(Protocol(metric="auroc", declared=True), {"A": [model]})  # rests on neither
    with pytest.raises(InputError, match=rf"no interval \({MAP_CUT}\)") as raised:
        check_protocol(Protocol(metric="ap50_decided", declared=True), {"A": [model]})
    assert "\n" not in str(raised.value)


def test_a_decision_names_its_fixed_choices():
    decision = Choices(target="finding", chosen_on={}, map_boxes=MapBoxRule(0.5))
    assert decision.fixed_choices == {"boxes": "cut of map boxes"}
    platt, none = (fit_calibration(method, [0, 1], [0, 1]) for method in ("platt", "none"))
    fitted = decision.with_values(map_boxes=None, calibration=platt)
    assert fitted.fixed_choices == {"probability": "calibration"}
    assert fitted.with_values(calibration=none).fixed_choices == {}


def test_figures_of_boxes_from_maps_name_the_cut_that_resamples_choose_again(predict, test_set):
    systems = {"A": predict("A", "boxes", seed=1), "C": predict("C", maps=True, skill=2.5, seed=3)}
    estimates = compare_predictions(systems, test_set, replicates=50).figures
    assert estimates.get("A", "froc_mean").choices == {OVERLAP: True}
    assert estimates.get("A", "ap50").choices == {}
    assert estimates.get("C", "froc_mean").choices == {MAP_CUT: True}
    assert estimates.get("C", "ap50").choices == {MAP_CUT: True}
