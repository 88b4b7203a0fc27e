"""Intervals of figures at a threshold include its uncertainty, or keep the threshold fixed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cxr_compare.evaluation.refitted_choices import choose_again
from cxr_compare.evaluation.scorecard import Scorecard
from scipy.stats import binomtest
from sklearn import metrics as oracle

from cxr_compare.evaluation.figure_intervals import (
    EXACT_METHOD,
    Replicates,
    SystemFigures,
    estimate_figures,
    resampled_figures,
)
from cxr_compare.evaluation.figures import FIXED_CHOICE, REFITTED, Figures
from cxr_compare.evaluation.groups.failure_analysis import add_at_prevalence
from cxr_compare.evaluation.groups.prevalence import Prevalence
from cxr_compare.evaluation.groups.shares import ShareName, Shares
from cxr_compare.evaluation.metrics.metric import ALL, VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.paired_tests import (
    MCNEMAR,
    REFITTED_TEST,
    bootstrap_p_value,
    paired_tests,
)
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.intervals import expanded_level, percentile_interval
from cxr_compare.evaluation.thresholds import (
    ThresholdChoice,
    ValidationScores,
    choose_threshold,
)
from tests.evaluation.evaluated_images import evaluated_images

N = 120
RECALL = MetricKey(ALL, "max_f1", "recall")


@pytest.fixture(scope="module")
def evaluated():
    rng = np.random.default_rng(4)
    y_true = rng.random(N) < 0.4
    ids = pd.Index([f"i{number:03d}" for number in range(N)])
    edges = {"x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0}
    kinds = np.where(y_true, "lung_opacity", np.where(rng.random(N) < 0.5, "normal", "other"))
    return evaluated_images(
        y_true,
        np.arange(N) // 2,
        image_ids=ids,
        boxes_trusted=rng.random(N) < 0.8,
        truth=pd.DataFrame({"image_id": ids[y_true], **edges}),
        x_class=pd.Series(kinds),
    )


def drawn_scores(y_true, seed, skill=1.2):
    rng = np.random.default_rng(seed)
    return np.round(1 / (1 + np.exp(-rng.normal(skill * y_true - 0.5, 1.0))), 2)


def validation(seed, n=60, **of):
    y_true = np.random.default_rng(99).random(n) < 0.4  # the same labels for every system
    owners = np.array([f"v{number // 2:02d}" for number in range(n)])
    return ValidationScores(y_true, drawn_scores(y_true, seed, **of), owners)


def a_scorecard(evaluated, seed, policies=("max_f1",), **of):
    kept = validation(seed + 50)
    choices = {each: choose_threshold(kept.y_true, kept.scores, each) for each in policies}
    scores = pd.Series(drawn_scores(evaluated.y_true, seed), evaluated.image_ids)
    return Scorecard(evaluated, scores, choices, validation=kept, **of)


def test_every_replicate_is_taken_at_its_own_threshold(evaluated):
    rng = np.random.default_rng(6)
    place = np.where(rng.random((N, 1)) < 0.6, 5.0, 50.0)
    points = pd.DataFrame(np.hstack([place, place]), evaluated.image_ids, ["point_x", "point_y"])
    scorecard = a_scorecard(evaluated, 5, points=points)
    weights = rng.multinomial(N // 2, np.full(N // 2, 2 / N), size=6).astype(np.int16)
    thresholds = np.array([0.4, 0.35, 0.61, np.nan, 0.05, 0.75])
    found, held = scorecard.replicates(weights, {"max_f1": thresholds})
    plain = scorecard(weights)
    assert RECALL in held
    for key, values in held.items():
        np.testing.assert_array_equal(values, plain[key])
    for row, threshold in enumerate(thresholds):
        rows = np.repeat(np.arange(N), weights[row][evaluated.patients])
        truth, called = evaluated.y_true[rows], scorecard.scores[rows] >= threshold
        normal, boxed = evaluated.versus_normal[rows], truth & evaluated.boxes_trusted[rows]
        on_lesion = (place[:, 0] == 5)[rows]
        expected = {
            (ALL, "recall"): oracle.recall_score(truth, called),
            (ALL, "f1"): oracle.f1_score(truth, called),
            (ALL, "accuracy"): oracle.accuracy_score(truth, called),
            (ALL, "tp"): (truth & called).sum(),
            (VERSUS_NORMAL, "specificity"): oracle.recall_score(
                truth[normal], called[normal], pos_label=0
            ),
            (ALL, "localised_sensitivity"): (called & on_lesion)[boxed].mean(),
        }
        for (subgroup, metric), value in expected.items():
            got = found[MetricKey(subgroup, "max_f1", metric)][row]
            assert got == pytest.approx(np.nan if np.isnan(threshold) else value, nan_ok=True)


@pytest.fixture(scope="module")
def drawn(evaluated):
    policies = ("max_f1", "sensitivity>=0.80", "threshold=0.5")
    scorecards = {
        "A": [a_scorecard(evaluated, 1, policies)],
        "B": [a_scorecard(evaluated, 2, policies)],
    }
    resamples = Resamples(evaluated.n_patients, 200, seed=3)
    return scorecards, resamples, resampled_figures("opacity", scorecards, resamples)


def test_the_interval_is_that_of_a_loop_that_chooses_and_evaluates_again(evaluated, drawn):
    scorecards, resamples, found = drawn
    test = np.concatenate([*resamples.chunks()])
    anew = np.concatenate([*Resamples(30, 200, seed=3, stream=1).chunks()])
    recalls = {}
    for name, (scorecard,) in scorecards.items():
        kept, values = scorecard.validation, []
        owner = np.unique(kept.patients, return_inverse=True)[1]
        for of_test, of_validation in zip(test, anew, strict=True):
            rows = np.repeat(np.arange(60), of_validation[owner])
            cut = choose_threshold(kept.y_true[rows], kept.scores[rows], "max_f1").threshold
            rows = np.repeat(np.arange(N), of_test[evaluated.patients])
            values.append((scorecard.scores[rows] >= cut)[evaluated.y_true[rows]].mean())
        recalls[name] = np.array(values)
    figure = found.figures.get("A", "recall", "max_f1")
    ends = np.quantile(recalls["A"], [0.025, 0.975])
    assert (figure.low, figure.high) == pytest.approx(tuple(ends), abs=1e-12)
    gap = found.figures.difference("A", "B", "recall", "max_f1")
    ends = np.quantile(recalls["A"] - recalls["B"], [0.025, 0.975])
    assert (gap.low, gap.high) == pytest.approx(tuple(ends), abs=1e-12)
    assert gap.method.endswith(REFITTED)


def test_beside_it_stand_the_interval_with_fixed_thresholds_and_what_chose_them(evaluated, drawn):
    scorecards, resamples, found = drawn
    bare = {
        name: [
            Scorecard(
                evaluated, pd.Series(scorecard.scores, evaluated.image_ids), scorecard.thresholds
            )
        ]
        for name, (scorecard,) in scorecards.items()
    }
    plain = resampled_figures("opacity", bare, resamples).estimates
    for policy in ("max_f1", "sensitivity>=0.80"):
        for pair in (("A", "B"), ("B", "A")):
            figure = found.figures.difference(*pair, "specificity", policy)
            held = plain.difference(*pair, "specificity", policy)
            assert figure.fixed_choice_interval == pytest.approx((held.low, held.high))
            assert held.method.endswith(f"{FIXED_CHOICE}: thresholds")
            assert figure.high - figure.low > held.high - held.low
            assert figure.n_chosen_on == scorecards["A"][0].validation.n_positive
    declared = found.figures.get("A", "recall", "threshold=0.5")
    expected = plain.get("A", "recall", "threshold=0.5")
    assert (declared.low, declared.high) == (expected.low, expected.high)
    assert (declared.fixed_choice_interval, declared.n_chosen_on) == (None, None)
    assert REFITTED not in declared.method
    assert FIXED_CHOICE not in declared.method
    auroc = found.figures.get("A", "average_precision")
    assert (auroc.fixed_choice_interval, auroc.n_chosen_on) == (None, None)


def test_the_table_keeps_both_intervals(drawn):
    table = drawn[2].estimates.table()
    again = Figures.from_table(table)
    for name, key, figure in drawn[2].estimates:
        if " - " not in name:
            read = again.get(name, key.metric, key.policy, subgroup=key.subgroup)
            assert (read.fixed_choice_interval, read.n_chosen_on) == (
                figure.fixed_choice_interval,
                figure.n_chosen_on,
            )
            assert read.refitted == (figure.refitted and figure.bounded)
    row = table[(table["metric"] == "f1") & (table["policy"] == "max_f1")].iloc[0]
    assert row["ci_low_fixed_choice"] <= row["ci_high_fixed_choice"]
    assert row["n_validation_positive"] > 0


def test_the_refitted_test_of_decisions_stands_first_and_mcnemar_says_what_it_holds(drawn):
    scorecards, _, found = drawn
    tests = paired_tests(found.estimates, scorecards, found.differences)
    tests = tests[tests["subgroup"] == ALL]
    for metric in ("recall", "specificity", "accuracy"):
        rows = tests[(tests["metric"] == metric) & (tests["policy"] == "max_f1")]
        assert rows["method"].tolist()[:2] == [
            REFITTED_TEST,
            f"{MCNEMAR}, {FIXED_CHOICE}: thresholds",
        ]
        first = rows.iloc[0]
        replicates = found.differences["A", "B"][MetricKey(ALL, "max_f1", metric)]
        assert first["p_value"] == bootstrap_p_value(replicates)
        declared = tests[(tests["metric"] == metric) & (tests["policy"] == "threshold=0.5")]
        assert declared["method"].iloc[0] == MCNEMAR


def few_evaluated(n=20):
    return evaluated_images(np.arange(n) < n // 2)


def recall_of(validation_scores, test_scores, replicates=400):
    evaluated = few_evaluated()
    labels = np.arange(20) < 10
    kept = ValidationScores(labels, np.array(validation_scores), np.arange(20).astype(str))
    choice = choose_threshold(kept.y_true, kept.scores, "max_f1")
    scores = pd.Series(test_scores, evaluated.image_ids)
    scorecard = Scorecard(evaluated, scores, {"max_f1": choice}, validation=kept)
    drawn = resampled_figures("sick", {"A": [scorecard]}, Resamples(20, replicates, seed=1))
    return drawn.estimates.get("A", "recall", "max_f1")


EXACT_TEN = tuple(binomtest(10, 10).proportion_ci(method="exact"))  # (0.69, 1)


def test_a_share_of_one_is_exact_only_where_no_resample_moves_it():
    apart = [0.9] * 10 + [0.1] * 10  # every validation resample gives the same threshold
    figure = recall_of(apart, [0.8] * 10 + [0.2] * 10)
    assert (figure.kind, figure.method) == ("exact", EXACT_METHOD)
    assert (figure.low, figure.high) == pytest.approx(EXACT_TEN)
    assert figure.fixed_choice_interval == pytest.approx(EXACT_TEN)


def test_a_share_of_one_that_refitting_moves_is_never_narrower_than_the_exact_interval():
    # Some resamples of validation choose a threshold above the lowest positive of test.
    near = [0.9] * 9 + [0.5] + [0.45] * 2 + [0.1] * 8
    figure = recall_of(near, [0.8] * 9 + [0.6] + [0.2] * 10)
    assert (figure.kind, figure.estimate) == ("bootstrap", 1.0)
    assert REFITTED in figure.method
    assert figure.method.endswith(EXACT_METHOD)
    assert figure.fixed_choice_interval == pytest.approx(EXACT_TEN)
    assert figure.low == pytest.approx(EXACT_TEN[0])
    assert figure.high == 1.0


def test_where_validation_often_gives_no_threshold_there_is_no_interval():
    # Two positives: one resample in eight draws neither.
    labels, scores = np.arange(20) < 2, np.linspace(0.9, 0.1, 20)
    kept = ValidationScores(labels, scores, np.arange(20).astype(str))
    chosen = {"A": [replace(kept, policies=("max_f1",))]}
    found = choose_again(chosen, Resamples(20, 400))["A"]["max_f1"]
    lost = int(np.isnan(found).sum())
    assert lost > 40
    evaluated = few_evaluated()
    scorecard = Scorecard(
        evaluated,
        pd.Series(np.linspace(0.95, 0.2, 20), evaluated.image_ids),
        {"max_f1": ThresholdChoice("max_f1", 0.87)},
        validation=kept,
    )
    drawn = resampled_figures("sick", {"A": [scorecard]}, Resamples(20, 400))
    figure = drawn.estimates.get("A", "accuracy", "max_f1")
    assert not figure.bounded
    assert f"undefined in {lost} of 400 resamples" in figure.note
    assert "choices were refitted" in figure.note
    assert figure.fixed_choice_interval is not None
    assert figure.n_chosen_on == 2


def test_a_figure_that_resampling_shifts_has_no_interval_and_says_so(evaluated):
    probability = drawn_scores(evaluated.y_true, 5)
    scorecard = Scorecard(evaluated, pd.Series(probability), {}, probability=probability)
    shifted = {
        ("A", 0, MetricKey(ALL, "", name), False): np.linspace(5, 6, 100)
        for name in ("brier", "auroc")
    }
    resamples = Resamples(evaluated.n_patients, 100)
    replicates = Replicates({"A": SystemFigures([scorecard])}, shifted)
    figures = estimate_figures("sick", replicates, resamples).estimates
    brier, auroc = figures.get("A", "brier"), figures.get("A", "auroc")
    assert not brier.bounded
    assert "resampling itself shifts this figure" in brier.note
    assert auroc.note.endswith("5.019 to 5.981)")  # 30 effective patients


def test_a_floor_set_by_an_extreme_score_has_no_refitted_interval(evaluated):
    policy = "sensitivity>=0.95"  # of 24 positives it allows one miss
    scorecards = {name: [a_scorecard(evaluated, seed, [policy])] for seed, name in enumerate("AB")}
    n_positive = scorecards["A"][0].validation.n_positive
    assert 20 <= n_positive < 40
    drawn = resampled_figures("opacity", scorecards, Resamples(evaluated.n_patients, 60))
    gap = drawn.estimates.difference("A", "B", "specificity", policy)
    assert gap.known
    assert not gap.bounded
    assert f"allows 1 of {n_positive} validation positives to be missed" in gap.note
    assert gap.fixed_choice_interval is not None
    tests = paired_tests(drawn.estimates, scorecards, drawn.differences)
    refitted = tests[(tests["method"] == REFITTED_TEST) & (tests["metric"] == "specificity")]
    assert refitted["p_value"].isna().all()


@pytest.mark.parametrize("policy", ["sensitivity>=0.80", "specificity>=0.80", "cost:3/1"])
def test_at_a_floor_or_cost_percentiles_are_expanded_for_the_fewest_patients(evaluated, policy):
    scorecards = {name: [a_scorecard(evaluated, seed, [policy])] for seed, name in enumerate("AB")}
    resamples = Resamples(evaluated.n_patients, 200)
    replicates = Replicates.draw(scorecards, resamples)
    figures = estimate_figures("opacity", replicates, resamples).estimates
    validation = scorecards["A"][0].validation
    classes = {"sensitivity>=0.80": [True], "specificity>=0.80": [False]}.get(policy, [True, False])
    counts = [
        np.unique(validation.patients[validation.y_true == label], return_counts=True)[1]
        for label in classes
    ]
    for metric in ("recall", "specificity", "precision"):
        figure = figures.get("A", metric, policy)
        drawn = replicates.mean(["A"], MetricKey(ALL, policy, metric))
        numbers = [count.sum() ** 2 / (count**2).sum() for count in counts]
        fewest = min(*numbers, figure.effective_patients)
        expected = percentile_interval(drawn, expanded_level(0.95, fewest))
        plain = percentile_interval(drawn)
        assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high))
        assert figure.high - figure.low > plain.high - plain.low
        gap = figures.difference("A", "B", metric, policy)
        gaps = replicates.mean(["A", "B"], MetricKey(ALL, policy, metric))
        plain = percentile_interval(gaps)
        assert (gap.low, gap.high) == pytest.approx((plain.low, plain.high))


def test_shares_of_called_images_are_refitted_as_the_figures_are(evaluated, drawn):
    scorecards, resamples, found = drawn
    shares = Shares.from_scorecards(scorecards, "max_f1", resamples, set())
    everything = np.ones(N, dtype=bool)
    for name, (scorecard,) in scorecards.items():
        called = scorecard.called("max_f1")
        for metric, of, per_call in (
            ("recall", evaluated.y_true, 1),
            ("specificity", ~evaluated.y_true, -1),
        ):
            right = called if per_call == 1 else ~called
            key = ShareName("whole", "all", "max_f1", metric)
            shares.add(name, key, right * of, of & everything, evaluated.patients, per_call * of)
    add_at_prevalence(shares, scorecards, "max_f1", Prevalence.parse(0.1))
    index = ["topic", "metric", "system"]
    rows = dict(shares.table(["A", "B"], resamples).set_index(index).iterrows())
    for metric in ("recall", "specificity"):
        for system, figure in (
            ("A", found.figures.get("A", metric, "max_f1")),
            ("A - B", found.figures.difference("A", "B", metric, "max_f1")),
        ):
            row = rows["whole", metric, system]
            assert row["estimate"] == pytest.approx(figure.estimate)
            # A difference follows from both intervals; here it is as wide to a twentieth.
            near = 1e-6 if system == "A" else 0.05
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(
                (figure.low, figure.high), abs=near
            )
            assert REFITTED in row["ci_method"]
    assert REFITTED in rows["prevalence", "ppv", "A"]["ci_method"]
    bare = Shares(evaluated.n_patients)
    add_at_prevalence(bare, scorecards, "max_f1", Prevalence.parse(0.1))
    held = dict(bare.table(["A", "B"], resamples).set_index(index).iterrows())
    assert held["prevalence", "ppv", "A"]["ci_method"].endswith(f"{FIXED_CHOICE}: thresholds")
    width = [figures["prevalence", "npv", "A"] for figures in (rows, held)]
    assert np.subtract(*width[0][["ci_high", "ci_low"]]) > np.subtract(
        *width[1][["ci_high", "ci_low"]]
    )
