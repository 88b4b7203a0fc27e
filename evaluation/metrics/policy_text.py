"""Descriptions of threshold policies in words."""

from __future__ import annotations

import re

_NAMED = {
    "": "Without a threshold",
    "max_f1": "best F1",
    "youden": "best sensitivity + specificity",
    "declared": "the declared aim",
}
_COST = re.compile(r"cost:([\d.]+)/([\d.]+)(?:@([\d.]+))?")


def policy_text(policy: str) -> str:
    """Describe in words the rule by which a threshold is chosen, as in the option ``--policy``.

    An empty text gives "Without a threshold".

    Example:
        >>> policy_text("max_f1"), policy_text("sensitivity>=0.95")
        ('best F1', 'sensitivity ≥ 0.95')
        >>> policy_text("cost:10/1@0.05")
        'least cost, a miss to a false alarm as 10 to 1, at prevalence 0.05'
        >>> policy_text("threshold=0.3")
        'a declared score of 0.3'
    """
    cost = _COST.fullmatch(policy)
    if cost is not None:
        miss, false_alarm, stated = cost.groups()
        prevalence = f"prevalence {stated}" if stated else "the prevalence of validation"
        return f"least cost, a miss to a false alarm as {miss} to {false_alarm}, at {prevalence}"
    if policy.startswith("threshold="):
        return f"a declared score of {policy.removeprefix('threshold=')}"
    if policy in _NAMED:
        return _NAMED[policy]
    return policy.replace(">=", " ≥ ").replace("_", " ")
