"""What is ruled out, referred or ruled in, and the share that is referred: counted by hand."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.decisions.decided_output import decide
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.thresholds import ThresholdChoice
from cxr_compare.evaluation.decisions.triage import Triage
from cxr_compare.evaluation.decisions.tuning_options import TuningOptions
from cxr_compare.evaluation.report.methods import methods
from cxr_compare.evaluation.report.metrics_json import metrics_json
from cxr_compare.evaluation.statistics.figure_text import score_text
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.systems.stored_predictions import (
    checked_decision,
    compare_predictions,
    read_output,
    tune_predictions,
)

OUT, IN = "sensitivity>=0.60@0.80", "specificity>=0.90@0.80"
OPTIONS = TuningOptions(rule_out=OUT, rule_in=IN)
SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
WHY = "5 patients have the finding, 22 are needed"


def triage(out, into, options=OPTIONS, patients=None):
    chosen = {OUT: ThresholdChoice(OUT, out, None if out else WHY),
              IN: ThresholdChoice(IN, into, None if into else WHY)}  # fmt: skip
    patients = np.arange(10) if patients is None else patients
    return Triage.from_thresholds(options, chosen, SCORES, patients)


def counts(found):
    return tuple((found.standings(SCORES) == name).sum()
                 for name in ("ruled_out", "referred", "ruled_in"))  # fmt: skip


@pytest.mark.parametrize(
    ("out", "into", "expected", "says"),
    [
        (0.3, 0.7, (2, 4, 4), "score ruled out below 0.300, ruled in from 0.700 on; refers 40.0 %"),
        (0.7, 0.3, (6, 0, 4), "none is referred, since both guarantees hold at this one threshold"),
        (0.5, 0.5, (4, 0, 6), "none is referred"),
        (None, 0.7, (0, 6, 4), f"ruled in from 0.700 on; no image is ruled out: {WHY}; refers 60"),
        (0.3, None, (2, 8, 0), f"ruled out below 0.300; no image is ruled in: {WHY}; refers 80"),
        (None, None, (0, 10, 0), "all are referred; no image is ruled out: "),
    ],
)  # the score at a threshold is at or above it
def test_what_becomes_of_ten_images(out, into, expected, says):
    found = triage(out, into)
    assert counts(found) == expected
    assert found.referred == expected[1] / 10
    single = Interval.from_share(found.referred, 10)  # Clopper-Pearson: an image a patient
    assert (found.ci_low, found.ci_high) == pytest.approx((single.low, single.high))
    assert says in str(found)
    assert Triage.from_dict(asdict(found)) == found


def test_one_guarantee_alone_leaves_the_rest_to_the_reader():
    found = triage(0.3, 0.7, TuningOptions(rule_out=OUT))
    assert counts(found) == (2, 8, 0)
    assert "no image is ruled in" in str(found)
    assert triage(0.3, 0.7, TuningOptions()) is None


def test_images_of_a_patient_make_the_share_less_sure():
    alone, together = triage(0.3, 0.7), triage(0.3, 0.7, patients=np.arange(10) // 2)
    assert together.referred == alone.referred
    assert together.ci_low < alone.ci_low < alone.ci_high < together.ci_high


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rule_out": IN}, "--rule-out specificity"),
        ({"rule_in": "max_f1"}, "--rule-in max_f1"),
        ({"rule_out": "sensitivity>=0.9"}, "--rule-out sens"),
    ],
)
def test_a_guarantee_that_rules_the_other_way_is_refused(given, says):
    with pytest.raises(InputError, match=says):
        TuningOptions(**given)


def test_triage_is_stored_derived_again_and_evaluated_on_test(predict, test_set):
    system, other = predict("A", "boxes", seed=1), predict("B", seed=2)
    decision = tune_predictions(system, test_set, policies=("max_f1",), options=OPTIONS)
    system.write_decision("opacity", decision.to_dict())
    assert Decision.from_dict(system.decision("opacity")) == decision
    assert list(decision.thresholds) == ["max_f1", OUT, IN]
    assert decision.policy(None, "") == OUT
    assert checked_decision("A", system, test_set, ())[0] == decision
    found = compare_predictions({"A": system, "B": other}, test_set, replicates=60, unit="patient")
    rows = found.decisions.set_index("system")
    score, low, high = (
        rows.loc["A", "score"],
        *(decision.thresholds[p].threshold for p in (OUT, IN)),
    )
    expected = {"ruled_out": score < low, "referred": (score >= low) & (score < high),
                "ruled_in": score >= high}  # fmt: skip
    figures = found.metrics[found.metrics["system"] == "A"].set_index("metric")
    for name, images in expected.items():
        assert (rows.loc["A", "triage"] == name).tolist() == images.tolist()
        row = figures.loc[name]
        assert row["estimate"] == pytest.approx(images.mean())
        assert row["ci_low"] < row["estimate"] < row["ci_high"]
        assert "fixed choice: thresholds of triage" in row["ci_method"]
    assert rows.loc["B", "triage"].isna().all()
    shares = [f"{100 * expected[name].mean():.1f} %" for name in expected]
    (told,) = metrics_json(found)["answer"]["triage"]
    assert told.startswith(f"A rules out {shares[0]} of the test images, refers {shares[1]} to a")
    assert f"and rules in {shares[2]}; by score, ruled out below {score_text(low)}, " in told
    in_methods = methods(found, test_set.dataset)["paragraphs"][2].split(" B: ")
    assert "ruled in from" in in_methods[0]
    assert "ruled in" not in in_methods[1]
    by_patient = found.by_unit.table()
    again = tune_predictions(
        system, test_set, policies=("max_f1",), options=OPTIONS, unit="patient"
    )
    highest = pd.Series(score.to_numpy()).groupby(rows.loc["A", "patient_id"].to_numpy()).max()
    share = (again.triage.standings(highest) == "referred").mean()
    assert by_patient.query("metric == 'referred'")["estimate"].iloc[0] == pytest.approx(share)


def test_an_image_shows_the_boxes_that_fit_its_triage(predict, test_set, evaluation_set, target):
    system, ids = predict("A", "boxes", seed=1), evaluation_set.image_ids("test")
    decision = tune_predictions(system, test_set, policies=("max_f1",), options=OPTIONS)
    found, seen = decide("A", read_output(system, target, ids), decision, OUT), set()
    for image_id in ids:
        one = found.prediction(image_id, "")
        seen.add(one.triage)
        cut = {"ruled_out": np.inf, "referred": decision.triage.below,
               "ruled_in": decision.triage.above}[one.triage]  # fmt: skip
        assert one.box_cut == cut
        assert one.decision == {"ruled_out": False, "referred": None, "ruled_in": True}[one.triage]
    assert len(seen) == 3
    plain = decide("A", read_output(system, target, ids), decision, "max_f1")
    assert {plain.prediction(image_id, "").triage for image_id in ids} == {""}
