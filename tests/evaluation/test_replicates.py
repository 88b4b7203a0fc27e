"""Replicates make every choice again, and intervals and tests of figures follow from them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn import metrics as oracle

from cxr_compare.evaluation.box_choice import BOX_CUT, BoxCandidate, BoxChoice
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.figure_intervals import (
    EXACT_METHOD,
    compute_figures,
    lower_for_bias,
)
from cxr_compare.evaluation.figures import FIXED_CHOICE, REFITTED, Figures
from cxr_compare.evaluation.groups.failure_analysis import add_at_prevalence, add_groups
from cxr_compare.evaluation.groups.prevalence import Prevalence
from cxr_compare.evaluation.groups.resampled_shares import draw_shares
from cxr_compare.evaluation.groups.shares import Shares
from cxr_compare.evaluation.metrics.metric import ALL, VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.paired_tests import REFITTED_TEST, paired_tests
from cxr_compare.evaluation.replicates import (
    FiguresOfWeights,
    choose_again,
    refit_choices,
    replicates,
)
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.calibration import RawScores
from cxr_compare.evaluation.thresholds import (
    ThresholdChoice,
    ValidationScores,
    choose_threshold,
)
from tests.evaluation.evaluated_images import evaluated_images, figures_of, model_of
from tools.simulation.draw import draw_images

N = 120


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
        is_boxed=rng.random(N) < 0.8,
        true_boxes=pd.DataFrame({"image_id": ids[y_true], **edges}),
        x_class=pd.Series(kinds),
    )


def drawn_scores(y_true, seed, skill=1.2):
    rng = np.random.default_rng(seed)
    return np.round(1 / (1 + np.exp(-rng.normal(skill * y_true - 0.5, 1.0))), 2)


def validation(seed, n=60, **of):
    y_true = np.random.default_rng(99).random(n) < 0.4  # the same labels for every system
    owners = np.array([f"v{number // 2:02d}" for number in range(n)])
    return ValidationScores(y_true, drawn_scores(y_true, seed, **of), owners)


def a_model(evaluated, seed, policies=("max_f1",)):
    kept = validation(seed + 50)
    thresholds = {each: choose_threshold(kept.y_true, kept.scores, each) for each in policies}
    return model_of(evaluated, drawn_scores(evaluated.y_true, seed), thresholds, validation=kept)


def test_every_replicate_is_taken_at_its_own_threshold(evaluated):
    rng = np.random.default_rng(6)
    x = np.where(rng.random(N) < 0.6, 5.0, 50.0)  # on the lesion, or beside it
    scores = drawn_scores(evaluated.y_true, 5)
    boxes = pd.DataFrame(
        {"image_id": evaluated.image_ids, "x1": x - 4, "y1": 1.0, "x2": x + 4, "y2": 9.0,
         "score": scores}
    )  # fmt: skip
    choice = {"max_f1": ThresholdChoice("max_f1", 0.5)}
    figures = FiguresOfWeights(model_of(evaluated, None, choice, boxes=boxes))
    weights = rng.multinomial(N // 2, np.full(N // 2, 2 / N), size=6).astype(np.int16)
    thresholds = np.array([0.4, 0.35, 0.61, np.nan, 0.05, 0.75])
    found = figures(weights, {"max_f1": thresholds})
    for key, values in figures(weights).items():
        if not key.policy:  # such as an AUROC, which rests on no threshold
            np.testing.assert_array_equal(values, found[key])
    for row, threshold in enumerate(thresholds):
        rows = np.repeat(np.arange(N), weights[row][evaluated.patients])
        truth, called = evaluated.y_true[rows], scores[rows] >= threshold
        normal, boxed = evaluated.versus_normal[rows], truth & evaluated.is_boxed[rows]
        on_lesion = (x == 5)[rows]
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
    """Models A and B, resamples, their frames and their figures."""
    policies = ("max_f1", "sensitivity>=0.80", "threshold=0.5")
    models = {name: [a_model(evaluated, seed, policies)] for name, seed in (("A", 1), ("B", 2))}
    resamples = Resamples(evaluated.n_patients, 200, seed=3)
    frames = replicates(models, resamples)
    return models, resamples, frames, compute_figures("opacity", models, frames, resamples)


def test_frames_are_those_of_a_loop_that_chooses_and_evaluates_again(evaluated, drawn):
    models, resamples, frames, figures = drawn
    of_test = np.concatenate([*resamples.chunks()])
    of_validation = np.concatenate([*Resamples(30, 200, seed=3, stream=1).chunks()])
    loop = {}
    for name, (model,) in models.items():
        kept = model.choices.chosen_scores
        owner = np.unique(kept.patients, return_inverse=True)[1]
        rows = []
        for test, anew in zip(of_test, of_validation, strict=True):
            chosen = np.repeat(np.arange(60), anew[owner])
            cut = choose_threshold(kept.y_true[chosen], kept.scores[chosen], "max_f1").threshold
            chosen = np.repeat(np.arange(N), test[evaluated.patients])
            truth, called = evaluated.y_true[chosen], model.scores[chosen] >= cut
            rows.append({"recall": called[truth].mean(), "accuracy": (called == truth).mean()})
        loop[name] = pd.DataFrame(rows)
    for metric in ("recall", "accuracy"):
        a, b = (frames[name][0][MetricKey(ALL, "max_f1", metric)] for name in "AB")
        np.testing.assert_allclose(a[1:], loop["A"][metric], atol=1e-12)
        assert figures.get("A", metric, "max_f1").estimate == a[0]
        gap = figures.difference("A", "B", metric, "max_f1")
        assert gap.estimate == (a - b)[0]
        ends = np.quantile(loop["A"][metric] - loop["B"][metric], [0.025, 0.975])
        assert (gap.ci_low, gap.ci_high) == pytest.approx(tuple(ends), abs=1e-12)
        assert gap.method.endswith(REFITTED)
    # The closed interval of an AUROC needs no replicates.
    assert frames["A"][0][MetricKey(ALL, "", "auroc")][1:].isna().all()


def boxed_images(rng, n_patients):
    """Images of patients with lesions and the boxes of two detectors, by image id."""
    drawn = draw_images(rng, n_patients, "rsna")
    named = [
        table.assign(image_id=drawn.image_ids[table["image"]]).drop(columns="image")
        for table in (drawn.lesions, *drawn.boxes)
    ]
    evaluated = evaluated_images(
        drawn.sample.y_true,
        drawn.sample.patients,
        image_ids=drawn.image_ids,
        true_boxes=named[0],
        is_boxed=np.ones(len(drawn.image_ids), dtype=bool),
    )
    owners = np.char.add("p", drawn.sample.patients.astype(str))
    return SimpleNamespace(evaluated=evaluated, boxes=named[1:], owners=owners)


def box_choice(images, system):
    """The choice of the score cut of a detector's boxes on these images."""
    pairs = pair_boxes(
        images.boxes[system], images.evaluated.true_boxes, images.evaluated.image_ids
    )
    return BoxChoice([BoxCandidate(OverlapRule(), pairs)], images.owners)


def resampled(images, weights):
    """Images of resampled patients under names of their own, with their lesions and boxes."""
    rows = np.repeat(np.arange(len(images.evaluated.y_true)), weights[images.evaluated.patients])
    names = pd.Index([f"{place:05d}" for place in range(len(rows))])
    copies = pd.DataFrame({"image_id": images.evaluated.image_ids[rows], "new": names})

    def of(table):
        joined = copies.merge(table, on="image_id")
        return joined.assign(image_id=joined["new"]).drop(columns="new")

    return names, of(images.evaluated.true_boxes), [of(boxes) for boxes in images.boxes]


def rsna_score(pairs, cuts):
    """RSNA scores of boxes at rising score cuts."""
    together = np.zeros(len(pairs.truth.per_image), dtype=int)
    return WeightedRsnaScore(pairs, together, 1, cuts)(np.ones((1, 1), dtype=int))[0]


def test_scores_of_called_boxes_are_those_of_a_loop_that_chooses_the_cut_again():
    rng = np.random.default_rng(8)
    validation, test = (boxed_images(rng, size) for size in (40, 30))
    models = {}
    for at, name in enumerate("AB"):
        choice = box_choice(validation, at)
        boxes = test.boxes[at]
        models[name] = [
            model_of(test.evaluated, None, boxes=boxes, box_cut=choice.cut, box_choice=choice)
        ]
    resamples = Resamples(test.evaluated.n_patients, 60, seed=2)
    frames = replicates(models, resamples)
    made = {name: model.choices_made_again for name, (model,) in models.items()}
    chosen = refit_choices(made, resamples)
    names = np.unique(validation.owners)  # sorted as text: the order in which they are drawn
    place = np.searchsorted(names, [f"p{n}" for n in range(validation.evaluated.n_patients)])
    of_validation = np.concatenate([*Resamples(len(names), 60, seed=2, stream=1).chunks()])
    of_test = np.concatenate([*resamples.chunks()])
    differences, same = [], []
    for row, (anew, drawn_test) in enumerate(zip(of_validation[:, place], of_test, strict=True)):
        ids, truth, of_systems = resampled(validation, anew)
        cuts = [chosen[name][BOX_CUT][row] for name in models]
        for boxes, cut in zip(of_systems, cuts, strict=True):
            pairs = pair_boxes(boxes, truth, ids)
            alone = BoxChoice([BoxCandidate(OverlapRule(), pairs)], ids.to_numpy(str)).cut
            same.append(cut == alone)
            lower, higher = rsna_score(pairs, sorted((cut, alone)))
            assert lower == pytest.approx(higher, abs=1e-12)  # of equals either, by rounding
        ids, truth, of_systems = resampled(test, drawn_test)
        scores = [
            rsna_score(pair_boxes(boxes, truth, ids), [cut])[0]
            for boxes, cut in zip(of_systems, cuts, strict=True)
        ]
        differences.append(scores[0] - scores[1])
    assert np.mean(same) > 0.95
    assert np.std(differences) > 0
    key = MetricKey(ALL, "", "rsna_score")
    a, b = (frames[name][0][key] for name in "AB")
    np.testing.assert_allclose((a - b)[1:], differences, atol=1e-12)
    gap = compute_figures("finding", models, frames, resamples).difference("A", "B", key.metric)
    assert gap.estimate == (a - b)[0]
    assert gap.method.endswith(f", {BOX_CUT} {REFITTED}")
    assert gap.n_chosen_on == models["A"][0].choices.box_choice.n_positive > 0


def test_thresholds_that_are_not_chosen_again_give_narrower_intervals_that_say_so(evaluated, drawn):
    models, resamples, _, found = drawn
    bare = {
        name: [model_of(evaluated, model.scores, model.thresholds)]
        for name, (model,) in models.items()
    }
    plain = figures_of(bare, resamples)
    for policy in ("max_f1", "sensitivity>=0.80"):
        figure = found.difference("A", "B", "specificity", policy)
        fixed = plain.difference("A", "B", "specificity", policy)
        assert fixed.method.endswith(f"{FIXED_CHOICE}: thresholds")
        assert figure.ci_high - figure.ci_low > fixed.ci_high - fixed.ci_low
        assert figure.n_chosen_on == models["A"][0].choices.chosen_scores.n_positive
    declared = found.get("A", "recall", "threshold=0.5")
    expected = plain.get("A", "recall", "threshold=0.5")
    assert (declared.ci_low, declared.ci_high) == (expected.ci_low, expected.ci_high)
    assert declared.n_chosen_on is None
    assert REFITTED not in declared.method
    assert FIXED_CHOICE not in declared.method
    assert found.get("A", "average_precision").n_chosen_on is None


def test_the_table_tells_which_figures_rest_on_choices_made_again(drawn):
    figures = drawn[3]
    again = Figures.from_table(figures.table())
    for names, of_system in figures.rows.items():
        for key, figure in of_system.items():
            read = again.rows[names][key]
            assert read.n_chosen_on == figure.n_chosen_on
            assert read.refitted == (figure.refitted and figure.bounded)


def test_a_difference_at_a_chosen_threshold_has_its_p_value_from_the_same_replicates(drawn):
    models, _, frames, figures = drawn
    tests = paired_tests(figures, models)
    tests = tests[tests["subgroup"] == ALL]
    for metric in ("recall", "specificity", "accuracy"):
        rows = tests[(tests["metric"] == metric) & (tests["policy"] == "max_f1")]
        assert rows["method"].tolist() == [REFITTED_TEST]
        a, b = (frames[name][0][MetricKey(ALL, "max_f1", metric)] for name in "AB")
        gap = (a - b)[1:].to_numpy()
        beyond = min((gap <= 0).sum(), (gap >= 0).sum())
        assert rows.iloc[0]["p_value"] == pytest.approx(min(1, 2 * (beyond + 1) / 201))


def few_evaluated(n=20):
    return evaluated_images(np.arange(n) < n // 2)


def recall_of(validation_scores, test_scores):
    evaluated = few_evaluated()
    labels = np.arange(20) < 10
    kept = ValidationScores(labels, np.array(validation_scores), np.arange(20).astype(str))
    choice = choose_threshold(kept.y_true, kept.scores, "max_f1")
    model = model_of(evaluated, test_scores, {"max_f1": choice}, validation=kept)
    figures = figures_of({"A": [model]}, Resamples(20, 400, seed=1))
    return figures.get("A", "recall", "max_f1")


EXACT_TEN = tuple(binomtest(10, 10).proportion_ci(method="exact"))  # (0.69, 1)


def test_a_share_of_one_is_exact_at_its_threshold_whatever_other_patients_would_choose():
    apart = [0.9] * 10 + [0.1] * 10  # every validation resample gives the same threshold
    near = [0.9] * 9 + [0.5] + [0.45] * 2 + [0.1] * 8  # resamples give several
    for chosen_on in (apart, near):
        figure = recall_of(chosen_on, [0.8] * 9 + [0.6] + [0.2] * 10)
        assert (figure.kind, figure.method) == ("exact", EXACT_METHOD)
        assert (figure.ci_low, figure.ci_high) == pytest.approx(EXACT_TEN)


def test_where_validation_often_gives_no_threshold_a_difference_has_no_interval():
    # Two positives: one resample in eight draws neither.
    labels, scores = np.arange(20) < 2, np.linspace(0.9, 0.1, 20)
    kept = ValidationScores(labels, scores, np.arange(20).astype(str))
    chosen = {"A": [replace(kept, policies=("max_f1",))]}
    found = refit_choices(chosen, Resamples(20, 400))["A"]["max_f1"]
    lost = int(np.isnan(found).sum())
    assert lost > 40
    evaluated = few_evaluated()
    choice = {"max_f1": ThresholdChoice("max_f1", 0.87)}
    models = {
        name: [model_of(evaluated, scores, choice, validation=kept)]
        for name, scores in (("A", np.linspace(0.95, 0.2, 20)), ("B", np.linspace(0.9, 0.3, 20)))
    }
    figures = figures_of(models, Resamples(20, 400))
    gap = figures.difference("A", "B", "accuracy", "max_f1")
    assert not gap.bounded
    assert f"undefined in {lost} of 400 resamples" in gap.note
    assert "choices were refitted" in gap.note
    assert gap.n_chosen_on == 2
    assert figures.get("A", "accuracy", "max_f1").bounded  # at this threshold


def test_a_figure_that_resampling_shifts_has_no_interval_and_says_so(evaluated):
    model = model_of(evaluated, drawn_scores(evaluated.y_true, 5), calibration=RawScores())
    resamples = Resamples(evaluated.n_patients, 100)
    shifted = [MetricKey(ALL, "", name) for name in ("brier", "average_precision")]
    frames = replicates({"A": [model]}, resamples)
    for key in shifted:
        frames["A"][0].loc[1:, key] = np.linspace(5, 6, 100)
    figures = compute_figures("sick", {"A": [model]}, frames, resamples)
    for key in shifted:
        figure = figures.get("A", key.metric)
        assert not figure.bounded
        assert "resampling itself shifts this figure" in figure.note
        assert figure.note.endswith("5.019 to 5.981)")  # 30 effective patients


def test_a_floor_set_by_an_extreme_score_has_no_refitted_interval(evaluated):
    policy = "sensitivity>=0.95"  # of 24 positives it allows one miss
    models = {name: [a_model(evaluated, seed, [policy])] for seed, name in enumerate("AB")}
    n_positive = models["A"][0].choices.chosen_scores.n_positive
    assert 20 <= n_positive < 40
    figures = figures_of(models, Resamples(evaluated.n_patients, 60))
    gap = figures.difference("A", "B", "specificity", policy)
    assert gap.known
    assert not gap.bounded
    assert f"allows 1 of {n_positive} validation positives to be missed" in gap.note
    tests = paired_tests(figures, models)
    refitted = tests[(tests["method"] == REFITTED_TEST) & (tests["metric"] == "specificity")]
    assert refitted["p_value"].isna().all()


@pytest.mark.parametrize("shift", [0.03, -0.03])
def test_the_interval_of_precision_is_the_hull_of_percentiles_and_those_without_bias(shift):
    drawn = np.random.default_rng(5).normal(0.5 + shift, 0.05, 500)
    ends, bias = np.quantile(drawn, [0.025, 0.975]), drawn.mean() - 0.5
    hull = min(ends[0], ends[0] - 2 * max(bias, 0)), ends[1]
    with_some_undefined = np.append(drawn, np.nan)
    found = lower_for_bias(with_some_undefined, 0.5)
    assert np.nanquantile(found, [0.025, 0.975]) == pytest.approx(hull)
    assert np.isnan(found).sum() == 1


def test_groups_have_the_figures_of_their_images(evaluated, drawn):
    models, resamples, _, found = drawn
    everything = {"everyone": np.full(N, "all", dtype=object)}
    again = choose_again(models, resamples)
    masks = {("everyone", "all"): np.ones(N, dtype=bool), ("", ""): np.ones(N, dtype=bool)}
    values = draw_shares(models, "max_f1", again, masks, resamples)
    shares = Shares(evaluated.n_patients)
    add_groups(shares, models, everything, "max_f1", values)
    add_at_prevalence(shares, models, "max_f1", Prevalence.parse(0.1), values)
    index = ["topic", "metric", "system"]
    table = shares.table(["A", "B"])
    rows = dict(table[table["group"] != "not all"].set_index(index).iterrows())
    for metric in ("recall", "specificity"):
        for system, figure in (
            ("A", found.get("A", metric, "max_f1")),
            ("A - B", found.difference("A", "B", metric, "max_f1")),
        ):
            row = rows["everyone", metric, system]
            assert row["estimate"] == pytest.approx(figure.estimate)
            ends = (figure.ci_low, figure.ci_high)
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(ends, abs=1e-12)
            assert row["ci_method"] == figure.method
    gap = rows["prevalence", "ppv", "A - B"]
    assert REFITTED in gap["ci_method"]
    assert gap["ci_low"] < gap["estimate"] < gap["ci_high"]


def test_the_interval_of_a_prevalence_widens_that_of_a_predictive_value(drawn):
    models = drawn[0]
    widths = []
    for text in ("0.1", "0.1:0.05-0.2"):
        shares = Shares(models["A"][0].images.n_patients)
        add_at_prevalence(shares, models, "max_f1", Prevalence.parse(text))
        table = shares.table(["A"]).set_index(["topic", "system", "metric"]).sort_index()
        row = table.loc[("prevalence", "A", "ppv")]
        widths.append(row["ci_high"] - row["ci_low"])
    assert widths[1] > widths[0]
