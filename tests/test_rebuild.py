"""Every closed interval of the kept comparisons, by the program from docs/metrics.md."""

from functools import cache

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import cxr_compare
from tests.kept import inputs
from tests.kept.comparisons import POLICIES
from tests.oracles import rebuild

FUNCTIONS = ("balanced_accuracy", "mcc")
AT_THRESHOLD = (*rebuild.SHARES, *FUNCTIONS)
REPLICATES = 100
PREVALENCE = 0.05
KEPT = {
    "quickstart": inputs.quickstart,
    "drawn-1": lambda: inputs.three_systems(1, 300),
    "drawn-2": lambda: inputs.three_systems(2, 900),
    "drawn-3": lambda: inputs.three_systems(3, 160),
    "boxes": inputs.boxes,
    "prevalence": lambda: inputs.two_systems(14, 240),
    "groups": lambda: inputs.with_groups(18, 360) | {"subgroups": "sex"},
    "both": lambda: inputs.detector_and_classifier(20, 360) | {"both": True},
}


def decided(result, system):
    rows = result.decisions
    return rows[rows["system"] == system].sort_values("image_id").reset_index(drop=True)


def same(found, expected):
    return found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def closed_intervals(result):
    """Compare each closed interval with the rebuilt one, and return how many there are."""
    figures = result.figures[result.figures["metric"].isin([*AT_THRESHOLD, "auroc"])]
    images = {system: decided(result, system) for system in result.systems}
    seen = 0
    for row in figures.itertuples():
        names = [name for name in (row.first, row.second) if name]
        if not set(names) <= set(images) or np.isnan(row.estimate):
            continue
        if row.metric == "auroc" and row.second:
            found = (row.estimate, row.ci_low, row.ci_high, row.p_value)
            expected = rebuild.auroc_difference(*(images[name] for name in names))
        elif row.metric == "auroc":
            found = (row.estimate, row.ci_low, row.ci_high)
            expected = rebuild.auroc(images[row.first])
        elif not row.second:
            found = (row.estimate, row.ci_low, row.ci_high)
            counts = rebuild.counts_by_patient(images[row.first], row.policy)
            expected = rebuild.at_threshold(row.metric, counts)
        else:
            continue
        assert same(found, expected), (row.first, row.second, row.metric, row.policy)
        seen += not np.isnan(row.ci_low)
    return seen


def run(arguments, replicates=REPLICATES, **options):
    systems = arguments.pop("systems")
    return cxr_compare.compare(systems, **arguments, replicates=replicates, **options)


@cache
def compared(name):
    arguments = KEPT[name]()
    truth = arguments["truth"]
    return run(arguments, policy=POLICIES, prevalence=PREVALENCE), truth


@pytest.mark.parametrize("name", KEPT)
def test_every_closed_interval_of_a_kept_comparison_is_that_of_the_page(name):
    result, truth = compared(name)
    assert closed_intervals(result) > 40
    assert groups(result, truth) >= 2


def groups(result, truth):
    """Compare predictive values and figures of groups by sex; return how many there are."""
    seen = 0
    for row in result.groups[result.groups["ci_low"].notna()].itertuples():
        images = decided(result, row.system) if row.system in result.systems else None
        if row.topic == "prevalence":
            counts = rebuild.counts_by_patient(images, row.policy)
            expected = rebuild.at_prevalence(row.metric, counts, float(row.group))
        elif row.topic == "sex" and row.metric == "auroc":
            expected = rebuild.auroc(of_sex(images, truth, row.group))
        elif row.topic == "sex":
            counts = rebuild.counts_by_patient(of_sex(images, truth, row.group), row.policy)
            expected = rebuild.at_threshold(row.metric, counts)
        else:
            continue
        found = (row.estimate, row.ci_low, row.ci_high)
        assert same(found, expected), (row.topic, row.group, row.system, row.metric)
        seen += 1
    return seen


def of_sex(images, truth, sex):
    known = truth.set_index("image_id")["sex"]
    return images[(known[images["image_id"]] == sex).to_numpy()]


def test_every_closed_interval_on_real_scores_is_that_of_the_page(shared_data):
    arguments = inputs.chexnet(shared_data)
    result = run(arguments, policy=POLICIES)
    assert closed_intervals(result) > 70


def test_an_inflated_variance_and_an_exact_end_are_among_them():
    result, _ = compared("drawn-1")
    counts = rebuild.counts_by_patient(decided(result, result.systems[0]), "max_f1")
    assert rebuild.inflation(counts) > 1.01
    figures = compared("drawn-3")[0].figures
    alone = figures[(figures["second"] == "") & figures["metric"].isin(AT_THRESHOLD)]
    assert alone["estimate"].isin([0.0, 1.0]).any() or (alone["ci_high"] == 1).any()


def average_precision(images):
    return average_precision_score(images["label"], images["score"])


def test_resampled_figures_at_fixed_thresholds_are_those_of_the_page():
    arguments = inputs.two_systems(19, 240)
    arguments["truth"] = arguments["truth"].drop(columns="role")
    policy = "threshold=0.5"
    result = run(arguments, policy=[policy], replicates=100)
    images = {system: decided(result, system) for system in result.systems}
    first, second = result.systems
    positive = images[first]["label"] == 1
    n = {
        label: rebuild.effective(images[first][positive == label].groupby("patient_id").size())
        for label in (True, False)
    }
    patients = images[first]["patient_id"].nunique()
    weights = rebuild.resamples(patients, 100, 0)

    def called(images, of):
        chosen = images[of(images)]
        return (chosen[f"decision_{policy}"].astype(bool) == (chosen["label"] == 1)).mean()

    figures = {
        "average_precision": ("", average_precision, min(n.values())),
        "accuracy": (policy, lambda rows: called(rows, lambda r: r["label"] >= 0), min(n.values())),
        "recall": (policy, lambda rows: called(rows, lambda r: r["label"] == 1), n[True]),
        "specificity": (policy, lambda rows: called(rows, lambda r: r["label"] == 0), n[False]),
    }
    table = result.figures.set_index(["first", "second", "metric", "policy"])
    for metric, (at, figure, effective) in figures.items():
        drawn = {
            name: rebuild.on_resamples(figure, images[name], weights) for name in result.systems
        }
        gap = drawn[first] - drawn[second]
        row = table.loc[(first, second, metric, at)]
        estimate = figure(images[first]) - figure(images[second])
        expected = (estimate, *rebuild.percentiles(gap, estimate, effective))
        assert same((row["estimate"], row["ci_low"], row["ci_high"]), expected), metric
        assert row["p_value"] == pytest.approx(rebuild.resampled_p(gap, effective)), metric
        if not at:
            row = table.loc[(first, "", metric, at)]
            value = figure(images[first])
            expected = (value, *rebuild.percentiles(drawn[first], value, effective))
            assert same((row["estimate"], row["ci_low"], row["ci_high"]), expected)


def test_p_holm_is_that_of_the_page():
    figures = compared("drawn-1")[0].figures
    pairs = figures[(figures["second"] != "") & figures["p_value"].notna()]
    for _, family in pairs.groupby(["metric", "policy"]):
        assert same(family["p_holm"].to_numpy(), rebuild.holm(family["p_value"].to_numpy()))


def test_the_joint_score_is_that_of_the_page():
    result, _ = compared("both")
    first, second, joint = result.systems
    rule = result.answer.provenance.systems[joint]["joint"]["rule"]["score"]
    scores = [decided(result, name)["score"].to_numpy() for name in (first, second)]
    expected = rebuild.joint_score(scores, rule)
    assert same(decided(result, joint)["score"].to_numpy(), expected)
