"""The protocol fixes the question; a claim against a margin follows its interval."""

from dataclasses import replace

import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.sources.read_predictions import store_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.evaluation.verdict.verdict import state_verdict
from cxr_compare.scripts.comparison import _protocol
from tests.compared import compare_predictions


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"metric": "brier"}, "lower is better"),
        ({"metric": "calibration_slope"}, "neither higher nor lower is better, 1 is ideal"),
        ({"metric": "ap50_decided", "unit": "patient"}, "evaluated by image only"),
        ({"metric": "aurok"}, "no metric 'aurok'; there are auroc"),
        ({"metric": "recall"}, "needs a policy"),
        (
            {"metric": "recall", "policy": "max_f1"},
            r'one half of an operating point.*write metric = \["recall", "specificity"\] or '
            r'\["recall", "precision"\] or "balanced_accuracy"',
        ),
        ({"metric": "precision", "policy": "max_f1"}, r'\["precision", "recall"\]'),
        ({"metric": "lr_positive", "policy": "max_f1"}, 'write metric = "balanced_accuracy"'),
        (
            {"metric": "recall", "partner": "npv", "policy": "max_f1"},
            "not the two halves of an operating point",
        ),
        ({"metric": "auroc", "policy": "max_f1"}, "has no policy"),
        ({"metric": "recall", "policy": "best"}, "unknown policy"),
        ({"margin": 0.0}, "must lie above 0"),
    ],
)
def test_a_question_that_no_figure_answers_is_refused(keys, says):
    with pytest.raises(InputError, match=says):
        Protocol(**keys)


def test_the_halves_of_an_operating_point_may_be_named_either_way_round():
    for metric, partner in (("specificity", "localised_sensitivity"), ("precision", "recall")):
        for one, other in ((metric, partner), (partner, metric)):
            assert Protocol(metric=one, partner=other, policy="max_f1").metrics == (one, other)


def test_every_metric_that_a_table_holds_has_a_record(predict, test_set):
    systems = {"A": predict("A", "boxes", seed=1)}
    comparison = compare_predictions(systems, test_set, replicates=50, unit="patient")
    held = {*comparison.metrics["metric"], *comparison.by_unit.table()["metric"]}
    assert held <= set(METRICS)


def with_simultaneous(figures, ends):
    """The differences from A with ends that hold for all of them at once."""
    differences = {
        pair: {
            key: replace(figure, interval_at=lambda _, pair=pair: ends[pair[1]])
            for key, figure in each.items()
        }
        for pair, each in figures.rows.items()
        if pair[1]
    }
    return replace(figures, rows={**figures.rows, **differences})


def test_a_margin_is_compared_with_intervals_of_all_contrasts_at_once(make_metrics):
    rows = [(name, "", "auroc", 0.8, 0.7, 0.9) for name in "ABC"]
    rows += [(f"A - {name}", "", "auroc", 0.01, -0.02, 0.04) for name in "BC"]
    protocol = Protocol(margin=0.05, declared=True)
    figures = with_simultaneous(
        Figures.from_table(make_metrics(rows)), {"B": (-0.03, 0.0499), "C": (-0.03, 0.0501)}
    )
    told = state_verdict(figures, list("ABC"), "X", protocol=protocol)
    texts = [conclusion.text for conclusion in told.conclusions]
    assert "B is equivalent to A within the margin of 0.0500" in texts[0]
    assert "97.5 % interval −0.0300 to 0.0499, Bonferroni over 2 contrasts" in texts[0]
    assert "C was not shown to be non-inferior to A" in texts[1]
    unwidened = Figures.from_table(make_metrics(rows))
    plain = state_verdict(unwidened, list("ABC"), "X", protocol=protocol)
    assert "cannot be compared with the margin" in plain.conclusions[0].text


def test_what_a_protocol_did_not_fix_is_marked_as_secondary(make_metrics, verdict_of):
    rows = [(name, "", metric, score, score - 0.1, score + 0.1)
            for name, score in (("A", 0.8), ("B", 0.6))
            for metric in ("auroc", "average_precision")]  # fmt: skip
    rows += [("A - B", "", m, 0.2, 0.1, 0.3) for m in ("auroc", "average_precision")]
    fixed = Protocol(margin=0.05, declared=True)
    told = verdict_of(make_metrics(rows), ["A", "B"], "X", protocol=fixed)
    assert told.conclusions[0].text.startswith("AUROC: B is worse than A")
    assert told.conclusions[1].secondary
    assert "Average precision was higher for A" in told.conclusions[1].text
    assert "marked as secondary" in " ".join(told.scope.values())
    free = verdict_of(make_metrics(rows), ["A", "B"], "X")
    assert not any(conclusion.secondary for conclusion in free.conclusions)


def test_a_primary_figure_that_a_system_cannot_have_is_refused(predict, test_set):
    systems = {"A": predict("A", "boxes", seed=1), "B": predict("B", seed=2)}
    both = {"metric": "recall", "partner": "precision", "policy": "threshold=1"}
    for keys, lacking in (({"metric": "ap50_decided"}, "ap50_decided"), (both, "precision")):
        protocol = Protocol(**keys, declared=True)
        with pytest.raises(InputError, match=f"'{lacking}'"):
            compare_predictions(systems, test_set, replicates=50, protocol=protocol)
    explored = compare_predictions(
        {"B": systems["B"]}, test_set, replicates=50,
        protocol=Protocol(metric="ap50_decided"),
    )  # fmt: skip
    assert "is undefined" in explored.answer.headline


def asked(path):
    """The protocol of a file."""
    return _protocol(path, [], [])


def test_a_protocol_that_names_no_unit_answers_by_image_and_lets_others_be_shown(tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_text('target = "opacity"\n')
    assert asked(path).unit_of("patient") == "patient"
    path.write_text('target = "opacity"\nunit = "image"\n')
    with pytest.raises(InputError, match=r"unit.*patient.*'image'"):
        asked(path).unit_of("patient")


def test_the_reference_comes_first_and_must_be_there():
    assert Protocol(reference="B").in_order({"A": 1, "B": 2}) == ["B", "A"]
    with pytest.raises(InputError, match=r"'C'.*A, B"):
        Protocol(reference="C").in_order({"A": 1, "B": 2})


def test_the_protocols_figure_decides_and_its_margin_is_evaluated(make_metrics, verdict_of):
    rows = [("A", "max_f1", "f1", 0.8, 0.7, 0.9), ("B", "max_f1", "f1", 0.6, 0.5, 0.7),
            ("A - B", "max_f1", "f1", 0.2, 0.1, 0.3), ("A", "", "auroc", 0.72, 0.6, 0.8),
            ("B", "", "auroc", 0.7, 0.6, 0.8), ("A - B", "", "auroc", 0.02, -0.1, 0.1)]  # fmt: skip
    protocol = Protocol(metric="f1", policy="max_f1", margin=0.05, declared=True)
    verdict = verdict_of(make_metrics(rows), ["A", "B"], "X", protocol=protocol)
    assert "A had the higher F1 at the threshold for best F1 for x: 0.800, B 0.600" in (
        verdict.headline
    )
    assert "B is worse than A by more than the margin" in verdict.conclusions[0].text
    assert "AUROC was not shown to differ" in verdict.conclusions[1].text
    assert (
        "primary figure F1 at the threshold for best F1, margin 0.050."
        in (verdict.scope["protocol given"])
    )
    assert "confirmatory" not in str(verdict.scope).lower()


def test_without_a_protocol_a_tested_report_says_that_it_explores(predict, test_set):
    systems = {"A": predict("A", seed=1), "B": predict("B", seed=2)}
    comparison = compare_predictions(systems, test_set, replicates=50)
    scope = " ".join(comparison.answer.scope.values())
    assert list(comparison.answer.scope)[:2] == ["one training run each", "exploratory"]
    tests = comparison.tests
    reach = tests[tests["detectable"].notna() & (tests["metric"] == "auroc")]["detectable"].iloc[0]
    assert f"with 80 % power if it is at least {reach:.3f} (two-sided 5 %" in scope
    assert "a next study" in scope
    protocol = Protocol(
        metric="specificity", partner="recall", policy="youden", reference="B", declared=True,
        file_sha256="x",
    )  # fmt: skip
    fixed = compare_predictions(systems, test_set, replicates=50, protocol=protocol)
    assert fixed.names == ["B", "A"]
    assert "recall) at the threshold for best sensitivity + specificity" in fixed.answer.headline
    assert fixed.provenance["protocol"]["analysis"] == "protocol given"


def test_what_cannot_be_reported_is_refused_before_the_work(predict, test_set, evaluation_set):
    systems = {"A": predict("A", seed=1)}
    ward = Protocol(subgroups=("ward",), declared=True)
    with pytest.raises(InputError, match="'ward'"):
        compare_predictions(systems, test_set, protocol=ward)
    with pytest.raises(InputError, match=r"--prevalence 1\.0: "):
        compare_predictions(systems, test_set, prevalence=1.0)


def test_a_policy_that_a_stored_decision_lacks_is_refused(predict, test_set, evaluation_set):

    system = predict("A", seed=1)
    store_decision(system, tune_predictions(system, test_set))
    protocol = Protocol(metric="f1", policy="youden", declared=True)
    with pytest.raises(InputError, match=r"'youden'.*\bA\b.*max_f1"):
        compare_predictions({"A": system}, test_set, protocol=protocol)


def test_a_protocol_for_patients_is_answered_for_patients(predict, test_set):
    systems = {"A": predict("A", seed=1), "B": predict("B", seed=2)}
    protocol = Protocol(unit="patient", declared=True)
    comparison = compare_predictions(systems, test_set, replicates=50, protocol=protocol)
    assert comparison.answer.headline.startswith("On these 50 test patients")
    with pytest.raises(InputError, match=r"--unit study: .*'patient'"):
        protocol.unit_of("study")
    assert EXPLORATORY.unit_of("study") == "study"


def test_a_protocol_is_read_with_its_keys_checked(tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_text('target = "opacity"\nsubgroups = ["sex"]\n')
    fixed = asked(path)
    assert (fixed.declared, fixed.subgroups) == (True, ("sex",))
    path.write_text('target = "opacity"\nmetric = ["recall", "specificity"]\npolicy = "max_f1"\n')
    assert asked(path).metrics == ("recall", "specificity")
    for metric, says in (
        ('["recall"]', "one half of an operating point"),
        ('["recall", "specificity", "npv"]', "metric: list should have at most 2 items"),
        ("3", "metric: input should be a valid list, got 3"),
    ):
        path.write_text(f'target = "opacity"\nmetric = {metric}\npolicy = "max_f1"\n')
        with pytest.raises(InputError, match=says):
            asked(path)
    path.write_text('target = "opacity"\ninterval = "bca"\n')
    with pytest.raises(InputError, match="interval"):
        asked(path)
    path.write_text("targt = 'x'\n")
    with pytest.raises(InputError, match="target"):
        asked(path)
