"""Thresholds by trying every cut, and the exact distribution of a bootstrap of few patients.

Numbers are fractions, so equal values are equal. Scores are whole hundredths.
"""

from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement, pairwise, product
from math import factorial, prod


def threshold(labels, scores, policy):
    """Cut between two adjacent scores that a policy chooses; None if none serves.

    An image is called from its score on. Of equally good cuts the highest is chosen; a floor of
    the sensitivity takes the highest cut that reaches it, one of the specificity the lowest.
    """
    kind, _, floor = policy.partition(">=")
    best, chosen = Fraction(0), None
    if len(set(labels)) < 2:
        return None
    for lower, upper in pairwise(sorted(set(scores))):
        called = [score >= upper for score in scores]
        tp, fp, fn, tn = (
            sum(label == is_sick and call == is_called
                for label, call in zip(labels, called, strict=True))
            for is_sick, is_called in ((1, True), (0, True), (1, False), (0, False))
        )  # fmt: skip
        cut = Fraction(lower + upper, 2)
        sensitivity, specificity = Fraction(tp, tp + fn), Fraction(tn, tn + fp)
        if kind == "sensitivity":
            chosen = cut if sensitivity >= Fraction(floor) else chosen
        elif kind == "specificity":
            chosen = cut if chosen is None and specificity >= Fraction(floor) else chosen
        else:
            youden = sensitivity + specificity - 1
            worth = Fraction(2 * tp, 2 * tp + fp + fn) if kind == "max_f1" else youden
            if worth >= best and worth > 0:
                best, chosen = worth, cut
    return chosen


def resamples(patients):
    """Images of every way to draw as many patients as there are, with the chance of this way."""
    n = len(patients)
    for drawn in combinations_with_replacement(range(n), n):
        ways = factorial(n) // prod(map(factorial, Counter(drawn).values()))
        yield [image for patient in drawn for image in patients[patient]], Fraction(ways, n**n)


def differences(validation, test, figure, policy):
    """Chance of each difference of two systems if validation and test patients are drawn anew.

    Both samples have the images ``(label, first score, second score)`` of each patient. A drawn
    patient counts as often as it is drawn, and each resample chooses both thresholds again.
    """
    chances = Counter()
    chosen = Counter()
    for drawn, chance in resamples(validation):
        labels, *systems = zip(*drawn, strict=True)
        chosen[tuple(threshold(labels, scores, policy) for scores in systems)] += chance
    of_test = list(resamples(test))
    for (cuts, of_cuts), (drawn, chance) in product(chosen.items(), of_test):
        labels, *systems = zip(*drawn, strict=True)
        first, second = (
            figure(labels, [score >= cut for score in scores])
            for scores, cut in zip(systems, cuts, strict=True)
        )
        chances[first - second] += of_cuts * chance
    return chances


def accuracy(labels, called):
    """Share of the images that are called rightly."""
    right = sum(bool(label) == call for label, call in zip(labels, called, strict=True))
    return Fraction(right, len(labels))


def quantile(chances, share):
    """Smallest value whose chance not to be exceeded reaches a share, and the distance to a step.

    Percentiles of many draws are this value if the distance is large against their sampling error.
    """
    total, value, distance = Fraction(0), None, Fraction(1)
    for each in sorted(chances):
        if value is None and total + chances[each] >= share:
            value = each
        total += chances[each]
        distance = min(distance, abs(total - share))
    return value, distance
