"""The verdict, compared with the intervals that it quotes."""

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm

from cxr_compare.evaluation.figures import Figure, Figures
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.verdict.claims import Claim, decide_together
from cxr_compare.evaluation.verdict.verdict import state_verdict
from cxr_compare.evaluation.verdict.verdict_parts import AnswerContext
from tests.compared import compare_predictions


def table(make_metrics, scores, gaps=(), key=("", "auroc")):
    """Scores by system and ``(pair, low, high)``; a difference is that of the scores."""
    rows = [(name, *key, value, value - 0.05, value + 0.05) for name, value in scores.items()]
    for pair, low, high in gaps:
        first, second = pair.split(" - ")
        rows.append((pair, *key, scores[first] - scores[second], low, high))
    return make_metrics(rows)


def two(make_metrics, difference):
    gap, low, high = difference
    return table(make_metrics, {"A": 0.8 + gap, "B": 0.8}, [("A - B", low, high)])


@pytest.mark.parametrize(
    ("difference", "words", "why"),
    [
        ((0.05, 0.01, 0.09), "A had the higher AUROC for", "interval above 0"),
        ((0.05, -0.01, 0.11), "not shown to differ", "interval holds 0"),
        ((0.05, 0.0, 0.11), "not shown to differ", "an end at 0 does not exclude it"),
        ((0.05, 0.0004, 0.11), "interval 0.0004 to 0.110", "an end near 0 shows its side"),
        ((-0.05, -0.09, -0.01), "B had the higher AUROC for", "interval below 0"),
        ((0.05, float("nan"), float("nan")), "nothing can be claimed", "no interval"),
        ((0.0, -0.05, 0.05), "A and B had the same AUROC", "equal figures are no difference"),
        ((0, float("nan"), float("nan")), "0.800 (difference 0.000; no interval)", "unmoved"),
    ],
)
def test_headline_claims_no_more_than_the_interval(
    make_metrics, verdict_of, difference, words, why
):
    verdict = verdict_of(two(make_metrics, difference), ["A", "B"], "Lung opacity")
    assert words in verdict.headline, why
    assert "better" not in verdict.headline
    assert "for lung opacity" in verdict.headline


def test_headline_names_the_numbers_behind_it(make_metrics, verdict_of):
    headline = verdict_of(two(make_metrics, (0.05, 0.01, 0.09)), ["A", "B"], "X").headline
    assert headline == (
        "On these 12 test images, A had the higher AUROC for x: 0.850, B 0.800, difference 0.050, "
        "95 % interval 0.010 to 0.090."
    )


def test_a_difference_has_the_sign_that_tables_give_it_whichever_system_is_higher(
    make_metrics, verdict_of
):
    headline = verdict_of(two(make_metrics, (-0.05, -0.09, -0.01)), ["A", "B"], "X").headline
    assert "B had the higher AUROC for x: 0.800, A 0.750, A − B −0.050, 95 % interval " in headline
    assert headline.endswith("−0.090 to −0.010.")


@pytest.mark.parametrize(
    ("scores", "p_values", "start"),
    [
        (
            {"A": 0.52, "B": 0.5},
            (0.4, 1.0),
            "neither system was shown to be better than chance by AUROC; A",
        ),
        ({"A": 0.56, "B": 0.5}, (0.01, 1.0), "A and B were not shown to differ"),
        ({"A": 0.52}, (0.4,), "A was not shown to be better than chance by AUROC; the AUROC of A"),
        (
            {"A": 0.5, "B": 0.5, "C": 0.4},
            (1.0, 1.0, 0.01),
            "no system was shown to be better than chance by AUROC; ",
        ),
    ],
)
def test_chance_comes_first_where_no_system_beats_it(make_metrics, scores, p_values, start):
    gaps = [(f"{one} - {other}", -0.2, 0.2) for one, other in combinations(scores, 2)]
    figures = Figures.from_table(table(make_metrics, scores, gaps))
    key = MetricKey(ALL, "", "auroc")
    for name, p_value in zip(scores, p_values, strict=True):
        figures.rows[name, ""][key] = replace(figures.rows[name, ""][key], p_value=p_value)
    verdict = state_verdict(figures, list(scores), "X")
    assert verdict.headline.startswith(f"On these 12 test images, {start}")


def test_difference_stored_the_other_way_round_reads_the_same(make_metrics, verdict_of):
    direct = verdict_of(two(make_metrics, (0.05, 0.01, 0.09)), ["A", "B"], "X")
    scores = {"A": 0.85, "B": 0.8}
    metrics = table(make_metrics, scores, [("B - A", -0.09, -0.01)])
    assert verdict_of(metrics, ["A", "B"], "X").headline == direct.headline


@pytest.mark.parametrize(
    ("seeds", "brief", "words"),
    [
        ({"A": 1, "B": 1}, "one training run each", ["these two trained models"]),
        ({"A": 1}, "training runs", ["A was trained once", "runs behind B is unknown"]),
        ({}, "training runs", ["runs behind A and B is unknown"]),
        ({"A": 3, "B": 3}, "3 training seeds each", ["A (3 training seeds) and B (3 training"]),
    ],
)
def test_scope_names_the_training_runs(make_metrics, verdict_of, seeds, brief, words):
    metrics = two(make_metrics, (0.01, -0.1, 0.1))
    verdict = verdict_of(metrics, ["A", "B"], "X", context=AnswerContext(seeds=seeds))
    (text,) = verdict.scope.values()
    assert list(verdict.scope) == [brief]
    assert all(word in text for word in words)


def test_a_scope_names_trainings_protocol_and_widened_intervals(make_metrics, verdict_of):
    context = AnswerContext(seeds={"A": 1, "B": 3}, same_training={"C": "A"})
    gaps = [("A - B", -0.1, 0.2), ("A - C", -0.1, 0.2), ("B - C", -0.1, 0.2)]
    metrics = table(make_metrics, {"A": 0.8, "B": 0.75, "C": 0.75}, gaps)
    protocol = Protocol(margin=0.05, declared=True, subgroups=("sex",))
    verdict = verdict_of(metrics, ["A", "B", "C"], "X", context=context, protocol=protocol)
    assert list(verdict.scope) == ["training runs", "protocol given"]
    trainings, analysis = verdict.scope.values()
    for words in ("A was trained once", "B (3 training seeds)", "C and A come from one training"):
        assert words in trainings
    for words in ("AUROC, margin 0.050, subgroups sex.", "answer (3 comparisons) uses intervals"):
        assert words in analysis


def test_scope_names_training_conditions_that_are_not_equal(make_metrics, verdict_of):
    unequal = {"input size": {"A": "128 px", "B": "96 px"}}
    metrics = two(make_metrics, (0.01, -0.1, 0.1))
    context = AnswerContext(seeds={"A": 1, "B": 1}, unequal=unequal)
    verdict = verdict_of(metrics, ["A", "B"], "X", context=context)
    assert "input size (A: 128 px, B: 96 px)" in " ".join(verdict.scope.values())
    equal = verdict_of(metrics, ["A", "B"], "X", context=AnswerContext(seeds={"A": 1, "B": 1}))
    assert "input size" not in " ".join(equal.scope.values())


def test_an_export_beside_its_run_is_no_second_training(make_metrics, verdict_of):
    context = AnswerContext(seeds={"A": 1, "B": 1}, same_training={"B": "A"})
    metrics = two(make_metrics, (0.01, -0.1, 0.1))
    text = " ".join(verdict_of(metrics, ["A", "B"], "X", context=context).scope.values())
    assert "this trained model" in text
    assert "B and A come from one training run" in text


@pytest.mark.parametrize(
    ("context", "start"),
    [
        (
            AnswerContext(seeds={"A": 3, "B": 3}),
            "On these 12 test images, over 3 training seeds each, ",
        ),
        (AnswerContext(seeds={"A": 3}), "On these 12 test images, over 3 training seeds of A, "),
        (AnswerContext(n_synthetic=12, all_synthetic=True), "On 12 synthetic test images, "),
        (AnswerContext(n_synthetic=5), "On 12 test images, 5 of them synthetic, "),
    ],
)
def test_opening_names_images_and_training_seeds(make_metrics, verdict_of, context, start):
    metrics = two(make_metrics, (0.01, -0.1, 0.1))
    assert verdict_of(metrics, ["A", "B"], "X", context=context).headline.startswith(start)


def test_best_of_three_is_compared_with_each_other_by_intervals_for_all_pairs(
    make_metrics, verdict_of
):
    gaps = [("A - B", -0.2, 0.02), ("A - C", 0, 0.2), ("B - C", 0.1, 0.3)]
    verdict = verdict_of(
        table(make_metrics, {"A": 0.8, "B": 0.9, "C": 0.7}, gaps), ["A", "B", "C"], "X"
    )
    assert "B had the highest AUROC of 3 systems for x (0.900)" in verdict.headline
    assert "it was shown to exceed C (0.700) and it was not shown to differ from A (0.800)" in (
        verdict.headline
    )
    told = [conclusion.text for conclusion in verdict.conclusions]
    assert "difference 0.200, 98.3 % interval 0.078 to 0.322" in told[2]
    assert "difference 0.100, 97.5 % interval" in told[0]  # without that pair two are left
    assert "The answer (3 comparisons) uses" in " ".join(verdict.scope.values())
    assert verdict.decides("B", "C", "auroc", "") is True
    assert verdict.decides("A", "B", "auroc", "") is False
    assert verdict.decides("A", "B", "f1", "max_f1") is None
    assert (verdict.kind, [claim.decided for claim in verdict.claims]) == (
        "open",
        [False, False, True],
    )


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("ABC", "it was not tested against B (0.800) and C (0.700); few patients."),
        ("ABCDE", "it was not tested against any of the others; few patients."),
    ],
)
def test_systems_that_could_not_be_tested_are_not_called_similar(
    make_metrics, verdict_of, names, words
):
    scores = {name: 0.9 - 0.1 * place for place, name in enumerate(names)}
    gaps = [(f"{one} - {other}", np.nan, np.nan) for one, other in combinations(names, 2)]
    metrics = table(make_metrics, scores, gaps)
    metrics.loc[metrics["second"] != "", "note"] = "few patients"
    verdict = verdict_of(metrics, list(names), "X")
    assert words in verdict.headline
    assert "not shown" not in verdict.headline + verdict.ranking
    assert verdict.kind == "unknown"
    gaps[0] = ("A - B", 0.05, 0.15)
    tested = verdict_of(table(make_metrics, scores, gaps), list(names), "X")
    assert "it was shown to exceed " in tested.headline
    assert "was not tested against" in tested.headline
    assert tested.kind == "open"


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"A": 0.5, "B": 0.5, "C": 0.5}, "A, B and C had the same AUROC for x: 0.500."),
        (
            {"A": 0.9, "B": 0.9, "C": 0.5},
            "A and B had the same, highest AUROC of 3 systems for x (0.900); A was shown to exceed "
            "C (0.500) and B was shown to",
        ),
    ],
)
def test_ties_are_ties(make_metrics, verdict_of, scores, words):
    gaps = [
        (f"{one} - {other}", gap - 0.1, gap + 0.1)
        for one, other in combinations("ABC", 2)
        for gap in [scores[one] - scores[other]]
    ]
    verdict = verdict_of(table(make_metrics, scores, gaps), ["A", "B", "C"], "X")
    assert words in verdict.headline
    assert verdict.kind == "open"


def test_three_systems_of_equal_scores_are_called_equal_from_the_images_on(predict, test_set):
    systems = {name: predict(name, seed=1) for name in "ABC"}
    answer = compare_predictions(systems, test_set, replicates=20).answer
    assert "A, B and C had the same AUROC for lung opacity: 0." in answer.headline
    assert "highest" not in answer.headline
    assert not any(conclusion.decided for conclusion in answer.conclusions)
    assert {c.standing for conclusion in answer.conclusions for c in conclusion.claims} == {"same"}


def test_headline_of_many_systems_counts_them_and_a_finding_names_them(make_metrics, verdict_of):
    scores = {name: 0.9 - 0.1 * place for place, name in enumerate("ABCDE")}
    gaps = [
        (f"{one} - {other}", gap - half, gap + half)
        for one, other in combinations("ABCDE", 2)
        for gap in [scores[one] - scores[other]]
        for half in [0.1 if other == "E" else 0.9]
    ]
    verdict = verdict_of(table(make_metrics, scores, gaps), list("ABCDE"), "X")
    assert verdict.answer == (
        "A had the highest AUROC of 5 systems for x (0.900); it was shown to exceed 1 of the "
        "others, and was not shown to differ from 3"
    )
    assert verdict.ranking == (
        "A was shown to exceed E (0.500); not shown to differ from B (0.800), C (0.700) and D "
        "(0.600)."
    )
    assert "interval" not in verdict.headline
    texts = [conclusion.text for conclusion in verdict.conclusions]
    assert len(texts) == 10
    assert ["not shown to differ" in text for text in texts[:4]] == [True, True, True, False]
    assert texts[3].startswith("AUROC was higher for A than for E")


def test_undefined_auroc_gives_no_verdict(make_metrics, verdict_of):
    metrics = two(make_metrics, (0.05, 0.01, 0.09))
    metrics.loc[(metrics["first"] == "B") & (metrics["second"] == ""), "estimate"] = float("nan")
    headline = verdict_of(metrics, ["A", "B"], "X").headline
    assert "no comparison is possible: the AUROC of B is undefined" in headline


def test_an_undefined_figure_leaves_the_other_systems_compared(make_metrics, verdict_of):
    gaps = [("A - B", 0.04, 0.16), ("A - C", np.nan, np.nan), ("B - C", np.nan, np.nan)]
    metrics = table(make_metrics, {"A": 0.9, "B": 0.8, "C": np.nan}, gaps)
    metrics.loc[metrics["first"] == "C", "note"] = "no scores"
    verdict = verdict_of(metrics, ["A", "B", "C"], "X")
    assert verdict.headline.startswith("On these 12 test images, A had the higher AUROC for x: ")
    assert verdict.headline.endswith("; the AUROC of C is undefined (no scores).")
    assert verdict.kind == "open"


def test_one_system_is_described_not_compared(make_metrics, verdict_of):
    verdict = verdict_of(two(make_metrics, (0.05, 0, 0.1)), ["A"], "X")
    assert "the AUROC of A for x was 0.850 (95 % interval" in verdict.headline
    assert verdict.claims == ()


HALVES = Protocol(metric="recall", partner="specificity", policy="max_f1", declared=True)


def halves(make_metrics, pairs):
    """Recall and specificity, 0.8 of A, from the differences ``(gap, half width)`` by pair."""
    rows = []
    for place, metric in enumerate(("recall", "specificity")):
        rows.append(("A", "max_f1", metric, 0.8, 0.7, 0.9))
        for pair, differences in pairs.items():
            gap, half = differences[place]
            rows.append((pair, "max_f1", metric, gap, gap - half, gap + half))
            if pair.startswith("A - "):
                rows.append((pair[-1], "max_f1", metric, 0.8 - gap, 0.7, 0.9))
    return make_metrics(rows)


@pytest.mark.parametrize(
    ("recall", "specificity", "words", "kind"),
    [
        ((0.2, 0.1), (0.2, 0.1), "A had both the higher sensitivity (recall) and", "decided"),
        ((0.2, 0.1), (-0.2, 0.1), "neither A nor B was shown to have both", "open"),
        ((0.2, 0.1), (0.05, 0.1), "neither A nor B was shown to have both", "open"),
        # One at 97.5 %, then the other at 95 %: Holm over the two.
        ((0.2, 0.1), (0.11, 0.1), "A had both", "decided"),
        ((0.11, 0.1), (0.11, 0.1), "neither A nor B", "open"),
    ],
)
def test_of_two_halves_both_must_be_shown(
    make_metrics, verdict_of, recall, specificity, words, kind
):
    metrics = halves(make_metrics, {"A - B": (recall, specificity)})
    verdict = verdict_of(metrics, ["A", "B"], "X", protocol=HALVES)
    assert words in verdict.headline
    assert verdict.kind == kind
    assert "sensitivity (recall) 0.800 and" in verdict.headline
    assert "specificity 0.800 and" in verdict.headline


def test_of_three_systems_and_two_halves_each_pair_is_mentioned(make_metrics, verdict_of):
    strong, weak = [(0.3, 0.1)] * 2, [(0.0, 0.1)] * 2
    metrics = halves(make_metrics, {"A - B": weak, "A - C": strong, "B - C": strong})
    verdict = verdict_of(metrics, ["A", "B", "C"], "X", protocol=HALVES)
    assert "A than C and B than C; no other pair was" in verdict.headline
    assert [conclusion.decided for conclusion in verdict.conclusions] == [False, True, True]


def test_sensitivity_and_specificity_are_one_sentence(make_metrics, verdict_of):
    scores = {"A": (0.98, 0.03), "B": (0.51, 0.46)}
    rows = [
        *((name, "max_f1", "recall", one, 0.0, 1.0) for name, (one, _) in scores.items()),
        *((name, "max_f1", "specificity", two, 0.0, 1.0) for name, (_, two) in scores.items()),
        ("A - B", "max_f1", "recall", 0.47, 0.3, 0.6),
        ("A - B", "max_f1", "specificity", -0.43, -0.6, -0.3),
    ]  # fmt: skip
    told = verdict_of(make_metrics(rows), ["A", "B"], "X").conclusions
    assert len(told) == 1
    assert told[0].text.startswith(
        "A and B at the threshold for best F1: sensitivity (recall) 0.980 and 0.510 (difference "
    )
    assert (
        "higher for A; specificity 0.030 and 0.460 (difference −0.430, −0.624 to −0.281)"
        in told[0].text
    )
    assert told[0].text.endswith("higher for B (97.5 % intervals).")
    assert [claim.leader for claim in told[0].claims] == ["A", "B"]


def random_figures(rng, widen, make_metrics, names):
    """Figures of no system in particular: some pairs far apart, some close, some equal."""
    rows = []
    for key in (("", "auroc"), ("", "average_precision"), ("max_f1", "recall"),
                ("max_f1", "specificity"), ("", "ap50_decided")):  # fmt: skip
        scores = dict(zip(names, rng.choice([0.5, 0.6, 0.61, 0.7, 0.9], len(names)), strict=True))
        rows += [(name, *key, value, value - 0.1, value + 0.1) for name, value in scores.items()]
        for one, other in combinations(names, 2):
            gap, half = scores[one] - scores[other], rng.uniform(0.005, 0.3)
            ends = (gap - half, gap + half * rng.uniform(0.2, 1)) if rng.random() < 0.95 else (
                float("nan"), float("nan"))  # fmt: skip
            rows.append((f"{one} - {other}", *key, gap, *ends))
    return widen(Figures.from_table(make_metrics(rows)))


QUOTED = re.compile(r"(−?\d\.\d+) to (−?\d\.\d+)")


def quoted(text):
    return [tuple(float(end.replace("−", "-")) for end in ends) for ends in QUOTED.findall(text)]


def test_no_sentence_contradicts_the_interval_that_it_quotes(make_metrics, widen):
    rng = np.random.default_rng(16)
    shown = open_ = 0
    for n_systems in [2, 3, 4] * 16:
        names = list("ABCD"[:n_systems])
        verdict = state_verdict(random_figures(rng, widen, make_metrics, names), names, "X")
        # Of several systems each "was shown" or "was not shown" is a claim of its own.
        parts = re.split(r"(?:;|,| and) (?:it|[A-D]) was ", verdict.headline)
        sentences = parts[1:] or parts
        sentences += [part for each in verdict.conclusions for part in each.text.split("; ")]
        for sentence in sentences:
            claims_more = re.search(r"higher|shown to exceed", sentence)
            claims_none = re.search(r"not shown to|the same", sentence)
            excludes = [low > 0 or high < 0 for low, high in quoted(sentence)]
            if not excludes:
                assert not claims_more or n_systems > 2, sentence
                continue
            assert bool(claims_more) != bool(claims_none) or "no claim" in sentence, sentence
            if claims_more and not claims_none:
                assert all(excludes), sentence
                shown += 1
            elif claims_none:
                assert not any(excludes), sentence
                open_ += 1
    assert min(shown, open_) > 30


def normal_figure(gap, error=0.01):
    """A difference whose intervals are those of a normal estimate."""

    def ends(level):
        reach = norm.isf((1 - level) / 2) * error
        return gap - reach, gap + reach

    return Figure(gap, *ends(0.95), interval_at=ends)


def test_a_family_is_decided_as_holm_decides_its_p_values():
    """Normal figures: deciding by intervals step by step is Holm's method on their p-values."""
    rng = np.random.default_rng(9)
    for size in (1, 2, 5, 8) * 10:
        gaps = np.round(rng.normal(0.02, 0.02, size), 3)
        figures = [normal_figure(gap) for gap in gaps]
        claims = [
            Claim("A", "B", "auroc", "", (0.5 + figure.estimate, 0.5), figure) for figure in figures
        ]
        found = [claim.decided for claim in decide_together(claims)]
        p_values = holm([2 * norm.sf(abs(gap) / 0.01) for gap in gaps])
        wanted = [p < 0.05 for p in p_values]
        near = any(
            abs(end) < 0.0005
            for figure in figures
            for k in range(1, size + 1)
            for end in figure.interval_at(1 - 0.05 / k)
        )
        assert found == wanted or near


def test_a_finding_names_its_threshold_and_what_chose_it(make_metrics, verdict_of):
    rows = [("A", "max_f1", "recall", 0.8, 0.7, 0.9), ("B", "max_f1", "recall", 0.6, 0.5, 0.7),
            ("A - B", "max_f1", "recall", 0.2, 0.1, 0.3)]  # fmt: skip
    chosen = make_metrics(rows).assign(n_validation_positive=22)
    finding = verdict_of(chosen, ["B", "A"], "X").conclusions[0]
    at = f"at the threshold for {policy_text('max_f1')} (chosen on 22 positive validation images):"
    assert at in finding.text
    assert finding.claims[0].leader == "A"
