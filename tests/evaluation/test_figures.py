"""The table of figures: intervals, differences, and figures that cannot be."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn import metrics as oracle

import cxr_compare
from cxr_compare import metrics
from tests.adapters import figures as product

N = 240
DECISIONS = [name for name, metric in product.METRICS.items() if metric.family == "decision"]
CALLED_BOXES = {name for name, metric in product.METRICS.items() if metric.of_called_boxes}
PLACES = [
    name
    for name, metric in product.METRICS.items()
    if metric.family == "place" and name not in CALLED_BOXES
]
COUNTS = ["tp", "fp", "tn", "fn"]


def logistic(raw):
    return 1 / (1 + np.exp(-raw))


def drawn(seed=4, n=N, n_patients=120, skill=(1.4, 0.9)):
    """Labels, patients and roles of images, and the scores of two systems with ties."""
    rng = np.random.default_rng(seed)
    patients = np.sort(rng.integers(0, n_patients, n))
    labels = rng.random(n) < 0.4
    truth = product.truth_of(labels, patients, np.where(patients < n_patients // 2, "val", "test"))
    scores = [logistic(rng.normal(effect * labels - 0.6, 1.0)).round(2) for effect in skill]
    return truth, dict(zip("AB", scores, strict=True))


def boxes_at(ids, x, scores):
    """One box of 8 px an image, around 5 px down and `x` px to the right."""
    x = np.asarray(x, float)
    corners = {"x1": x - 4, "y1": 1.0, "x2": x + 4, "y2": 9.0}
    return pd.DataFrame({"image_id": ids, **corners, "score": scores})


def lesions_of(ids):
    return pd.DataFrame({"image_id": ids, "x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0})


def row_of(table, first, metric, policy="", second=""):
    keys = {"first": first, "second": second, "metric": metric, "policy": policy}
    (row,) = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)].to_dict("records")
    return row


def ends(row):
    return row["ci_low"], row["ci_high"]


# Figures under weights


def test_every_figure_of_a_resample_is_taken_at_its_own_threshold():
    rng = np.random.default_rng(6)
    n = 120
    labels, patients = rng.random(n) < 0.4, np.arange(n) // 2
    is_boxed = rng.random(n) < 0.8
    ids = product.truth_of(labels).ids
    truth = product.truth_of(labels, patients, boxes=lesions_of(ids[labels]), boxed=is_boxed)
    x = np.where(rng.random(n) < 0.6, 5.0, 50.0)  # on the lesion, or beside it
    scores = logistic(rng.normal(1.2 * labels - 0.5, 1.0)).round(2)
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=6).astype(np.int16)
    cuts = np.array([0.4, 0.35, 0.61, np.nan, 0.05, 0.75])
    boxes = boxes_at(ids, x, scores)
    fixed = product.figures_under(truth, boxes, {"max_f1": 0.5}, weights)
    found = product.figures_under(truth, boxes, {"max_f1": 0.5}, weights, {"max_f1": cuts})
    for key, values in fixed.items():
        if not key[0]:  # such as an AUROC, which rests on no threshold
            np.testing.assert_array_equal(values, found[key])
    for number, cut in enumerate(cuts):
        rows = np.repeat(np.arange(n), weights[number][patients])
        true, called = labels[rows], scores[rows] >= cut
        boxed, hit = true & is_boxed[rows], (x == 5)[rows]
        at_cut = {
            "recall": oracle.recall_score(true, called),
            "specificity": oracle.recall_score(true, called, pos_label=0),
            "f1": oracle.f1_score(true, called),
            "accuracy": oracle.accuracy_score(true, called),
            "tp": (true & called).sum(),
            "localised_sensitivity": (called & hit)[boxed].mean(),
        }
        for metric, value in at_cut.items():
            expected = np.nan if np.isnan(cut) else value
            got = found["max_f1", metric][number]
            assert got == pytest.approx(expected, nan_ok=True), (metric, number)
        assert found["", "pointing_accuracy"][number] == pytest.approx(hit[boxed].mean())
        assert found["", "auroc"][number] == pytest.approx(oracle.roc_auc_score(true, scores[rows]))


def test_a_score_at_the_threshold_is_called_in_every_figure_of_a_policy():
    # The known mistake: > for >=, which turns every score at the threshold into a negative.
    truth, scores = drawn()
    tied = scores["A"].round(1)
    labels = truth.positive
    assert ((tied == 0.4) & labels).any()
    assert ((tied == 0.4) & ~labels).any()
    once = np.ones((1, truth.n_patients), int)
    found = product.figures_under(truth, tied, {"max_f1": 0.4}, once)
    counts = metrics.confusion_counts(labels.astype(int), tied, 0.4)
    for name, count in counts.items():
        assert found["max_f1", name][0] == count
    assert counts["tp"] == ((tied >= 0.4) & labels).sum()
    for name, value in metrics.classification_metrics(labels.astype(int), tied, 0.4).items():
        assert found["max_f1", name][0] == pytest.approx(value)
    stated = product.table_of(truth, {"A": tied}, given=["threshold=0.4"], replicates=20).decisions
    is_test = (truth.images["role"] == "test").to_numpy()
    assert stated["decision_threshold=0.4"].tolist() == (tied[is_test] >= 0.4).tolist()


def test_the_same_seed_gives_the_same_table_and_another_other_intervals():
    truth, scores = drawn()
    one, same, other = (
        product.table_of(truth, scores, replicates=60, seed=seed).figures for seed in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(one, same)
    assert not other["ci_low"].equals(one["ci_low"])
    pd.testing.assert_series_equal(other["estimate"], one["estimate"])


# Differences


def test_differences_at_a_threshold_are_those_of_a_loop_that_chooses_and_evaluates_again():
    truth, scores = drawn(n=160, n_patients=80)
    table = product.table_of(truth, scores, replicates=50, seed=3).figures
    roles, labels = truth.images["role"].to_numpy(), truth.positive
    owners = {role: np.unique(truth.owners[roles == role]) for role in ("val", "test")}
    draws = {
        role: np.concatenate([*product.Resamples(len(owners[role]), 50, 3, stream).chunks()])
        for role, stream in (("val", 1), ("test", 0))
    }
    loops = {name: [] for name in scores}
    for of_val, of_test in zip(draws["val"], draws["test"], strict=True):
        rows = {}
        for role, drawn_now in (("val", of_val), ("test", of_test)):
            chosen = np.flatnonzero(roles == role)
            owner = np.searchsorted(owners[role], truth.owners[chosen])
            rows[role] = np.repeat(chosen, drawn_now[owner])
        for name, values in scores.items():
            cut = product.threshold("max_f1", labels[rows["val"]], values[rows["val"]])
            true, called = labels[rows["test"]], values[rows["test"]] >= cut
            loops[name].append({"recall": called[true].mean(), "accuracy": (called == true).mean()})
    loops = {name: pd.DataFrame(of) for name, of in loops.items()}
    for metric in ("recall", "accuracy"):
        gap = row_of(table, "A", metric, "max_f1", "B")
        expected = loops["A"][metric] - loops["B"][metric]
        assert ends(gap) == pytest.approx(tuple(expected.quantile([0.025, 0.975])), abs=1e-12)
        alone = [row_of(table, name, metric, "max_f1")["estimate"] for name in "AB"]
        assert gap["estimate"] == pytest.approx(alone[0] - alone[1])
        beyond = min((expected <= 0).sum(), (expected >= 0).sum())
        assert gap["p_value"] == pytest.approx(min(1, 2 * (beyond + 1) / 51))


def test_the_differences_of_a_pair_are_the_same_whatever_other_systems_are_compared():
    truth, scores = drawn()
    rng = np.random.default_rng(8)
    for name in "CDE":
        scores[name] = np.clip(scores["B"] + rng.normal(0, 0.2, N), 0, 1)
    policies = ["max_f1", "sensitivity>=0.80"]
    table = product.table_of(truth, scores, given=policies, replicates=60).figures
    for pair in (["A", "B"], ["B", "D"], ["D", "E"]):
        chosen = {name: scores[name] for name in pair}
        alone = product.table_of(truth, chosen, given=policies, replicates=60).figures
        of_pair = table[table["first"].eq(pair[0]) & table["second"].eq(pair[1])]
        expected = alone[alone["second"] != ""]
        assert len(of_pair) == len(expected) > 15
        pd.testing.assert_frame_equal(
            of_pair.drop(columns="p_holm").reset_index(drop=True),
            expected.drop(columns="p_holm").reset_index(drop=True),
            check_exact=True,
        )


def test_a_system_against_itself_differs_by_nothing_and_is_never_called_different():
    truth, scores = drawn()
    ids = truth.ids
    truth = product.truth_of(
        truth.positive,
        truth.patients,
        truth.images["role"].to_numpy(),
        boxes=lesions_of(ids[truth.positive]),
        boxed=np.ones(len(ids), bool),
    )
    boxes = boxes_at(ids, np.where(np.arange(N) % 3, 5.0, 50.0), scores["A"])
    table = product.table_of(truth, {"A": boxes, "B": boxes}, replicates=60).figures
    table = table[(table["first"] == "A") & (table["second"] == "B")]
    assert len(table) > 15
    assert (table["estimate"] == 0).all()
    assert table["p_value"].isna().all()
    assert table["ci_low"].isna().all()
    assert (table["note"] != "").all()


def test_copies_of_a_patients_images_narrow_no_interval():
    truth, scores = drawn(n=120, n_patients=60)
    again = np.concatenate([np.arange(120), np.arange(120)])
    order = np.argsort(again, kind="stable")
    copies = again[order]
    roles = truth.images["role"].to_numpy()
    doubled = product.truth_of(truth.positive[copies], truth.patients[copies], roles[copies])
    one = product.table_of(truth, scores, replicates=80).figures
    two = product.table_of(
        doubled, {k: v[copies] for k, v in scores.items()}, replicates=80
    ).figures
    platt = one["metric"].isin([*COUNTS, "brier"])  # its smoothing counts images
    inflated = one["metric"].isin(["precision", "npv", "f1", "mcc"]) & (one["second"] == "")
    for column in ("estimate", "ci_low", "ci_high", "p_value"):
        rows = ~platt & ~(inflated & (column != "estimate"))
        np.testing.assert_allclose(two.loc[rows, column], one.loc[rows, column], atol=1e-9)
    assert (two.loc[inflated, "ci_low"] <= one.loc[inflated, "ci_low"] + 1e-9).all()
    assert (two.loc[inflated, "ci_high"] >= one.loc[inflated, "ci_high"] - 1e-9).all()


# Shares of 0 and 1, and few patients

ONE_MISSED = [0.9, 0.8, 0.7, 0.6, 0.1, 0.2, 0.1, 0.3, 0.2, 0.4]


def at_half(scores, copies=1, **options):
    """Figures at 0.5 of ten patients, five of them sick, with so many images each."""
    truth = product.truth_of(np.repeat(np.arange(10) < 5, copies), np.repeat(np.arange(10), copies))
    given = {"A": np.repeat(scores, copies)}
    table = product.table_of(truth, given, given=["threshold=0.5"], replicates=100).figures
    return table[table["policy"] == "threshold=0.5"].set_index("metric")


@pytest.mark.parametrize("copies", [1, 7])
def test_a_share_of_one_has_the_exact_interval_of_its_patients(copies):
    found = at_half(ONE_MISSED, copies)
    for metric, patients in (("specificity", 5), ("precision", 4)):
        exact = binomtest(patients, patients).proportion_ci(method="exact")
        assert found.loc[metric, "estimate"] == 1.0
        assert ends(found.loc[metric]) == pytest.approx(tuple(exact), abs=1e-12)
        assert found.loc[metric, "note"] == ""


# Figures and intervals that cannot be


def test_where_validation_often_gives_no_threshold_a_difference_has_no_interval():
    # Two positives: one resample in eight draws neither.
    labels = np.r_[np.arange(20) < 2, np.arange(20) < 10]
    truth = product.truth_of(labels, roles=["val"] * 20 + ["test"] * 20)
    val = np.linspace(0.9, 0.1, 20)
    scores = {
        name: np.r_[val, np.linspace(*of, 20)]
        for name, of in (("A", (0.95, 0.2)), ("B", (0.9, 0.3)))
    }
    table = product.table_of(truth, scores, replicates=200).figures
    gap = row_of(table, "A", "accuracy", "max_f1", "B")
    assert not np.isnan(gap["estimate"])
    assert np.isnan(gap["ci_low"])
    assert np.isnan(gap["p_value"])
    drawn_now = np.concatenate([*product.Resamples(20, 200, 0, 1).chunks()])
    lost = int((drawn_now[:, :2].sum(axis=1) == 0).sum())
    assert lost > 20
    assert f"{lost} of 200" in gap["note"]
    assert row_of(table, "A", "accuracy", "max_f1")["ci_low"] > 0  # at this threshold


def test_a_floor_that_one_score_sets_gives_a_difference_without_an_interval():
    truth, scores = drawn(seed=2, n=120, n_patients=120)
    n_positive = int(truth.of("val").positive.sum())
    assert 20 <= n_positive < 40  # of which the floor allows one to be missed
    floor = "sensitivity>=0.95"
    table = product.table_of(truth, scores, given=[floor], replicates=60).figures
    gap = row_of(table, "A", "specificity", floor, "B")
    assert not np.isnan(gap["estimate"])
    assert np.isnan(gap["ci_low"])
    assert np.isnan(gap["p_value"])
    assert str(n_positive) in gap["note"]


SCORES = np.linspace(0.1, 0.9, 40)
BOTH = np.arange(40) % 2 == 0
# What a system or the images lack, and the figures that cannot be without it.
ALL_DECIDED = [*DECISIONS, *COUNTS]
LACKING = {
    "a positive image": (
        np.zeros(40, bool),
        {},
        ["auroc", "average_precision", "recall", "balanced_accuracy", "mcc", *PLACES],
    ),
    "a negative image": (
        np.ones(40, bool),
        {},
        ["auroc", "specificity", "balanced_accuracy", "mcc", *PLACES],
    ),
    "true boxes": (BOTH, {}, PLACES),
    "places": (BOTH, {"boxed": True}, PLACES),
    "an image that is called": (BOTH, {"scores": SCORES / 4}, ["precision", "mcc", *PLACES]),
    "an image that is not called": (BOTH, {"scores": 0.5 + SCORES / 4}, ["npv", "mcc", *PLACES]),
}


@pytest.mark.parametrize("what", LACKING)
def test_a_figure_that_cannot_be_has_no_value_and_a_reason_and_all_others_have_one(what):
    labels, options, missing = LACKING[what]
    boxes = {}
    if options.get("boxed"):
        ids = product.truth_of(labels).ids
        boxes = {"boxes": lesions_of(ids[labels]), "boxed": np.ones(40, bool)}
    truth = product.truth_of(labels, np.arange(40) // 2, **boxes)
    scores = {"A": options.get("scores", SCORES)}
    policies = ["max_f1", "threshold=0.5"]
    table = product.table_of(truth, scores, given=policies, replicates=30).figures
    # Without validation images there is no other threshold and no calibration.
    of_policies = table["policy"].isin(["", "threshold=0.5"]) & (table["metric"] != "brier")
    chosen = table[~of_policies]
    assert set(chosen["metric"]) >= {*ALL_DECIDED, "brier"}
    assert chosen["estimate"].isna().all()
    assert (chosen["note"] != "").all()
    table = table[of_policies]
    undefined = table[table["estimate"].isna()]
    assert sorted(undefined["metric"]) == sorted(missing)
    assert (undefined["note"] != "").all()
    assert undefined[["ci_low", "ci_high", "p_value"]].isna().all(axis=None)
    # Boxes with scores alone are no decision.
    assert set(table["metric"]) | {"brier"} == set(product.METRICS) - CALLED_BOXES


def test_a_difference_has_no_interval_where_both_rank_the_images_alike_and_says_so():
    truth, scores = drawn()
    table = product.table_of(truth, {"A": scores["A"], "B": scores["A"] ** 2}, replicates=30)
    row = row_of(table.figures, "A", "auroc", "", "B")
    assert (row["estimate"], "rank the images alike" in row["note"]) == (0, True)
    perfect = {"A": truth.positive * 0.8, "B": np.full(N, 0.3)}
    row = row_of(product.table_of(truth, perfect, replicates=30).figures, "A", "auroc", "", "B")
    assert row["estimate"] == 0.5
    assert row["note"]
    assert "alike" not in row["note"]


def test_figures_of_places_rest_on_images_whose_lesions_all_have_boxes():
    truth, scores = drawn()
    ids, labels = truth.ids, truth.positive
    boxed = ~labels | (np.arange(N) % 3 == 0)
    roles = truth.images["role"].to_numpy()
    truth = product.truth_of(
        labels, truth.patients, roles, boxes=lesions_of(ids[labels & boxed]), boxed=boxed
    )
    x = np.where(np.arange(N) % 2, 5.0, 50.0)
    table = product.table_of(truth, {"A": boxes_at(ids, x, scores["A"])}, replicates=30).figures
    counted = (roles == "test") & boxed
    hits = (x == 5)[counted & labels]
    row = row_of(table, "A", "pointing_accuracy")
    assert (row["estimate"], row["n_positive"]) == (pytest.approx(hits.mean()), len(hits))
    assert row["n_images"] == counted.sum()
    assert row_of(table, "A", "auroc")["n_images"] == (roles == "test").sum()
    called = boxes_at(ids, x, scores["A"])[counted]
    true = lesions_of(ids[labels & counted])
    expected = metrics.box_average_precision(called, true, ids[counted])
    for name in ("ap50", "ap"):
        assert row_of(table, "A", name)["estimate"] == pytest.approx(expected[name])


# What is left out is said


def frames(labels):
    ids = [f"i{number:02d}" for number in range(len(labels))]
    scores = pd.Series(
        np.linspace(0.1, 0.6, len(labels)) + 0.3 * (np.arange(len(labels)) % 4 == 0), ids
    )
    return pd.DataFrame({"image_id": ids, "label": labels, "patient_id": ids}), scores


def test_images_that_a_system_lacks_are_counted_with_their_prevalence():
    truth, scores = frames((np.arange(40) % 4 == 0).astype(float))
    dropped = [*scores.index[:4], *scores.index[[8, 30, 31]]]  # two positive ones of seven
    systems = {"A": scores, "B": scores.drop(dropped)}
    result = cxr_compare.compare(systems, truth=truth, images="common", replicates=100)
    said = " ".join(result.cautions)
    assert {"7", "40", "2", "29", "24"} <= set(re.findall(r"\d+", said))
    whole = cxr_compare.compare({"A": scores, "B": scores / 2}, truth=truth, replicates=100)
    assert len(whole.cautions) < len(result.cautions)


def test_unknown_labels_and_lesions_without_boxes_are_counted():
    labels = (np.arange(40) % 4 == 0).astype(float)
    labels[[1, 2, 3]] = np.nan
    truth, scores = frames(labels)
    boxed = scores.index[labels == 1][:7]
    corners = {"x1": 10.0, "y1": 10.0, "x2": 60.0, "y2": 60.0}
    boxes = pd.DataFrame({"image_id": boxed, **corners})
    predicted = pd.DataFrame({"image_id": scores.index, **corners, "score": scores.to_numpy()})
    result = cxr_compare.compare({"A": predicted}, truth=truth, boxes=boxes, replicates=100)
    said = " ".join([*result.cautions, *result.answer.notes])
    assert re.search(r"\b3 test images", said)
    assert re.search(r"\b3 of .*\b10 positive", said)
    row = row_of(result.figures, "A", "pointing_accuracy")
    assert (row["n_positive"], row_of(result.figures, "A", "auroc")["n_images"]) == (7, 37)
