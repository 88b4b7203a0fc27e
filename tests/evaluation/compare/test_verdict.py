import pytest

from evaluation.compare.figures import Figures
from evaluation.compare.verdict import _compare_pair, state_verdict


def verdict_of(metrics, *arguments, **options):
    return state_verdict(Figures.from_table(metrics), *arguments, **options)


def three(make_metrics, differences):
    rows = [(name, "", "auroc", value, value - 0.05, value + 0.05)
            for name, value in (("A", 0.8), ("B", 0.9), ("C", 0.7))]  # fmt: skip
    return make_metrics(
        rows + [(pair, "", "auroc", *values) for pair, values in differences.items()]
    )


def two(make_metrics, difference):
    return make_metrics(
        [
            ("A", "", "auroc", 0.85, 0.8, 0.9),
            ("B", "", "auroc", 0.80, 0.7, 0.9),
            ("A - B", "", "auroc", *difference),
        ]
    )


@pytest.mark.parametrize(
    ("difference", "words", "why"),
    [
        ((0.05, 0.01, 0.09), "A was better than B", "interval above 0"),
        ((0.05, -0.01, 0.11), "not shown to differ", "interval holds 0"),
        ((0.05, 0.0, 0.11), "not shown to differ", "an end at 0 does not exclude it"),
        ((0.05, 0.0004, 0.11), "not shown to differ", "printed as 0.000"),
        ((-0.05, -0.09, -0.01), "B was better than A", "interval below 0"),
        ((0.05, float("nan"), float("nan")), "nothing can be claimed", "no interval"),
    ],
)
def test_headline_claims_no_more_than_the_interval(make_metrics, difference, words, why):
    metrics = two(make_metrics, difference)
    if difference[0] < 0:
        metrics.loc[metrics["system"] == "A", "estimate"] = 0.75
    assert words in verdict_of(metrics, ["A", "B"], "Lung opacity").headline, why


def test_headline_names_the_numbers_behind_it(make_metrics):
    headline = verdict_of(two(make_metrics, (0.05, 0.01, 0.09)), ["A", "B"], "X").headline
    assert "AUROC 0.850 and 0.800" in headline
    assert "difference 0.050 (95 % interval 0.010 to 0.090)" in headline
    assert headline.startswith("On these 12 test images")


def test_difference_stored_the_other_way_round_reads_the_same(make_metrics):
    direct = verdict_of(two(make_metrics, (0.05, 0.01, 0.09)), ["A", "B"], "X")
    metrics = two(make_metrics, (-0.05, -0.09, -0.01)).replace("A - B", "B - A")
    assert verdict_of(metrics, ["A", "B"], "X").headline == direct.headline


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ({"A": 1, "B": 1}, "these two trained models"),
        ({"A": 1}, "Of A there is one training run"),
        ({}, "these two systems"),
        ({"A": 3, "B": 3}, "these two systems"),
    ],
)
def test_scope_says_how_many_trainings_speak(make_metrics, seeds, words):
    verdict = verdict_of(two(make_metrics, (0.0, -0.1, 0.1)), ["A", "B"], "X", seeds=seeds)
    assert words in verdict.scope


def test_best_of_three_is_held_against_each_other(make_metrics):
    metrics = three(make_metrics, {"A - B": (-0.1, -0.2, 0.02), "A - C": (0.1, 0, 0.2),
                                   "B - C": (0.2, 0.1, 0.3)})  # fmt: skip
    verdict = verdict_of(metrics, ["A", "B", "C"], "X")
    assert "not widened for the number of comparisons" in verdict.scope
    headline = verdict.headline
    assert "B had the highest AUROC of 3 systems" in headline
    assert "shown to exceed C (0.700; difference 0.200" in headline
    assert "not shown to differ from A (0.800; difference 0.100" in headline


def test_many_systems_are_named_in_one_sentence_and_only_what_was_shown_follows(make_metrics):
    scores = {name: 0.9 - 0.01 * place for place, name in enumerate("ABCDE")}
    rows = [(name, "", "auroc", score, score - 0.1, 0.95) for name, score in scores.items()]
    for place, first in enumerate("ABCDE"):
        for second in "ABCDE"[place + 1 :]:
            low = 0.01 if second == "E" else -0.05
            rows.append((f"{first} - {second}", "", "auroc", 0.05, low, 0.15))
    verdict = verdict_of(make_metrics(rows), list("ABCDE"), "X")
    assert "shown to exceed E (0.860) and it was not shown to differ from B" in verdict.headline
    assert "interval" not in verdict.headline
    texts = [finding.text for finding in verdict.findings]
    assert [text.startswith("AUROC is higher for A than for E") for text in texts] == [True, False]
    assert texts[1].startswith("3 further comparisons were not shown to differ")


def test_undefined_auroc_gives_no_verdict(make_metrics):
    metrics = two(make_metrics, (0.05, 0.01, 0.09))
    metrics.loc[metrics["system"] == "B", "estimate"] = float("nan")
    headline = verdict_of(metrics, ["A", "B"], "X").headline
    assert "no comparison is possible: the AUROC of B is undefined" in headline


def test_one_system_is_described_not_compared(make_metrics):
    headline = verdict_of(two(make_metrics, (0, 0, 0)), ["A"], "X").headline
    assert "the AUROC of A was 0.850" in headline


def test_supporting_comparison_names_its_threshold(make_metrics):
    rows = [("A", "max_f1", "recall", 0.8, 0.7, 0.9), ("B", "max_f1", "recall", 0.6, 0.5, 0.7),
            ("A - B", "max_f1", "recall", 0.2, 0.1, 0.3)]  # fmt: skip
    finding = _compare_pair(Figures.from_table(make_metrics(rows)), "B", "A", "recall", "max_f1")
    assert finding.leader == "A"
    assert finding.text.startswith("Sensitivity (recall) at the threshold for best F1 is higher")
