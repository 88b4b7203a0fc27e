"""Statistics, policies and choices as plain functions of arrays, and figures without a report."""

import numpy as np
import pandas as pd

from cxr_compare.configs.load import read_config
from cxr_compare.data_prep.base.recipe import Recipe
from cxr_compare.evaluation import (
    choices,
    compare,
    figures,
    metrics,
    policies,
    replicates,
)
from cxr_compare.evaluation.box_figures import BoxFigures
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics import (
    arrays,
    bootstrap,
    clustered_auroc,
    clustered_estimate,
    clustered_variance,
    intervals,
    ranking,
    running_sums,
)
from cxr_compare.evaluation.truth import Truth
from cxr_compare.evaluation.verdict import budgets

# Statistics
as_array = arrays.as_array
Resamples = bootstrap.Resamples
cluster_bootstrap = bootstrap.cluster_bootstrap
cluster_index = bootstrap.cluster_index
per_cluster = bootstrap.per_cluster
auroc_parts = clustered_auroc.auroc_parts
margin_interval = clustered_auroc.margin_interval
interval_of_counts = figures.interval_of_counts
ClusteredEstimate = clustered_estimate.ClusteredEstimate
class_inflation = clustered_variance.class_inflation
effective_patients = clustered_variance.effective_patients
satterthwaite_freedom = clustered_variance.satterthwaite_freedom
Interval = intervals.Interval
percentile_interval = intervals.percentile_interval
RankedScores = ranking.RankedScores
RunningRows = running_sums.RunningRows
SegmentSums = running_sums.SegmentSums
bootstrap_p_value = figures.bootstrap_p_value
holm_corrected = figures.holm
lower_for_bias = figures.lower_for_bias

# Metrics and policies
METRICS = metrics.METRICS
FROC_RATES = metrics.RATES
parse = policies.parse
policy_text = policies.policy_text


def rates(tp, fp, tn, fn):
    """Every metric of the counts of a confusion matrix; NaN where undefined."""
    return metrics.rates({"tp": tp, "fp": fp, "tn": tn, "fn": fn})


def threshold(policy, labels, scores):
    """Threshold that a policy chooses once on validation images; None without one."""
    labels, scores = np.asarray(labels) == 1, np.asarray(scores, float)
    return policies.threshold_of(labels, scores, policy)[0]


def thresholds_again(policy, labels, scores, patients, weights):
    """Threshold of a policy for each weighting, ``(R, P)``, of numbered patients."""
    labels, scores = np.asarray(labels) == 1, np.asarray(scores, float)
    return policies.thresholds(labels, scores, patients, weights, [policy])[policy]


def platt(labels, scores):
    """Platt's scaling, fitted to labels and scores; None without both classes."""
    return choices.Platt.fit(np.asarray(labels) == 1, np.asarray(scores, float))


def truth_of(labels, patients=None, roles=None, boxes=None, boxed=None):
    """Images i0000, i0001, ... with labels; patients are numbers, roles ``test`` if not said."""
    n = len(labels)
    ids = pd.Index([f"i{number:04d}" for number in range(n)], name="image_id")
    owners = np.arange(n) if patients is None else np.asarray(patients)
    table = pd.DataFrame({"label": np.asarray(labels, float)}, index=ids)
    table["patient_id"] = [f"p{number:06d}" for number in owners]
    table["role"] = "test" if roles is None else roles
    more = {} if boxes is None else {"boxes": boxes}
    more |= {} if boxed is None else {"boxed": ids[np.asarray(boxed, bool)]}
    return Truth(table, **more)


def table_of(truth, systems, *, given=(), replicates=200, seed=0):
    """Table of figures of systems: scores in the order of the images, or a frame of boxes."""
    outputs = {
        name: Output.of_detector(value, truth.ids)
        if isinstance(value, pd.DataFrame)
        else Output(pd.Series(np.asarray(value, float), truth.ids))
        for name, value in systems.items()
    }
    return compare.compare_outputs(
        outputs, truth, policies=tuple(given), n_replicates=replicates, seed=seed
    )


def box_figures(boxes, truth, images, patients, weights):
    """AP50, AP and FROC of boxes under weights of numbered patients, by name."""
    pairs = pair_boxes(boxes, truth, pd.Index(images))
    patients = np.asarray(patients)
    return BoxFigures(pairs).with_patients(patients, np.shape(weights)[1])(np.asarray(weights))


def best_rule(rules, weights, patients):
    """Position of the rule of boxes that validation images choose, for each weighting."""
    return choices._best(
        [BoxFigures(pair_boxes(*rule), only_50=True) for rule in rules], weights, patients
    )


def scores_of_boxes(boxes, ids, rule="max"):
    """Score of each image by its boxes."""
    return Output.of_detector(boxes, pd.Index(ids)).by_image_score(rule).scores


def budget_cautions(trainings):
    """What is said of the budgets of trainings, by system a configuration and its changes.

    A system without a configuration was trained by other software.
    """
    systems = {}
    for name, training in trainings.items():
        record = {"recipe": _recipe(*training)} if training else {}
        systems[name] = Output(pd.Series(dtype=float), record=record)
    return {note.caution: note.text for note in budgets.budget_notes(systems)}


def _recipe(name, changes=None, n_train=100):
    """The record of a run of a configuration, as its predictions have it."""
    config = read_config(name, changes or {})
    settings = config.model_dump()
    settings["model"]["trainable"] = config.model.stages
    model, training = config.model, config.training
    facts = {"epochs": training.epochs, "monitor": training.monitor, "n_train": n_train}
    return recipe(
        settings, network=model.backbone, size=config.data.image_size, start=model.weights, **facts
    )


def recipe(config, **facts):
    """The record of a run with the sections of a configuration, and what else is said of it."""
    usual = {"network": "resnet18", "size": 64, "start": "none", "model_kind": "classifier"}
    usual |= {"n_train": 100, "n_val": 20, "n_boxes": None, "epochs": 3, "best_epoch": 1}
    usual |= {"monitor": "epoch", "synthetic": False}
    return Recipe(**{**usual, **facts}, config=config).to_json()


def localised(boxes, ids, truth):
    """True for images whose point lies on a true box."""
    return Output.of_detector(boxes, pd.Index(ids)).localised(truth)


def figures_under(truth, value, cuts, weights, again=None):
    """Figures of one system under weights of its patients, by policy and metric.

    `value` are scores or a frame of boxes, `cuts` thresholds by policy, and `again` the thresholds
    of each weighting.
    """
    output = (
        Output.of_detector(value, truth.ids)
        if isinstance(value, pd.DataFrame)
        else Output(pd.Series(np.asarray(value, float), truth.ids))
    )
    system = replicates.SystemFigures(truth, output, choices.Choices(cuts))
    return system(np.asarray(weights), again or {})
