"""Whatever validation chose is chosen again: the interval is that of a loop that does just that."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from cxr_compare.evaluation.refitted_choices import choose_again
from cxr_compare.evaluation.scorecard import Scorecard

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.box_choice import (
    BOX_CUT,
    MAP_CUT,
    OVERLAP,
    BoxCandidate,
    BoxChoice,
)
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.compare import check_protocol
from cxr_compare.evaluation.figure_intervals import lower_for_bias, resampled_figures
from cxr_compare.evaluation.figures import FIXED_CHOICE, REFITTED
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.sources.stored_predictions import compare_predictions
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.calibration import fit_calibration
from cxr_compare.evaluation.verdict.verdict import state_verdict
from tools.simulation.box_designs import compute_scorecard, draw_images

REPLICATES = 60


@pytest.fixture(scope="module")
def drawn():
    """Validation and test images, and what two detectors, A and B, mark on them."""
    rng = np.random.default_rng(8)
    validation, test = (draw_images(rng, size, "rsna") for size in (40, 30))
    scorecards = {name: [compute_scorecard(validation, test, at)] for at, name in enumerate("AB")}
    resamples = Resamples(test.evaluated.n_patients, REPLICATES, seed=2)
    return (
        validation,
        test,
        scorecards,
        resamples,
        resampled_figures("finding", scorecards, resamples),
    )


def resampled(images, weights):
    """Rows of the images, and these images with what is on them, under names of their own."""
    rows = np.repeat(np.arange(len(images.evaluated.y_true)), weights[images.evaluated.patients])
    names = pd.Index([f"{place:05d}" for place in range(len(rows))])
    copies = pd.DataFrame({"image_id": images.evaluated.image_ids[rows], "new": names})

    def of(table):
        joined = copies.merge(table, on="image_id")
        return joined.assign(image_id=joined["new"]).drop(columns="new")

    return rows, names, of(images.evaluated.truth), [of(boxes) for boxes in images.boxes]


def weights_of(validation, resamples):
    """The resamples of validation patients, by the number of each."""
    again = Resamples(validation.evaluated.n_patients, resamples.n_replicates, 2, stream=1)
    names = np.unique(validation.owners)  # sorted as text: the order in which they are drawn
    place = np.searchsorted(names, [f"p{n}" for n in range(validation.evaluated.n_patients)])
    return np.concatenate([*again.chunks()])[:, place]


def test_figures_of_called_boxes_are_those_of_a_loop_that_chooses_the_cut_anew(drawn):
    validation, test, scorecards, resamples, found = drawn
    of_test = np.concatenate([*resamples.chunks()])
    kept = choose_again(
        {name: scorecard.choices for name, (scorecard,) in scorecards.items()}, resamples
    )
    figures = {"rsna_score": []}
    same = []
    for row, on_validation in enumerate(weights_of(validation, resamples)):
        _, names, truth, boxes = resampled(validation, on_validation)
        cuts = []
        for name, of_one in zip(scorecards, boxes, strict=True):
            pairs_of_one = pair_boxes(of_one, truth, names)
            choice = BoxChoice([BoxCandidate(OverlapRule(), pairs_of_one)], names.to_numpy(str))
            cuts.append(kept[name][BOX_CUT][row])
            same.append(cuts[-1] == choice.cut)
            every = np.zeros(len(names), dtype=int)
            best = WeightedRsnaScore(pairs_of_one, every, 1, sorted((choice.cut, cuts[-1])))
            scores = best(np.ones((1, 1), dtype=int))[0]
            assert scores[0] == pytest.approx(scores[1], abs=1e-12)  # of equals either, by rounding
        _, names, truth, boxes = resampled(test, of_test[row])
        one = np.ones((1, len(names)), dtype=int)
        pairs = [pair_boxes(each, truth, names) for each in boxes]
        each = np.arange(len(names))
        each_own = [
            ((pair, each, len(names)), [cut]) for pair, cut in zip(pairs, cuts, strict=True)
        ]
        rsna = [WeightedRsnaScore(*of, cut)(one)[0, 0] for of, cut in each_own]
        figures["rsna_score"].append(rsna[0] - rsna[1])
    assert np.mean(same) > 0.95
    for metric, expected in figures.items():
        replicates = found.differences["A", "B"][MetricKey(ALL, "", metric)]
        np.testing.assert_allclose(replicates, expected, atol=1e-12, err_msg=metric)
        assert np.std(expected) > 0
        gap = found.figures.difference("A", "B", metric)
        assert gap.method.endswith(f", {BOX_CUT} {REFITTED}")
        assert gap.fixed_choice_interval != (gap.low, gap.high)
        assert gap.n_chosen_on == scorecards["A"][0].box_choice.n_positive > 0


def holding(scorecards, held):
    """The same detectors after a choice that is held."""
    return {
        name: [
            Scorecard(
                scorecard.evaluated, pd.Series(scorecard.scores), scorecard.thresholds,
                validation=scorecard.validation, boxes=scorecard.boxes, fixed_choices=held,
            )
        ]
        for name, (scorecard,) in scorecards.items()
    }  # fmt: skip


def test_a_fixed_cut_of_maps_is_noted_and_is_no_primary_figure(drawn):
    _, _, scorecards, resamples, _ = drawn
    held = holding(scorecards, {"boxes": "cut of map boxes"})
    figures = resampled_figures("finding", scorecards | {"B": held["B"]}, resamples).estimates
    assert figures.difference("A", "B", "ap50").method.endswith(f"{FIXED_CHOICE}: cut of map boxes")
    told = [each.text for each in state_verdict(figures, ["A", "B"], "Finding").conclusions]
    (of_boxes,) = [text for text in told if text.startswith("AP50")]
    assert "The boxes of B are cut out of a map" in of_boxes
    assert figures.get("A", "ap50").method.endswith(", lower end bias-corrected")
    seeds = resampled_figures(
        "finding", {"A": [*scorecards["A"], *scorecards["B"]]}, resamples
    ).estimates
    assert "bias-corrected" not in seeds.get("A", "ap50").method != ""  # which is not of seeds


@pytest.mark.parametrize("shift", [0.03, -0.03])
def test_the_interval_of_precision_is_the_hull_of_percentiles_and_those_without_bias(shift):
    drawn = np.random.default_rng(5).normal(0.5 + shift, 0.05, 500)
    ends, bias = np.quantile(drawn, [0.025, 0.975]), drawn.mean() - 0.5
    hull = min(ends[0], ends[0] - 2 * max(bias, 0)), ends[1]
    with_some_undefined = np.append(drawn, np.nan)
    found = lower_for_bias(with_some_undefined, 0.5)
    assert np.nanquantile(found, [0.025, 0.975]) == pytest.approx(hull)
    assert np.isnan(found).sum() == 1


@pytest.mark.parametrize(
    ("metric", "held", "refused"),
    [
        ("ap50", {"boxes": "cut of map boxes"}, "cut of map boxes"),
        ("auroc", {"boxes": "cut of map boxes"}, None),  # AUROC does not rest on it
        ("auroc", {"probability": "calibration"}, None),
    ],
)
def test_a_protocol_cannot_name_a_figure_that_rests_on_a_fixed_choice(drawn, metric, held, refused):
    scorecard = holding(drawn[2], held)["A"][0]
    model = SimpleNamespace(name="A", scorecard=scorecard, decision=Choices("finding", {}))
    protocol = Protocol(metric=metric, declared=True)
    if refused is None:
        return check_protocol(protocol, {"A": [model]})
    with pytest.raises(InputError, match=rf"no interval \({refused}\)") as raised:
        check_protocol(protocol, {"A": [model]})
    assert "\n" not in str(raised.value)
    return None


def test_a_decision_names_its_fixed_choices():
    decision = Choices("finding", {}, map_boxes=MapBoxRule(0.5))
    assert decision.fixed_choices == {"boxes": "cut of map boxes"}
    fitted = replace(decision, map_boxes=None, calibration=fit_calibration("platt", [0, 1], [0, 1]))
    assert fitted.fixed_choices == {"probability": "calibration"}
    assert replace(fitted, calibration=fit_calibration("none", [0, 1], [0, 1])).fixed_choices == {}


def test_figures_of_boxes_from_maps_name_the_cut_that_resamples_choose_again(predict, test_set):
    systems = {"A": predict("A", "boxes", seed=1), "C": predict("C", maps=True, skill=2.5, seed=3)}
    estimates = compare_predictions(systems, test_set, replicates=50).figures
    assert estimates.get("A", "froc_mean").refitted_choices == (OVERLAP,)
    assert estimates.get("A", "ap50").refitted_choices == ()
    assert estimates.get("C", "froc_mean").refitted_choices == (MAP_CUT,)
    assert estimates.get("C", "ap50").refitted_choices == (MAP_CUT,)
