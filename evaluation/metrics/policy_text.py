"""Threshold policies in words."""

from __future__ import annotations

import re

_POLICIES = {
    "": "Without a threshold",
    "max_f1": "best F1",
    "youden": "best sensitivity + specificity",
}


_SIGNS = {
    "false_marks": "false positives per image",
    ">=": " ≥ ",
    "<=": " ≤ ",
    "&": " and ",
    ",prevalence=": " at prevalence ",
    "_": " ",
}


_COST = re.compile(r"cost:([\d.]+)/([\d.]+)(?:@([\d.]+))?")


def policy_text(policy: str) -> str:
    """Return the words for a threshold policy.

    Example:
        >>> policy_text("max_f1"), policy_text("sensitivity>=0.95")
        ('best F1', 'sensitivity ≥ 0.95')
        >>> policy_text("cost:10/1@0.05")
        'least cost, a miss to a false alarm as 10 to 1, at prevalence 0.05'
        >>> policy_text("threshold=0.3")
        'a declared score of 0.3'
        >>> policy_text("ppv>=0.3,prevalence=0.1&sensitivity>=0.8@0.90")
        'ppv ≥ 0.3 at prevalence 0.1 and sensitivity ≥ 0.8 with 90 % confidence'
    """
    if cost := _COST.fullmatch(policy):
        place = f"prevalence {cost[3]}" if cost[3] else "the prevalence of validation"
        return f"least cost, a miss to a false alarm as {cost[1]} to {cost[2]}, at {place}"
    if policy.startswith("threshold="):
        return f"a declared score of {policy.removeprefix('threshold=')}"
    claim, guaranteed, confidence = policy.partition("@")
    for sign, words in _SIGNS.items():
        claim = claim.replace(sign, words)
    sure = f" with {100 * float(confidence):g} % confidence" if guaranteed else ""
    return _POLICIES.get(policy, claim + sure)
