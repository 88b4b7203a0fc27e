"""Kept comparisons: their figures stay, and their intervals are those of docs/metrics.md."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import cxr_compare
from tests.kept import inputs
from tests.kept.comparisons import (
    HERE,
    KEPT,
    NEEDS_SHARED_DATA,
    POLICIES,
    RECORDED,
    differences,
    kept,
    kept_result,
    read_table,
)
from tests.oracles import rebuild

ANSWERS = json.loads((HERE / "answers.json").read_text(encoding="utf-8"))
OWN = [name for name in KEPT if name not in NEEDS_SHARED_DATA]
# Reports of many figures, or with pages.
SLOW = dict.fromkeys(("five-folds", "fourteen-findings", "quickstart"), pytest.mark.release)


def cases(names):
    return [pytest.param(name, marks=SLOW.get(name, ())) for name in names]


def require_equal(name, rows, answer):
    lines = differences(read_table(HERE / f"{name}.csv"), rows)
    assert not lines, "\n".join([f"{name}: {len(lines)} rows", *lines[:40]])
    assert not answer_differences(ANSWERS[name], answer)


def answer_differences(expected, got):
    """Return the differences between two answers; values of claims by 1e-9."""
    if expected is None or got is None:
        return [] if expected is got else ["one is missing"]
    expected, got = dict(expected), dict(got)
    claims = [
        {claim_key(claim): claim for claim in answer.pop("claims", [])}
        for answer in (expected, got)
    ]
    lines = [] if expected == got else [f"{got} instead of {expected}"]
    if claims[0].keys() != claims[1].keys():
        return [*lines, f"claims {sorted(claims[1])} instead of {sorted(claims[0])}"]
    for key, claim in claims[0].items():
        for name, value in claim.items():
            other = claims[1][key][name]
            both_numbers = isinstance(value, float) and isinstance(other, float)
            equal = abs(value - other) <= 1e-9 if both_numbers else value == other
            if not equal:
                lines.append(f"{name} of {key}: {other} instead of {value}")
    return lines


def claim_key(claim):
    return tuple(claim[name] for name in ("first", "second", "metric", "policy"))


def require_rebuilt(result):
    """Closed intervals and p-values of Holm's method are those of docs/metrics.md."""
    assert closed_intervals(result) > 40
    answer = result.answer
    primary = {tuple(answer.primary)}
    primary |= {(c.metric, c.policy) for c in answer.claims if c.family == "answer"}
    boxes = result.comparison.with_boxes
    families = {"primary": sorted(primary, reverse=True), "joint": answer.joint}
    assert rebuild.require_corrected({"": result.figures}, with_boxes=boxes, **families) > 5


@pytest.mark.parametrize("name", cases(OWN))
def test_every_figure_and_claim_of_a_kept_comparison_stays_and_is_that_of_the_page(name):
    require_equal(name, *kept(name))
    require_rebuilt(kept_result(name))


@pytest.mark.parametrize("name", NEEDS_SHARED_DATA)
def test_every_figure_and_claim_on_real_scores_stays(name, shared_data):
    require_equal(name, *kept(name, shared_data))
    require_rebuilt(kept_result(name, shared_data))


@pytest.mark.parametrize("name", cases(RECORDED))
def test_every_figure_of_what_no_kept_comparison_has_stays(name, tmp_path):
    require_equal(name, *RECORDED[name](tmp_path))


FUNCTIONS = ("balanced_accuracy", "mcc")
AT_THRESHOLD = (*rebuild.SHARES, *FUNCTIONS)
OTHERS = {
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
    closed = [*AT_THRESHOLD, "auroc", "brier"]
    figures = result.figures[result.figures["metric"].isin(closed)]
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
        elif row.metric == "brier" and not row.second:
            found = (row.estimate, row.ci_low, row.ci_high)
            expected = rebuild.brier(images[row.first])
        elif not row.second:
            found = (row.estimate, row.ci_low, row.ci_high)
            counts = rebuild.counts_by_patient(images[row.first], row.policy)
            expected = rebuild.at_threshold(row.metric, counts)
        else:
            continue
        assert same(found, expected), (row.first, row.second, row.metric, row.policy)
        seen += not np.isnan(row.ci_low)
    return seen


def compared(arguments, **options):
    return cxr_compare.compare(arguments.pop("systems"), **arguments, replicates=100, **options)


@pytest.mark.release
@pytest.mark.parametrize("name", OTHERS)
def test_every_closed_interval_of_groups_and_of_a_joint_system_is_that_of_the_page(name):
    arguments = OTHERS[name]()
    truth = arguments["truth"]
    result = compared(arguments, policy=POLICIES)
    assert closed_intervals(result) > 40
    if name == "groups":
        assert groups(result, truth) > 10
        return
    first, second, joint = result.systems
    rule = result.answer.provenance.systems[joint]["joint"]["rule"]["score"]
    scores = [decided(result, system)["score"].to_numpy() for system in (first, second)]
    expected = rebuild.joint_score(scores, rule)
    assert same(decided(result, joint)["score"].to_numpy(), expected)


def groups(result, truth):
    """Compare figures of groups by sex; return how many there are."""
    seen = 0
    for row in result.groups[result.groups["ci_low"].notna()].itertuples():
        images = decided(result, row.system) if row.system in result.systems else None
        if row.topic == "sex" and row.metric == "auroc":
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


def average_precision(images):
    return average_precision_score(images["label"], images["score"])


@pytest.mark.release
def test_resampled_figures_at_fixed_thresholds_are_those_of_the_page():
    arguments = inputs.two_systems(19, 240)
    arguments["truth"] = arguments["truth"].drop(columns="role")
    policy = "threshold=0.5"
    result = compared(arguments, policy=[policy])
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


def test_means_over_findings_are_those_of_the_page():
    arguments = inputs.findings(12, 360, inputs.FINDINGS[:3])
    result = compared(arguments)
    names = list(result.results)
    first, second = result.systems
    images = {
        system: [decided(result.results[name], system) for name in names]
        for system in result.systems
    }
    patients = images[first][0]["patient_id"].nunique()
    weights = rebuild.resamples(patients, 100, 0)
    table = result.macro.set_index(["metric", "first", "second"])
    for system in result.systems:
        row = table.loc[("auroc", system, "")]
        expected = rebuild.mean_auroc(images[system])
        assert same((row["estimate"], row["ci_low"], row["ci_high"]), expected)
        drawn = [rebuild.on_resamples(average_precision, each, weights) for each in images[system]]
        effective = [
            min(map(rebuild.effective, rebuild.auroc_parts(each)[2])) for each in images[system]
        ]
        estimates = [average_precision(each) for each in images[system]]
        ends = [
            rebuild.percentiles(*each) for each in zip(drawn, estimates, effective, strict=True)
        ]
        expected = rebuild.mean_precision(estimates, ends, np.array(drawn))
        row = table.loc[("average_precision", system, "")]
        assert same((row["estimate"], row["ci_low"], row["ci_high"]), expected)
    row = table.loc[("auroc", first, second)]
    found = (row["estimate"], row["ci_low"], row["ci_high"], row["p_value"])
    assert same(found, rebuild.mean_auroc_difference(images[first], images[second]))
