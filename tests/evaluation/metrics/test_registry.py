"""The metric registry: complete, light, and the only place that a new metric is written to."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.box_figures import RANKED
from cxr_compare.evaluation.boxes.froc import FROC_RATES
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.metrics.calibration_figures import CalibrationFigures
from cxr_compare.evaluation.metrics.image_metrics import (
    classification_metrics,
    confusion_counts,
    rates,
)
from cxr_compare.evaluation.metrics.metric import Metric
from cxr_compare.evaluation.metrics.registry import (
    METRICS,
    RATE_LABELS,
    family,
    metric_title,
)
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.report.summary_table import TableRow, main_table
from cxr_compare.evaluation.statistics.ranking import RankedScores
from tests.compared import compare_predictions
from tools import documents

ROOT = Path(__file__).resolve().parents[3]


def test_every_record_is_complete():
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.title
        assert metric.meaning.endswith(".")
        assert (metric.direction == "ideal") == (metric.ideal is not None), name
        assert (metric.formula is not None) == (metric.family == "decision"), name


def test_families_give_the_metrics_of_their_records_in_order():
    truth, score = np.array([0, 1, 1, 0]), np.array([0.1, 0.4, 0.8, 0.6])
    once = np.ones((1, 4), dtype=int)
    assert tuple(RankedScores(truth, score).figures(once)) == family("ranking")
    assert tuple(rates(1, 1, 1, 1)) == family("decision")
    assert tuple(confusion_counts(truth, score, 0.5)) == family("counts")
    assert tuple(CalibrationFigures(truth, score).figures()) == family("calibration")
    boxes = pd.DataFrame([("a", 0, 0, 9, 9, 0.5)], columns=["image_id", *EDGES, "score"])
    pairs = pair_boxes(boxes, boxes.drop(columns="score"), pd.Index(["a"]))
    one = np.ones((1, 1), dtype=int)
    for name, prepare in RANKED.items():
        figures = prepare(pairs, np.zeros(1, dtype=int), 1)(one)
        assert figures.reshape(1, -1).shape[1] == len(family(name)), name


def test_names_of_rates_are_those_of_the_numbers():
    assert tuple(float(Fraction(rate)) for rate in RATE_LABELS) == FROC_RATES


def test_a_title_inside_a_sentence_keeps_the_capitals_of_names_alone():
    expected = {
        "auroc": "AUROC", "f1": "F1", "mcc": "MCC",
        "lr_positive": "LR+", "froc_mean": "FROC, mean",
        "brier": "Brier score", "ece": "ECE, equal width", "rsna_score": "RSNA 2018 score",
        "average_precision": "average precision", "ap_decided": "AP[.5:.95] of the decided boxes",
    }  # fmt: skip
    assert {metric: METRICS[metric].title_in_sentence for metric in expected} == expected


@pytest.fixture
def informedness(monkeypatch):
    """A metric that the project does not have: one record, and nothing else."""
    metric = Metric(
        "informedness",
        "Informedness",
        "Sensitivity + specificity − 1.",
        family="decision",
        undefined="there is no positive or no negative image",
        needs=("threshold",),
        formula=lambda c: c.tp / c.positive + c.tn / c.negative - 1,
    )
    monkeypatch.setitem(METRICS, metric.name, metric)
    return metric


def test_a_new_record_is_all_that_a_new_metric_needs(informedness, predict, test_set):
    name = informedness.name
    assert classification_metrics([0, 1, 1], [0.1, 0.5, 0.2], 0.5)[name] == 0.5
    assert classification_metrics([1], [0.5], 0.5)[name] is None
    systems = {"A": predict("A", "boxes", seed=1), "B": predict("B", seed=2)}
    protocol = Protocol(metric=name, policy="max_f1")
    found = compare_predictions(systems, test_set, replicates=50, protocol=protocol)
    rows = found.metrics.set_index(["subgroup", "first", "second", "policy", "metric"])["estimate"]
    at = ("all", "A", "", "max_f1")
    expected = rows[*at, "recall"] + rows[*at, "specificity"] - 1
    assert rows[*at, name] == pytest.approx(expected)
    tests = found.tests[(found.tests["metric"] == name) & (found.tests["subgroup"] == "all")]
    assert {("A", "B", "max_f1")} <= set(
        zip(tests["first"], tests["second"], tests["policy"], strict=True)
    )
    assert tests["p_value"].notna().all()
    assert "informedness" in found.answer.headline
    assert metric_title(name) in main_table(found, [TableRow(name)]).frame.index
    assert f"| `{name}` | Informedness |" in documents.metrics()
