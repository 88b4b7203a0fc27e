"""Goals of a protocol."""

from dataclasses import replace

import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.compare.goals import GoalResult
from cxr_compare.evaluation.compare.protocol import Protocol
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions
from cxr_compare.scripts.compare_inputs import read_protocol_or_margin


def kinds_of(verdict):
    """Return the kinds of all statements of the scope."""
    return [statement.kind for part in verdict.scope_parts for statement in part.statements]


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
    with pytest.raises(InputError, match=r"'recall'.*threshold"):
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
