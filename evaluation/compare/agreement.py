"""Whether two systems say the same, beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from evaluation.compare.scorecard import Scorecard
from evaluation.compare.shares import Derived, ShareName, Shares
from evaluation.statistics.ranking import Floats


def kappa(
    both: npt.ArrayLike, only_first: npt.ArrayLike, only_second: npt.ArrayLike, n: npt.ArrayLike
) -> Floats:
    """Cohen's kappa of two systems' calls.

    Args:
        both: Images that both call positive, any shape.
        only_first: Images that only the first calls positive, same shape.
        only_second: Images that only the second calls positive.
        n: Images in all.

    Returns:
        Same shape; NaN where both call every image alike and chance explains it all.

    Source:
        Cohen 1960.

    Example:
        >>> round(float(kappa(20, 5, 10, 50)), 3)
        0.4
    """
    a, b, c, total = (
        np.asarray(each, dtype=np.float64) for each in (both, only_first, only_second, n)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        first, second = (a + b) / total, (a + c) / total
        observed = 1 - (b + c) / total
        chance = first * second + (1 - first) * (1 - second)
        return np.asarray((observed - chance) / np.where(chance < 1, 1 - chance, np.nan))


def add_agreement(shares: Shares, cards: Mapping[str, Sequence[Scorecard]], policy: str) -> None:
    """Add what every pair of systems agrees on, of the first seed of each.

    Images that both, one or none gets right (topic ``right_wrong``; all images, positive ones,
    negative ones), Cohen's kappa of the calls (topic ``agreement``), and sensitivity and
    specificity if an image were called positive by either or by both (topic ``combined``).

    Args:
        shares: Get the figures; system ``A & B``, ``A or B``, ``A and B``.
        cards: Per system one scorecard a training seed.
        policy: Threshold policy.
    """
    judged = next(iter(cards.values()))[0].judged
    truth, patients = judged.y_true, judged.patients
    everything = np.ones(len(truth), dtype=bool)
    populations = {"all": everything, "positive": truth, "negative": ~truth}
    for first, second in combinations(cards, 2):
        calls = [
            card.called(policy) if policy in card.thresholds else None
            for card in (cards[first][0], cards[second][0])
        ]
        one, two = calls
        if one is None or two is None:
            continue
        pair = f"{first} & {second}"
        right = one == truth, two == truth
        cells = {
            "both_right": right[0] & right[1],
            "only_first_right": right[0] & ~right[1],
            "only_second_right": ~right[0] & right[1],
            "both_wrong": ~right[0] & ~right[1],
        }
        for group, of in populations.items():
            for metric, cell in cells.items():
                key = ShareName("right_wrong", group, policy, metric)
                shares.add(pair, key, cell & of, of, patients)
        needed = []
        for metric, cell in (("both", one & two), ("first", one & ~two), ("second", ~one & two)):
            key = ShareName("", "", policy, f"called by {metric}")
            shares.add(pair, key, cell, everything, patients)
            needed.append((pair, key))
        named = (pair, ShareName("agreement", "", policy, "kappa"))
        shares.derived.append(Derived(named, needed, _kappa_of_shares))
        for words, joined in (("or", one | two), ("and", one & two)):
            hits = {"recall": (joined, truth), "specificity": (~joined, ~truth)}
            for metric, (hit, of) in hits.items():
                key = ShareName("combined", "", policy, metric)
                shares.add(f"{first} {words} {second}", key, hit & of, of, patients)


def _kappa_of_shares(both: Floats, only_first: Floats, only_second: Floats) -> Floats:
    return kappa(both, only_first, only_second, 1.0)
