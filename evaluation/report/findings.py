"""Findings below the answer of a report, few enough for one screen."""

from __future__ import annotations

from typing import NamedTuple

from cxr_compare.evaluation.verdict import sentences
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem, Verdict


class Finding(NamedTuple):
    """A finding of the page, and the sentences that it summarises.

    `decided` is True if it says that something was shown. `details` are sentences with the figures
    behind it; empty if `text` has them.
    """

    text: str
    decided: bool
    details: tuple[str, ...] = ()


def page_findings(verdict: Verdict, joint: JointSystem | None) -> list[Finding]:
    """Return the findings that the page shows below its answer.

    Several findings on constant positions become one sentence, below which each can be opened.
    """
    findings = []
    if verdict.ranking:
        findings.append(Finding(verdict.ranking, any(claim.decided for claim in verdict.claims)))
    for each in verdict.conclusions:
        if joint is not None and each.text == verdict.joint:
            text = f"{each.text} {verdict.joint_errors}".rstrip()
            findings.append(Finding(text, each.decided))
        if each.kind == "margin":
            findings.append(Finding(each.text, each.decided))
    image_blind = [each for each in verdict.conclusions if each.kind == "image_blind"]
    if len(image_blind) > 1:
        summary = sentences.image_blind_summary([each.claims[0] for each in image_blind])
        if image_blind[0].secondary:
            summary = f"{sentences.SECONDARY_START} {summary}"
        decided = any(each.decided for each in image_blind)
        findings.append(Finding(summary, decided, tuple(each.text for each in image_blind)))
    else:
        findings += [Finding(each.text, each.decided) for each in image_blind]
    return findings
