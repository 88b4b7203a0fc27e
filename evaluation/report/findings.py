"""Findings below the answer of a report, few enough for one screen."""

from __future__ import annotations

from typing import NamedTuple

from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.verdict import sentences
from cxr_compare.evaluation.verdict.verdict_parts import (
    Conclusion,
    ConclusionKind,
    JointSystem,
    Verdict,
)


class Finding(NamedTuple):
    """A finding of the page, and the sentences that it summarises.

    Attributes:
        text: The sentence.
        decided: True if it says that something was shown.
        details: Sentences with the figures behind it; empty if `text` has them.
    """

    text: str
    decided: bool
    details: tuple[str, ...] = ()


def page_findings(verdict: Verdict, protocol: Protocol, joint: JointSystem | None) -> list[Finding]:
    """Return the findings that the page shows below its answer.

    Several findings of one kind become one sentence, below which each of them can be opened.

    Args:
        verdict: Result of the comparison in sentences.
        protocol: Question of the comparison, with its margin.
        joint: System that joins others of the comparison; None without one.
    """
    findings = []
    if verdict.ranking:
        findings.append(Finding(verdict.ranking, any(claim.decided for claim in verdict.claims)))
    if joint is not None:
        of_joint = [each for each in verdict.conclusions if each.text == verdict.joint]
        findings += [
            Finding(f"{each.text} {verdict.joint_errors}".rstrip(), each.decided)
            for each in of_joint
        ]
    for (_, policy), margins in _by_figure(verdict, "margin").items():
        claims = [each.claims[0] for each in margins]
        at = sentences.at_threshold(policy)
        text = sentences.margin_summary(claims, protocol.margin or 0.0, at)
        findings.append(_together(text, margins))
    for (_, policy), image_blind in _by_figure(verdict, "image_blind").items():
        claims = [each.claims[0] for each in image_blind]
        text = sentences.image_blind_summary(claims, sentences.at_threshold(policy))
        findings.append(_together(text, image_blind))
    return findings


def _by_figure(verdict: Verdict, kind: ConclusionKind) -> dict[tuple[str, str], list[Conclusion]]:
    """Return the conclusions of one kind by metric and rule for its threshold."""
    grouped: dict[tuple[str, str], list[Conclusion]] = {}
    for each in verdict.conclusions:
        if each.kind == kind:
            grouped.setdefault(each.claims[0].key, []).append(each)
    return grouped


def _together(summary: str, conclusions: list[Conclusion]) -> Finding:
    """Return one conclusion as it is, and several behind their summary."""
    texts = tuple(each.text for each in conclusions)
    decided = any(each.decided for each in conclusions)
    if len(texts) == 1:
        return Finding(texts[0], decided)
    if conclusions[0].secondary:
        summary = f"{sentences.SECONDARY_START} {summary}"
    return Finding(summary, decided, texts)
