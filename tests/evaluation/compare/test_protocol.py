"""What was fixed beforehand, what is claimed against a margin, and how often a split was seen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.compare.estimates import Estimates
from cxr_compare.evaluation.compare.goals import GoalResult
from cxr_compare.evaluation.compare.margin import margin_statement
from cxr_compare.evaluation.compare.prevalence import Prevalence
from cxr_compare.evaluation.compare.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.compare.uses import TestSetUses
from cxr_compare.evaluation.compare.verdict import protocol_statement, state_verdict
from cxr_compare.evaluation.compare.verdict_parts import AnswerContext
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions, tune_predictions
from cxr_compare.evaluation.systems.uses_log import log_use
from cxr_compare.scripts.compare_inputs import read_protocol_or_margin
from cxr_compare.scripts.systems import read_systems


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [
        (-0.02, 0.03, "equivalent"),
        (-0.02, 0.09, "non-inferior"),
        (-0.09, 0.02, "open"),
        (-0.05, 0.02, "open"),
        (-0.20, -0.06, "worse"),
        (float("nan"), float("nan"), "unknown"),
    ],
)
def test_a_margin_is_compared_with_the_whole_interval(low, high, standing):
    estimate = 0.0 if np.isnan(low) else (low + high) / 2
    statement = margin_statement("A", "B", "AUROC", Interval(estimate, low, high), 0.05)
    assert statement.values["standing"] == standing
    assert statement.text.startswith("AUROC: B ")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"metric": "brier"}, "lower is better"),
        ({"metric": "iobb_false_marks_10"}, "lower is better"),
        ({"metric": "calibration_slope"}, "neither higher nor lower is better, 1 is ideal"),
        ({"metric": "ap50", "unit": "patient"}, "evaluated by image only"),
        ({"metric": "aurok"}, "no metric 'aurok'; there are auroc"),
        ({"metric": "recall"}, "needs a policy"),
        (
            {"metric": "recall", "policy": "max_f1"},
            r'one half of an operating point.*write metric = \["recall", "specificity"\] or '
            r'\["recall", "precision"\] or "matched_recall_90" or "balanced_accuracy"',
        ),
        ({"metric": "specificity", "policy": "max_f1"}, '"balanced_accuracy"'),
        ({"metric": "precision", "policy": "max_f1"}, r'\["precision", "recall"\]'),
        ({"metric": "npv", "policy": "max_f1"}, r'\["npv", "specificity"\]'),
        ({"metric": "lr_positive", "policy": "max_f1"}, 'write metric = "balanced_accuracy"'),
        ({"metric": "iobb_accuracy_10"}, 'write metric = "ap50"'),
        (
            {"metric": "recall", "partner": "npv", "policy": "max_f1"},
            "not the two halves of an operating point",
        ),
        ({"metric": "auroc", "partner": "average_precision"}, "not the two halves"),
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


def test_printed_ends_never_contradict_the_standing_against_a_margin():
    statement = margin_statement("A", "B", "F1", Interval(-0.01, -0.03049, 0.010), 0.0304)
    assert "was not shown to be non-inferior to A by the margin of 0.0304" in statement.text
    assert "−0.0100 to 0.0305" in statement.text
    statement = margin_statement("A", "B", "precision", Interval(-0.01, -0.02996, 0.010), 0.03)
    assert statement.text.startswith("Precision: B")
    assert "is equivalent to A within the margin of 0.03000" in statement.text
    assert "−0.01000 to 0.02996" in statement.text


def with_simultaneous(figures, ends):
    """The differences from A with ends that hold for all of them at once."""
    differences = {
        pair: {key: replace(figure, family=(ends[pair[1]],) * 2) for key, figure in each.items()}
        for pair, each in figures.differences.items()
    }
    return replace(figures, differences=differences)


def test_a_margin_is_compared_with_intervals_of_all_contrasts_at_once(make_metrics):
    rows = [(name, "", "auroc", 0.8, 0.7, 0.9) for name in "ABC"]
    rows += [(f"A - {name}", "", "auroc", 0.01, -0.02, 0.04) for name in "BC"]
    protocol = Protocol(margin=0.05, declared=True)
    figures = with_simultaneous(
        Estimates.from_table(make_metrics(rows)), {"B": (-0.03, 0.0499), "C": (-0.03, 0.0501)}
    )
    told = state_verdict(figures, list("ABC"), "X", protocol=protocol)
    texts = [conclusion.text for conclusion in told.conclusions]
    assert "B is equivalent to A within the margin of 0.0500" in texts[0]
    assert "97.5 % interval −0.0300 to 0.0499, Bonferroni over 2 contrasts" in texts[0]
    assert "C was not shown to be non-inferior to A" in texts[1]
    unwidened = Estimates.from_table(make_metrics(rows))
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
    assert "secondary_findings" in kinds_of(told)
    free = verdict_of(make_metrics(rows), ["A", "B"], "X")
    assert not any(conclusion.secondary for conclusion in free.conclusions)


def kinds_of(verdict):
    """Return the kinds of all statements of the scope."""
    return [statement.kind for part in verdict.scope_parts for statement in part.statements]


def test_a_primary_figure_that_a_system_cannot_have_is_refused_before_the_test_set_is_used(
    predict, test_set, evaluation_set
):
    systems = {"A": predict("A", "boxes", seed=1), "B": predict("B", seed=2)}
    both = {"metric": "recall", "partner": "precision", "policy": "threshold=1"}
    for keys, lacking in (({"metric": "ap50"}, "ap50"), (both, "precision")):
        protocol = Protocol(**keys, declared=True)
        with pytest.raises(InputError, match=f"primary figure '{lacking}' is undefined for"):
            compare_predictions(systems, test_set, protocol=protocol)
    assert not (evaluation_set.folder / "splits" / "default.looks.jsonl").exists()
    explored = compare_predictions(
        {"B": systems["B"]}, test_set, replicates=50,
        protocol=Protocol(metric="ap50"),
    )  # fmt: skip
    assert "is undefined" in explored.answer.headline


def test_a_protocol_that_names_no_unit_answers_by_image_and_lets_others_be_shown(tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_text('target = "opacity"\n')
    assert read_protocol_or_margin(path, None, None).unit_of("patient") == "patient"
    path.write_text('target = "opacity"\nunit = "image"\n')
    with pytest.raises(InputError, match="--unit patient: the protocol's unit is 'image'"):
        read_protocol_or_margin(path, None, None).unit_of("patient")


def test_the_reference_comes_first_and_must_be_there():
    assert Protocol(reference="B").in_order({"A": 1, "B": 2}) == ["B", "A"]
    with pytest.raises(InputError, match="reference 'C' is none of the systems A, B"):
        Protocol(reference="C").in_order({"A": 1, "B": 2})


def test_the_protocols_figure_decides_and_its_margin_is_evaluated(make_metrics, verdict_of):
    rows = [("A", "max_f1", "f1", 0.8, 0.7, 0.9), ("B", "max_f1", "f1", 0.6, 0.5, 0.7),
            ("A - B", "max_f1", "f1", 0.2, 0.1, 0.3), ("A", "", "auroc", 0.72, 0.6, 0.8),
            ("B", "", "auroc", 0.7, 0.6, 0.8), ("A - B", "", "auroc", 0.02, -0.1, 0.1)]  # fmt: skip
    protocol = Protocol(metric="f1", policy="max_f1", margin=0.05, declared=True)
    context = AnswerContext(uses_before=2)
    verdict = verdict_of(make_metrics(rows), ["A", "B"], "X", protocol=protocol, context=context)
    assert "A had the higher F1 at the threshold for best F1 for x: 0.800, B 0.600" in (
        verdict.headline
    )
    assert "B is worse than A by more than the margin" in verdict.conclusions[0].text
    assert "AUROC was not shown to differ" in verdict.conclusions[1].text
    (confirmatory,) = [
        statement
        for part in verdict.scope_parts
        for statement in part.statements
        if statement.kind == "confirmatory"
    ]
    assert confirmatory.values["uses_before"] == 2
    assert confirmatory.text in verdict.scope["confirmatory"]


def test_without_a_protocol_a_tested_report_says_that_it_explores(predict, test_set):
    systems = {"A": predict("A", seed=1), "B": predict("B", seed=2)}
    comparison = compare_predictions(systems, test_set, replicates=50)
    scope = " ".join(comparison.answer.scope.values())
    assert kinds_of(comparison.answer)[:2] == ["one_run_each", "exploratory"]
    tests = comparison.tests
    reach = tests[tests["detectable"].notna() & (tests["metric"] == "auroc")]["detectable"].iloc[0]
    assert f"80 % power to detect a true difference in AUROC of {reach:.3f} (two-sided 5 %" in scope
    protocol = Protocol(
        metric="specificity", partner="recall", policy="youden", reference="B", declared=True,
        file_sha256="x",
    )  # fmt: skip
    fixed = compare_predictions(systems, test_set, replicates=50, protocol=protocol)
    assert fixed.names == ["B", "A"]
    assert "recall) at the threshold for best sensitivity + specificity" in fixed.answer.headline
    assert fixed.provenance["protocol"]["analysis"] == "confirmatory"


def test_what_cannot_be_reported_is_refused_before_the_work(predict, test_set, evaluation_set):
    systems = {"A": predict("A", seed=1)}
    ward = Protocol(subgroups=("ward",), declared=True)
    with pytest.raises(InputError, match="subgroup 'ward': the images have no such column"):
        compare_predictions(systems, test_set, protocol=ward)
    with pytest.raises(InputError, match=r"--prevalence 1\.0: must lie above 0 and below 1"):
        compare_predictions(systems, test_set, prevalence=1.0)


def test_a_policy_that_a_stored_decision_lacks_is_refused(predict, test_set, evaluation_set):

    system, target = predict("A", seed=1), evaluation_set.target()
    system.write_decision(target.name, tune_predictions(system, test_set).to_dict())
    protocol = Protocol(metric="f1", policy="youden", declared=True)
    with pytest.raises(InputError, match="asks for policy 'youden', A is tuned for max_f1"):
        compare_predictions({"A": system}, test_set, protocol=protocol)


def test_a_protocol_for_patients_is_answered_for_patients(predict, test_set):
    systems = {"A": predict("A", seed=1), "B": predict("B", seed=2)}
    protocol = Protocol(unit="patient", declared=True)
    comparison = compare_predictions(systems, test_set, replicates=50, protocol=protocol)
    assert comparison.answer.headline.startswith("On these 50 test patients")
    with pytest.raises(InputError, match="--unit study: the protocol's unit is 'patient'"):
        protocol.unit_of("study")
    assert EXPLORATORY.unit_of("study") == "study"


def test_every_use_is_counted_and_none_is_forgotten(predict, test_set, evaluation_set):
    systems = {"A": [predict("A", seed=1)]}
    once = log_use(test_set, systems)
    assert len(once.entries) == 1
    fixed = "abc"
    others = {"B": [predict("B", seed=2)]}
    twice = log_use(test_set, others, fixed)
    assert (len(twice.entries), twice.before_protocol) == (2, 1)
    again = log_use(test_set, others, fixed)
    assert (len(again.entries), again.before_protocol) == (3, 1)
    lines = (evaluation_set.folder / "splits" / "default.looks.jsonl").read_text().splitlines()
    assert [json.loads(line)["protocol"] for line in lines] == [None, "abc", "abc"]
    assert json.loads(lines[1])["systems"] == {"B": ["B-2"]}


def test_uses_of_a_split_that_was_drawn_anew_do_not_count(predict, test_set, evaluation_set):
    systems = {"A": [predict("A", seed=1)]}
    log_use(test_set, systems)
    evaluation_set.ids["split_ids"]["default"] = "s2"
    anew = log_use(test_set, systems)
    assert len(anew.entries) == 1
    assert (
        len((evaluation_set.folder / "splits" / "default.looks.jsonl").read_text().splitlines())
        == 2
    )


def test_a_damaged_record_is_refused(predict, test_set, evaluation_set):
    (evaluation_set.folder / "splits" / "default.looks.jsonl").write_text("nonsense\n")
    with pytest.raises(InputError, match=r"default\.looks\.jsonl: line 1"):
        log_use(test_set, {"A": [predict("A")]})


def test_a_record_that_cannot_be_written_is_noted(predict, test_set, evaluation_set):
    (
        evaluation_set.folder / "splits" / "default.looks.jsonl"
    ).mkdir()  # even root cannot write there
    uses = log_use(test_set, {"A": [predict("A")]})
    assert "is unknown" in uses.text
    assert uses.before_protocol is None
    assert uses.to_dict()["count"] is None
    protocol = Protocol(declared=True, file_sha256="abc")
    assert protocol_statement(protocol, uses.before_protocol).values["uses_before"] is None
    assert protocol_statement(protocol, 0).text != protocol_statement(protocol, None).text


def test_the_count_stands_in_the_reports_provenance(comparison):
    uses = TestSetUses([{"protocol": None}, {"protocol": "abc"}], "", "abc")
    told = comparison.with_uses(uses)
    assert told.provenance["test_set_uses"]["count"] == 2
    assert told.provenance["test_set_uses"]["before_protocol"] == 1
    assert told.notes == comparison.notes
    unknown = comparison.with_uses(TestSetUses((), "not writable"))
    assert unknown.notes[-1] == Note("uses", "not writable")


def test_the_command_line_cannot_contradict_the_protocol(tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_text('target = "opacity"\nmargin = 0.05\nsubgroups = ["sex"]\n')
    asked = read_protocol_or_margin(path, None, "opacity")
    assert (asked.declared, asked.margin, asked.subgroups) == (True, 0.05, ("sex",))
    with pytest.raises(InputError, match=r"--margin 0\.1: the protocol .* fixed 0\.05"):
        read_protocol_or_margin(path, 0.1, None)
    path.write_text('target = "opacity"\nmetric = ["recall", "specificity"]\npolicy = "max_f1"\n')
    assert read_protocol_or_margin(path, None, None).metrics == ("recall", "specificity")
    for metric, says in (
        ('["recall"]', "one half of an operating point"),
        ('["recall", "specificity", "npv"]', "metric: list should have at most 2 items"),
        ("3", "metric: input should be a valid list, got 3"),
    ):
        path.write_text(f'target = "opacity"\nmetric = {metric}\npolicy = "max_f1"\n')
        with pytest.raises(InputError, match=says):
            read_protocol_or_margin(path, None, None)
    path.write_text('target = "opacity"\ninterval = "bca"\n')
    with pytest.raises(InputError, match="interval: unknown key"):
        read_protocol_or_margin(path, None, None)
    path.write_text("targt = 'x'\n")
    with pytest.raises(InputError, match="did you mean 'target'"):
        read_protocol_or_margin(path, None, None)
    assert read_protocol_or_margin(None, 0.1, None).declared is False


def test_seeds_are_separated_by_commas(tmp_path):
    (tmp_path / "a,b").mkdir()
    two, folder_with_comma = read_systems(["A=x,y", f"B={tmp_path}/a,b"])
    assert two.paths == [Path("x"), Path("y")]
    assert folder_with_comma.paths == [tmp_path / "a,b"]
    with pytest.raises(InputError, match="A=x,,y"):
        read_systems(["A=x,,y"])


GOALS = {"recall": 0.5, "specificity": 0.5}


@pytest.fixture
def evaluated_goals(predict, test_set):
    system = predict("A", seed=1, skill=3.0)

    def evaluated(goals, **options):
        protocol = Protocol(policy="max_f1", goals=goals, declared=True, **options)
        return compare_predictions({"A": system}, test_set, replicates=50, protocol=protocol)

    return evaluated


def test_goals_are_met_only_together_and_each_by_its_whole_interval(evaluated_goals):
    met = evaluated_goals(GOALS)
    assert "A met both goals at the threshold for best F1" in met.answer.headline
    assert met.answer.kind == "decided"
    recall, _ = met.goals
    assert recall.ci_low > 0.5
    figure = met.estimates.get("A", "recall", "max_f1").estimate
    assert recall.estimate == pytest.approx(figure)
    high = {"recall": round(recall.estimate - 0.001, 3), "specificity": 0.5}
    partly = evaluated_goals(high)
    assert "was not shown to meet both goals" in partly.answer.headline
    assert "not shown); specificity" in partly.answer.headline
    assert partly.answer.kind == "open"
    missed = evaluated_goals({"recall": 0.5, "specificity": 0.99999})
    assert "missed one of two goals" in missed.answer.headline
    alone = evaluated_goals({"specificity": 0.5})
    assert "met the goal at" in alone.answer.headline
    assert "goal_rule" in kinds_of(met.answer)
    assert "effective number of images by patient" in recall.method  # two images a patient


def test_goals_by_patient_are_compared_with_decisions_on_patients(evaluated_goals):
    by_image = evaluated_goals(GOALS)
    by_patient = evaluated_goals(GOALS, unit="patient")
    assert by_patient.answer.headline.startswith("On these 50 test patients")
    for each, figure in zip(by_patient.goals, ("recall", "specificity"), strict=True):
        assert each.n_images == each.n_patients
        assert each.method == "exact (Clopper-Pearson), fixed threshold"
        assert each.estimate == by_patient.by_unit.get("A", figure, "max_f1").estimate
    assert sum(each.n_images for each in by_image.goals) == 100


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_uncounted_images_count_for_the_goals_too(predict, test_set, evaluation_set, unit):
    predictions = predict("A", seed=1, skill=3.0, skip=tuple(evaluation_set.image_ids("test")[:5]))
    missing = pd.DataFrame({"image_id": evaluation_set.image_ids("test")[:5], "status": "failed",
                            "reason": "unreadable"})  # fmt: skip
    predictions.__dict__["images"] = pd.concat([predictions.images, missing])
    protocol = Protocol(policy="max_f1", goals=GOALS, declared=True, unit=unit)
    comparison = compare_predictions(
        {"A": predictions}, test_set, replicates=50, protocol=protocol, images="common"
    )
    recalls = {each.case: each for each in comparison.goals if each.metric == "recall"}
    assert recalls["all_against"].estimate < recalls[""].estimate < recalls["all_for"].estimate
    if unit == "patient":
        assert all(each.n_images == each.n_patients for each in comparison.goals)
        assert sum(each.n_images for each in comparison.goals if each.case == "all_for") == 50
    assert "goal 0.500)" in comparison.answer.headline  # that of the images evaluated


def test_goals_that_cannot_be_evaluated_are_refused(predict, test_set, tmp_path):
    with pytest.raises(
        InputError, match="goals need a policy, the threshold that they are evaluated"
    ):
        Protocol(goals=GOALS)
    protocol = Protocol(policy="max_f1", goals=GOALS, declared=True)
    one, two = predict("A", seed=1), predict("B", seed=2)
    for systems in ({"A": one, "B": two}, {"A": [one, two]}):
        with pytest.raises(InputError, match="goals are compared with one trained model"):
            compare_predictions(systems, test_set, protocol=protocol)
    nowhere = Protocol(policy="sensitivity>=1", goals=GOALS, declared=True)
    with pytest.raises(InputError, match="the goal of 'recall' cannot be evaluated: no threshold"):
        compare_predictions({"A": predict("C", seed=1, roles=("test",))}, test_set, replicates=50,
                        protocol=nowhere)  # fmt: skip
    path = tmp_path / "protocol.toml"
    head = 'target = "opacity"\npolicy = "max_f1"\n'
    path.write_text(f'{head}[[goal]]\nmetric = "sensitivity"\nat_least = 0.85\n')
    assert read_protocol_or_margin(path, None, None).goals == {"recall": 0.85}
    path.write_text(path.read_text() + '[[goal]]\nmetric = "sensitivity"\nat_least = 0.8\n')
    with pytest.raises(InputError, match="two goals are of one metric"):
        read_protocol_or_margin(path, None, None)
    for line, says in (
        ('metric = "auroc"\nat_least = 0.8', "goal.0.metric: "),
        ('metric = "specificity"\nat_least = 80', "goal.0.at_least: "),
        ('metric = "specificity"\nat_lest = 0.8', "goal.0.at_lest: unknown key"),
    ):
        path.write_text(f"{head}[[goal]]\n{line}\n")
        with pytest.raises(InputError, match=says):
            read_protocol_or_margin(path, None, None)


def test_printed_ends_never_contradict_the_standing_of_a_goal():
    result = GoalResult("recall", 0.85, "", 200, 200, 0.9, 0.85004, 0.94)
    assert result.standing == "met"
    assert "(0.85004 to 0.94000; goal 0.85000)" in result.text
    assert replace(result, ci_low=0.85).standing == "open"  # an end on the goal shows nothing
    assert replace(result, ci_high=0.84, ci_low=0.7).standing == "missed"


@pytest.mark.parametrize(
    ("given", "value", "low", "high"),
    [("0.05", 0.05, 0.05, 0.05), (0.2, 0.2, 0.2, 0.2), ("0.05:0.03-0.08", 0.05, 0.03, 0.08),
     ("12/240", 0.05, 0.02610, 0.08571)],
)  # fmt: skip
def test_a_prevalence_may_bring_its_own_uncertainty(given, value, low, high):
    read = Prevalence.parse(given)
    assert (read.value, read.low, read.high) == pytest.approx((value, low, high), abs=1e-5)
    drawn = read.like(np.zeros(20_000))
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([low, high], abs=2e-3)
    assert float(read.like(np.float64(0.9))) == value


@pytest.mark.parametrize("given", ["0", "5", "x", ".1:.2-.3", ".1:.2", "12/0", "0/9", "1/9:.1-.2"])
def test_text_that_is_no_prevalence_is_refused(given):
    with pytest.raises(InputError, match=r"must lie above 0 and below 1: 0\.05, with its 95 %"):
        Prevalence.parse(given)


def test_predictive_values_contain_the_prevalences_uncertainty(predict, test_set):
    systems = {"A": predict("A", seed=1)}
    width = {}
    for given in ("0.05", "0.05:0.02-0.12"):
        table = compare_predictions(systems, test_set, replicates=200, prevalence=given).failures
        row = table[(table["topic"] == "prevalence") & (table["metric"] == "ppv")].iloc[0]
        width[given] = row["ci_high"] - row["ci_low"]
        assert row["group"] == given
    assert width["0.05:0.02-0.12"] > width["0.05"]
