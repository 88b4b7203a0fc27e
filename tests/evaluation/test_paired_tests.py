"""What a comparison tests, and how several systems and several training seeds enter it."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.figure_intervals import EXACT_METHOD, bootstrap_p_value, compute_figures
from cxr_compare.evaluation.figures import OVER_SEEDS, REFITTED, Figures, family_level
from cxr_compare.evaluation.groups.failure_analysis import add_groups
from cxr_compare.evaluation.groups.shares import Shares
from cxr_compare.evaluation.metrics.metric import MetricKey
from cxr_compare.evaluation.paired_tests import (
    DELONG,
    REFITTED_TEST,
    SEEDS_TEST,
    TEST_COLUMNS,
    paired_tests,
)
from cxr_compare.evaluation.replicates import replicates
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP, Resamples
from cxr_compare.evaluation.statistics.clustered_auroc import (
    OBUCHOWSKI,
    auroc_difference,
    auroc_parts,
)
from cxr_compare.evaluation.statistics.clustered_counts import CLUSTERED_COUNTS
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.thresholds import ThresholdChoice
from cxr_compare.evaluation.verdict.cautions import few_patients
from tests.compared import compare_predictions
from tests.evaluation.evaluated_images import evaluated_images, figures_of, model_of, once, row_of

N = 240


@pytest.fixture
def evaluated():
    rng = np.random.default_rng(11)
    patients = np.sort(rng.integers(0, 90, N))
    patients = np.unique(patients, return_inverse=True)[1]
    return evaluated_images(rng.random(N) < 0.4, patients, is_boxed=np.ones(N, dtype=bool))


def a_model(evaluated, seed, skill=1.2, threshold=0.5):
    rng = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-rng.normal(skill * evaluated.y_true - 0.6, 1.0)))
    reason = "validation has no image" if threshold is None else None
    choice = {"max_f1": ThresholdChoice("max_f1", threshold, reason)}
    return model_of(evaluated, scores, choice)


@pytest.fixture(scope="module")
def three(predicted_folder, evaluated_folder):
    """A comparison of three systems, by image and by patient."""
    dataset = DataSet.open(evaluated_folder)
    systems = {
        name: Predictions.open(predicted_folder(name, "scores", seed))
        for seed, name in enumerate("ABC")
    }
    split = LabelledSplit(dataset, dataset.target())
    return compare_predictions(systems, split, replicates=200, unit="patient")


def pairs_of(models):
    images = next(iter(models.values()))[0].images
    return paired_tests(figures_of(models, Resamples(images.n_patients, 50)), models)


def test_every_pair_is_tested_by_patient_with_the_test_by_image_beside_it(evaluated):
    models = {name: [a_model(evaluated, seed)] for seed, name in enumerate("ABC")}
    table = pairs_of(models)
    assert table.columns.tolist() == list(TEST_COLUMNS)
    a, b = models["A"][0], models["B"][0]
    pair = {"first": "A", "second": "B"}
    gap = auroc_difference(evaluated.y_true, a.scores, b.scores, evaluated.patients)
    row = row_of(table, **pair, metric="auroc", method=OBUCHOWSKI)
    assert (row["estimate"], row["p_value"]) == pytest.approx((gap.estimate, gap.p_value))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(gap.interval_at(0.95))
    assert row["detectable"] == pytest.approx(gap.detectable)
    by_image = auroc_difference(evaluated.y_true, a.scores, b.scores)
    beside = row_of(table, **pair, metric="auroc", method=DELONG)
    # DeLong's test has the normal law, as in pROC; the clustered one has Student's t.
    of_normal = 2 * norm.sf(abs(by_image.estimate) / by_image.error)
    assert beside["p_value"] == pytest.approx(of_normal)
    assert by_image.p_value == pytest.approx(of_normal)
    assert beside["independent"] == "images"
    assert set(table["second"]) == {"", "B", "C"}


def test_holm_counts_the_pairs_of_a_metric(evaluated):
    table = pairs_of({name: [a_model(evaluated, seed)] for seed, name in enumerate("ABC")})
    rows = table[(table["metric"] == "auroc") & (table["method"] == OBUCHOWSKI)]
    rows = rows[rows["second"] != ""]
    assert rows["p_holm_pairs"].tolist() == pytest.approx(holm(rows["p_value"].tolist()))


def test_delongs_name_is_not_given_to_a_test_over_seeds(evaluated):
    models = {
        "A": [a_model(evaluated, 1), a_model(evaluated, 2)],
        "B": [a_model(evaluated, 3)],
    }
    rows = pairs_of(models).query("metric == 'auroc'")
    assert rows.loc[rows["method"] == DELONG, ["first", "second"]].to_numpy().tolist() == [
        ["B", ""]
    ]


def test_p_holm_is_of_the_family_that_the_answer_speaks_of(three):
    tests, answer = three.tests_with_holm, three.answer
    told = tests[tests["p_holm"].notna()]
    primary = told[told["metric"] == "auroc"]
    assert primary["method"].tolist() == [OBUCHOWSKI] * 3
    assert primary["p_holm"].tolist() == pytest.approx(holm(primary["p_value"].tolist()))
    rest = told[told["metric"] != "auroc"]
    claims = [c for each in answer.conclusions for c in each.claims if c.metric != "auroc"]
    assert len(rest) == sum(c.difference.bounded for c in claims) > 2
    assert rest["p_holm"].tolist() == pytest.approx(holm(rest["p_value"].tolist()))
    assert three.tests["p_holm"].isna().all()


def test_every_resampled_figure_has_an_adjusted_p_value_by_image_and_by_patient(three):
    for table in (three.metrics, three.by_unit.table()):
        rows = table[(table["second"] != "") & table["ci_low"].notna()]
        assert {"average_precision", "f1", "brier"} <= set(rows["metric"])
        for row in rows.to_dict("records"):
            first, second = row["first"], row["second"]
            of = {key: row[key] for key in ("unit", "subgroup", "policy", "metric")}
            method = REFITTED_TEST if REFITTED in row["ci_method"] else BOOTSTRAP
            assert (method == REFITTED_TEST) == bool(row["policy"])
            if row["metric"] == "auroc":
                method = OBUCHOWSKI
            of |= {"first": first, "second": second, "method": method}
            found = row_of(three.tests, **of)
            assert found["p_value"] <= found["p_holm_pairs"] <= 1
            if method != OBUCHOWSKI:
                assert found["p_value"] >= 2 / 201
    assert set(three.tests["unit"]) == {"image", "patient"}


def test_a_bootstrap_p_value_counts_both_sides_and_never_reaches_0():
    assert bootstrap_p_value(np.full(1999, 0.1)) == pytest.approx(2 / 2000)
    assert bootstrap_p_value(np.r_[np.full(95, 0.1), np.full(4, -0.1)]) == pytest.approx(0.1)
    assert bootstrap_p_value(np.r_[np.full(50, 0.0), np.full(49, 1.0)]) == 1.0
    assert bootstrap_p_value(np.array([np.nan, np.nan])) is None
    # On normal replicates it is the normal p-value.
    drawn = np.random.default_rng(0).normal(2.0, 1.0, 200_000)
    assert bootstrap_p_value(drawn) == pytest.approx(0.0455, abs=0.002)


def test_intervals_of_all_contrasts_at_once_are_bonferronis(evaluated):
    models = {name: [a_model(evaluated, seed)] for seed, name in enumerate("ABC")}
    row = row_of(pairs_of(models), first="A", second="B", metric="auroc", method=OBUCHOWSKI)
    assert family_level(2) == pytest.approx(0.975)
    parts = [
        auroc_parts(evaluated.y_true, models[x][0].scores, evaluated.patients, 90) for x in "AB"
    ]
    freedom = (parts[0] - parts[1]).freedom
    reach = t.isf(0.0125, freedom) * row["standard_error"]  # two-sided 2.5 %
    assert row["ci_low_all"] == pytest.approx(row["estimate"] - reach)
    assert row["ci_high_all"] == pytest.approx(row["estimate"] + reach)
    other = row_of(pairs_of(models), first="B", second="C", metric="auroc", method=OBUCHOWSKI)
    assert np.isnan(other["ci_low_all"])


def test_the_spread_between_seeds_widens_groups_their_differences_and_gaps(evaluated):
    of_image = np.where(np.arange(N) % 2 == 0, "F", "M").astype(object)
    seeds = [a_model(evaluated, 1, skill=0.3), a_model(evaluated, 1, skill=2.0)]
    shares = Shares(90, gaps={"sex"})
    add_groups(shares, {"A": seeds, "B": [a_model(evaluated, 2)]}, {"sex": of_image}, "no policy")
    several = shares.table(["A", "B"])
    inside = of_image == "F"
    values, parts = [], []
    for chosen in (inside, ~inside):
        each = [
            auroc_parts(
                evaluated.y_true[chosen], one.scores[chosen], evaluated.patients[chosen], 90
            )
            for one in seeds
        ]
        values.append(np.array([part.value for part in each]))
        parts.append(each)
    row = row_of(several, system="A", group="F")
    mean = values[0].mean()
    logit_reach = np.log(row["ci_high"] / (1 - row["ci_high"])) - np.log(mean / (1 - mean))
    # By hand: between seeds, var / 2 is far more than patients alone would give.
    least = 1.96 * np.sqrt(values[0].var(ddof=1) / 2) / (mean * (1 - mean))
    assert logit_reach > least
    gap = row_of(several, system="A", group="F - rest")
    of_gap = np.sqrt((values[0] - values[1]).var(ddof=1) / 2)
    assert (gap["ci_high"] - gap["ci_low"]) / 2 > 1.96 * of_gap
    pair = row_of(several, system="A - B", group="F")
    assert (pair["ci_high"] - pair["ci_low"]) / 2 > 1.96 * np.sqrt(values[0].var(ddof=1) / 2)


def test_the_table_takes_its_auroc_intervals_from_the_patients(three):
    table, tests = three.metrics, three.tests.query("unit == 'image'")
    for subgroup in ("all", "vs_normal"):
        of = {"metric": "auroc", "subgroup": subgroup}
        for system, pair in (("A", ("A", "")), ("A - B", ("A", "B"))):
            row = row_of(table, **of, system=system)
            test = row_of(tests, **of, first=pair[0], second=pair[1], method=OBUCHOWSKI)
            assert row["ci_method"].startswith(OBUCHOWSKI)
            assert (row["ci_low"], row["ci_high"]) == (test["ci_low"], test["ci_high"])
            others = tests[(tests["metric"] == "auroc") & tests["method"].str.startswith(BOOTSTRAP)]
            assert others.empty  # the closed interval is the only one that takes patients
    precision = row_of(table, metric="precision", policy="max_f1", system="A", subgroup="all")
    assert precision["ci_method"] == CLUSTERED_COUNTS


def test_seeds_are_averaged_and_their_spread_is_in_every_interval(
    predict, test_set, evaluation_set
):
    target = evaluation_set.target()
    several = [predict(f"A{n}", seed=n, skill=1.0 + n / 4) for n in (1, 2, 3)]
    for place, system in enumerate(several):
        system.info = system.info.with_values(seed=place)
    systems = {"A": several, "B": predict("B", seed=9)}
    comparison = compare_predictions(systems, test_set, replicates=200)
    one = compare_predictions({"A": several[0]}, test_set, replicates=200)
    ids = evaluation_set.image_ids("test")
    y_true = evaluation_set.labels(target).reindex(ids).to_numpy()
    each = [
        auroc_parts(
            y_true, s.scores.set_index("image_id")["score"].reindex(ids), np.arange(100), 100
        )
        for s in several
    ]
    row = row_of(comparison.metrics, system="A", metric="auroc", subgroup="all")
    assert row["estimate"] == pytest.approx(np.mean([part.value for part in each]))
    assert row["ci_method"] == f"{OVER_SEEDS} (on the logit)"
    of = {"metric": "f1", "policy": "max_f1", "subgroup": "all"}
    drawn = row_of(comparison.metrics, system="A - B", **of)
    assert drawn["ci_method"].startswith(f"{OVER_SEEDS}; covariances of 200 resamples")
    tested = row_of(comparison.tests, first="A", second="B", method=SEEDS_TEST, **of)
    gap, error = tested["estimate"], tested["standard_error"]
    assert tested["p_value"] > 2 * norm.sf(abs(gap) / error)  # t, not normal
    assert (tested["ci_low"], tested["ci_high"]) == (drawn["ci_low"], drawn["ci_high"])
    alone = row_of(comparison.metrics, system="B", **of)
    assert "seeds" not in alone["ci_method"]
    assert comparison.names == ["A", "B"]
    assert comparison.seeds == {"A": 3, "B": 1}
    assert comparison.provenance["systems"]["A"]["seed"] == [0, 1, 2]
    assert len(comparison.provenance["systems"]["A"]["models"]) == 3
    assert any("means over 3 training seeds" in note.text for note in comparison.notes)
    assert comparison.decisions["system"].unique().tolist() == ["A", "B"]
    first = one.decisions["score"].to_numpy()
    assert (comparison.decisions.query("system == 'A'")["score"].to_numpy() == first).all()


def test_seeds_are_nested_in_systems_and_replicates_give_their_covariances(evaluated):
    models = {
        "A": [a_model(evaluated, 1, skill=0.4), a_model(evaluated, 2, skill=2.0)],
        "B": [a_model(evaluated, 3)],
    }
    resamples = Resamples(evaluated.n_patients, 150)
    frames = replicates(models, resamples)
    figures = compute_figures("sick", models, frames, resamples)
    key = MetricKey("all", "max_f1", "accuracy")
    drawn = np.cov([frame.loc[1:, key] for of_system in frames.values() for frame in of_system])
    values = [once(model)[key] for members in models.values() for model in members]
    # Between seeds; between patients: of two seeds of A, of B, and of A with B.
    between = (values[0] - values[1]) ** 2 / 2
    over_patients = drawn[0, 1] + drawn[2, 2] - drawn[0, 2] - drawn[1, 2]
    gap = figures.of("A", "B")[key]
    assert gap.estimate == pytest.approx(np.mean(values[:2]) - values[2])
    assert gap.error**2 == pytest.approx(between / 2 + over_patients)
    patients = figures.get("A", *key[:0:-1]).effective_patients - 1
    freedom = gap.error**4 / ((between / 2) ** 2 + over_patients**2 / patients)
    reach = t.isf(0.025, freedom) * gap.error
    assert (gap.ci_low, gap.ci_high) == pytest.approx((gap.estimate - reach, gap.estimate + reach))
    assert gap.p_value == pytest.approx(2 * t.sf(abs(gap.estimate) / gap.error, freedom))
    assert gap.kind == "seeds"
    assert figures.get("B", *key[:0:-1]).kind == "counts"  # alone it is one trained model


def test_equal_seeds_are_no_surer_than_their_patients_and_shares_stay_below_1(evaluated):
    alike = [a_model(evaluated, 1), a_model(evaluated, 1)]
    figures = figures_of(
        {"A": alike, "B": [a_model(evaluated, 1)]}, Resamples(evaluated.n_patients, 100)
    )
    key = ("recall", "max_f1")
    one, other = figures.get("A", *key), figures.get("B", *key)
    assert one.ci_high - one.ci_low >= 0.8 * (other.ci_high - other.ci_low)
    assert 0 <= one.ci_low < one.estimate < one.ci_high <= 1


def test_a_figure_that_a_seed_lacks_is_undefined(evaluated):
    seeds = [a_model(evaluated, 1), a_model(evaluated, 2, threshold=None)]
    figures = figures_of({"A": seeds}, Resamples(evaluated.n_patients, 20))
    missing = figures.get("A", "f1", "max_f1")
    assert not missing.known
    assert missing.note.startswith("seed 2: ")
    assert figures.get("A", "auroc").known


def test_the_same_training_cannot_count_as_two_seeds(predict, test_set):
    first = predict("A", seed=1)
    with pytest.raises(InputError, match="has these predictions already"):
        compare_predictions({"A": [first, first]}, test_set)
    with pytest.raises(InputError, match="not of one kind"):
        compare_predictions({"A": [first, predict("B", "boxes", seed=2)]}, test_set)
    other = predict("D", seed=3)
    for first_weights, refused in (("imagenet", True), ("classifier-3", False)):
        for system, weights in ((first, "classifier-1"), (other, first_weights)):
            config = {"model": {"weights": weights}}
            run = {"n_train": len(weights), "epochs": len(weights)}
            system.info = system.info.with_values(recipe={"config": config, "run": run})
        with (
            pytest.raises(InputError, match="no seeds of one recipe, they differ in first weights")
            if refused
            else nullcontext()
        ):
            compare_predictions({"A": [first, other]}, test_set)
    exported = predict("C", seed=2)
    exported.info = exported.info.with_values(exported_from=first.info.inference_id)
    with pytest.raises(InputError, match="or an export of the same run"):
        compare_predictions({"A": [first, exported]}, test_set)
    training_id = first.info.inference_id
    first.info = first.info.with_values(training_id=training_id, inference_id="on a GPU")
    with pytest.raises(InputError, match="or an export of the same run"):
        compare_predictions({"A": [first, exported]}, test_set)


def test_a_run_evaluated_on_a_gpu_and_its_export_are_named_as_one_training(comparison):
    run, export = comparison.names[:2]
    systems = {
        run: replace(comparison.systems[run], training_id="t"),
        export: replace(comparison.systems[export], training_id="t"),
    }
    assert replace(comparison, systems=systems).same_training == {export: run}
    systems[run] = replace(systems[run], training_id="another")
    assert replace(comparison, systems=systems).same_training == {}
    systems = {name: replace(result, training_id=None) for name, result in systems.items()}
    assert replace(comparison, systems=systems).same_training == {}


def test_predictions_of_one_run_with_and_without_views_are_one_training(comparison):
    plain, views = comparison.names[:2]
    systems = {
        name: replace(comparison.systems[name], training_id=f"trained for {name}")
        for name in (plain, views)
    }
    made = {"seed": 0, "created": "2026-11-25T07:44:13+00:00", "epochs": 6}
    records = {name: {"recipe": {"run": dict(made)}} for name in (plain, views)}
    of_one_run = replace(comparison, systems=systems, records=records)
    assert of_one_run.same_training == {views: plain}
    records[views] = {"recipe": {"run": made | {"seed": 1}}}
    assert replace(of_one_run, records=records).same_training == {}


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 17), (16, 17)])
def test_intervals_are_those_of_scipy(hits, trials):
    theirs = binomtest(hits, trials).proportion_ci(method="exact")
    ours = Interval.from_share(hits / trials, trials)
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(theirs), abs=1e-12)


def table(scores, copies=1):
    """Ten patients, five of them sick, each with so many images; the threshold is 0.5."""
    evaluated = evaluated_images(
        np.repeat(np.arange(10) < 5, copies), np.repeat(np.arange(10), copies)
    )
    threshold = {"max_f1": ThresholdChoice("max_f1", 0.5)}
    model = model_of(evaluated, np.repeat(scores, copies), threshold)
    found = figures_of({"A": [model]}, Resamples(10, 300, seed=1)).table()
    return found[found["policy"] == "max_f1"].set_index("metric")


ONE_MISSED = [0.9, 0.8, 0.7, 0.6, 0.1, 0.2, 0.1, 0.3, 0.2, 0.4]


@pytest.mark.parametrize("copies", [1, 7])
def test_a_proportion_of_one_gets_the_exact_interval_of_its_patients(copies):
    found = table(ONE_MISSED, copies)
    for metric, patients in (("specificity", 5), ("precision", 4)):
        row = found.loc[metric]
        assert row["estimate"] == 1.0
        assert row["ci_method"] == EXACT_METHOD
        exact = binomtest(patients, patients).proportion_ci(method="exact")
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(exact), abs=1e-12)
        assert row["note"] == ""


def test_a_proportion_of_zero_likewise_and_others_have_the_interval_of_their_counts():
    found = table([0.1] * 5 + [0.9] + [0.2] * 4)
    row = found.loc["recall"]
    assert (row["estimate"], row["ci_low"]) == (0.0, 0.0)
    assert row["ci_high"] == pytest.approx(1 - 0.025 ** (1 / 5))
    assert found.loc["specificity", "ci_method"] == CLUSTERED_COUNTS


def test_f1_of_one_is_exact_by_the_share_that_it_follows_from():
    found = table([0.9] * 5 + [0.1] * 5)
    row = found.loc["f1"]
    jaccard = 0.025 ** (1 / 5)  # five of five images that are positive or called
    assert (row["estimate"], row["ci_method"]) == (1.0, EXACT_METHOD)
    assert row["ci_low"] == pytest.approx(2 * jaccard / (1 + jaccard))
    assert found.loc["accuracy", "ci_low"] == pytest.approx(0.025 ** (1 / 10))


def test_few_effective_patients_and_a_patient_with_many_images_are_a_caution():
    (caution,) = few_patients(evaluated_images(np.isin(np.arange(N), [0, 100, 200])))
    assert "The 3 positive images are of 3 patients." in caution.text
    assert "negative images are" not in caution.text
    owner = np.where(np.arange(N) < 100, 0, np.arange(N) - 99)
    even = np.arange(N) % 2 == 0
    (caution,) = few_patients(evaluated_images(even, owner))
    for name in ("positive", "negative"):
        # 50 of 120 images of either class: (50 + 70)^2 / (50^2 + 70) effective patients.
        effective = f"The 120 {name} images are of 71 patients, and say as much as "
        assert f"{effective}{120**2 / 2570:.1f} patients with one image each" in caution.text
        assert f"One patient has 50 of the 120 {name} images (42 %)." in caution.text
    assert few_patients(evaluated_images(even)) == []


def test_the_table_counts_effective_patients_of_the_class_that_a_figure_is_a_share_of(evaluated):
    models = {"A": [a_model(evaluated, 1)]}
    figures = figures_of(models, Resamples(evaluated.n_patients, 20))
    by_class = [np.bincount(evaluated.patients[of]) for of in (evaluated.y_true, ~evaluated.y_true)]
    positive, negative = (n.sum() ** 2 / (n**2).sum() for n in by_class)
    for metric, expected in (
        ("recall", positive), ("specificity", negative), ("f1", min(positive, negative)),
    ):  # fmt: skip
        assert figures.get("A", metric, "max_f1").effective_patients == pytest.approx(expected)
    again = Figures.from_table(figures.table())
    assert again.get("A", "recall", "max_f1").effective_patients == pytest.approx(positive)
