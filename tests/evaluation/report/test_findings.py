"""Findings below the answer of a report."""

from cxr_compare.evaluation.figures import Figure
from cxr_compare.evaluation.report.findings import page_findings
from cxr_compare.evaluation.verdict.claims import Claim
from cxr_compare.evaluation.verdict.verdict_parts import Conclusion, JointSystem, Verdict


def margin_conclusion(name: str, low: float, high: float) -> Conclusion:
    claim = Claim(name, "A", "auroc", "", (0.8, 0.8), Figure((low + high) / 2, low, high))
    return Conclusion(f"sentence on {name}", "margin", (claim,), low > -0.05)


def verdict_with(conclusions, ranking=""):
    return Verdict("On 9 images", "an answer", "open", {}, conclusions, ranking=ranking)


def test_one_finding_of_a_kind_is_shown_as_it_is():
    verdict = verdict_with([margin_conclusion("B", -0.01, 0.01)])
    (finding,) = page_findings(verdict, None)
    assert (finding.text, finding.decided, finding.details) == ("sentence on B", True, ())


def image_blind_conclusion(name: str, low: float, high: float) -> Conclusion:
    figure = Figure((low + high) / 2, low, high)
    claim = Claim(name, f"image-blind with {name}'s scores", "froc_mean", "", (0.8, 0.7), figure)
    return Conclusion(f"sentence on {name}", "image_blind", (claim,), claim.decided)


def test_findings_on_constant_positions_become_one_that_opens_to_all():
    ends = {"B": (0.01, 0.2), "C": (-0.1, 0.2), "D": (0.1, 0.3), "E": (-0.3, -0.1)}
    conclusions = [image_blind_conclusion(name, *pair) for name, pair in ends.items()]
    ranking, finding = page_findings(verdict_with(conclusions, "names"), None)
    assert ranking.text == "names"
    for words in ("shown for B and D", "not shown for C", "worse for E"):
        assert words in finding.text
    assert finding.decided
    assert finding.details == tuple(f"sentence on {name}" for name in ends)


def test_each_system_beside_the_margin_has_its_sentence():
    ends = {"B": (-0.01, 0.01), "C": (-0.2, 0.2)}
    verdict = verdict_with([margin_conclusion(name, *pair) for name, pair in ends.items()])
    findings = page_findings(verdict, None)
    assert [(each.text, each.decided) for each in findings] == [
        ("sentence on B", True), ("sentence on C", False)
    ]  # fmt: skip


def test_sentence_on_a_joint_system_stands_once_with_its_figures():
    claims = tuple(Claim("AB", name, "auroc", "", (0.9, 0.8), Figure()) for name in "AB")
    verdict = verdict_with([Conclusion("sentence with figures", "joint", claims, False)])
    (finding,) = page_findings(verdict, JointSystem("AB", ("A", "B")))
    assert (finding.text, finding.details) == ("sentence with figures", ())
