"""Findings below the answer of a report."""

from cxr_compare.evaluation.figures import Figure
from cxr_compare.evaluation.protocol import Protocol
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
    (finding,) = page_findings(verdict, Protocol(margin=0.05), None)
    assert (finding.text, finding.decided, finding.details) == ("sentence on B", True, ())


def test_several_findings_of_a_kind_become_one_that_opens_to_all():
    ends = {"B": (-0.01, 0.01), "C": (-0.01, 0.09), "D": (-0.2, 0.2), "E": (-0.3, -0.1)}
    verdict = verdict_with([margin_conclusion(name, *pair) for name, pair in ends.items()], "names")
    ranking, finding = page_findings(verdict, Protocol(margin=0.05), None)
    assert ranking.text == "names"
    for words in ("B equivalent", "C non-inferior", "E worse", "D not shown to be non-inferior"):
        assert words in finding.text
    assert finding.decided
    assert finding.details == tuple(f"sentence on {name}" for name in ends)


def test_sentence_on_a_joint_system_stands_once_with_its_figures():
    claims = tuple(Claim("AB", name, "auroc", "", (0.9, 0.8), Figure()) for name in "AB")
    verdict = verdict_with([Conclusion("sentence with figures", "joint", claims, False)])
    (finding,) = page_findings(verdict, Protocol(), JointSystem("AB", ("A", "B")))
    assert (finding.text, finding.details) == ("sentence with figures", ())
