"""Conclusions about a joint system: what is tested, what is equal by construction, and errors."""

from cxr_compare.evaluation.figures import Figure, Figures
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.verdict.verdict import state_verdict
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem

AUROC = MetricKey(ALL, "", "auroc")
PRECISION = MetricKey(ALL, "", "average_precision")
AP50 = MetricKey(ALL, "", "ap50_decided")
SAME = Figure(0.0, note="no interval", unmoved=True)
JOINT = JointSystem("A + B", ("A", "B"), boxes_of="A")


def gap(estimate, low, high):
    return Figure(estimate, low, high, interval_at=lambda level: (low, high))


def verdict_of(joint=JOINT, ap50=SAME, auroc_below_joint=None):
    errors = {"A": (20, 31), "B": (40, 41), "A + B": (24, 30)}
    singles = {
        "A": {AUROC: Figure(0.90), PRECISION: Figure(0.8), AP50: Figure(0.4)},
        "B": {AUROC: Figure(0.85), PRECISION: Figure(0.7), AP50: Figure(0.1)},
        "A + B": {AUROC: Figure(0.92), PRECISION: Figure(0.82), AP50: Figure(0.4)},
    }
    rows = {(name, ""): dict(figures) for name, figures in singles.items()}
    for name, counts in errors.items():
        for metric, count in zip(("fp", "fn"), counts, strict=True):
            rows[name, ""][MetricKey(ALL, "max_f1", metric)] = Figure(count)
    rows["A", "B"] = {AUROC: gap(0.05, 0.01, 0.09)}
    rows["A", "A + B"] = {
        AUROC: auroc_below_joint or gap(-0.02, -0.03, -0.01),
        PRECISION: gap(-0.02, -0.05, 0.01),
        AP50: ap50,
    }
    rows["B", "A + B"] = {
        AUROC: gap(-0.07, -0.1, -0.04),
        PRECISION: gap(-0.12, -0.2, -0.04),
        AP50: gap(-0.3, -0.4, -0.2),
    }
    figures = Figures("opacity", "image", ("A", "B", "A + B"), rows)
    return state_verdict(figures, ["A", "B", "A + B"], "opacity", joint=joint)


def test_unchanged_boxes_are_named_as_those_of_the_member_and_not_tested():
    verdict = verdict_of()
    primary, further = verdict.joint_families
    assert [claims.claims[0].metric for claims in primary] == ["auroc"]
    assert [claims.claims[0].metric for claims in further] == ["average_precision"]
    assert further[0].claims[0].comparisons == 1  # AP50 is no comparison
    (boxes,) = [each for each in verdict.conclusions if each.claims[0].key == ("ap50_decided", "")]
    assert not boxes.decided
    assert "those of A, unchanged" in boxes.text
    assert "not shown" not in boxes.text


def test_changed_boxes_are_tested_beside_the_other_figures():
    changed = verdict_of(JointSystem("A + B", ("A", "B")), gap(-0.02, -0.05, 0.01))
    _, further = changed.joint_families
    assert [each.claims[0].comparisons for each in further] == [2, 2]
    assert all("not shown" in each.text for each in further)


def test_the_headline_says_what_happens_at_the_threshold():
    headline = verdict_of().headline
    claim, errors = headline.index("was shown to have a higher AUROC"), headline.index("54 errors")
    assert claim < errors
    assert "A 51 and B 81" in headline


def test_without_a_joint_system_nothing_is_said_of_one():
    verdict = verdict_of(joint=None)
    assert verdict.joint_families == ([], [])
    assert verdict.joint_errors == ""


def test_a_joint_system_without_an_interval_was_not_tested():
    verdict = verdict_of(auroc_below_joint=Figure(-0.02, note="few patients"))
    assert verdict.joint.startswith(
        "Whether A + B has a higher AUROC than each of A and B could not"
    )
    assert "(difference 0.020; few patients)" in verdict.joint
