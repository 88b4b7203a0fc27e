"""The report's first sentence: which system is better, as far as the intervals say so."""

from __future__ import annotations

from evaluation.compare.intervals import Interval, rows_of
from evaluation.compare.question import Question
from evaluation.metrics.registry import PLACE_METRICS, inside_sentence, listing, number

SIGNIFICANT = 0.05
IN_A_SENTENCE = 4
"""Systems whose figures one sentence can hold."""


def shown(difference: Interval, p_value: float | None) -> bool:
    """Whether a difference may be claimed: its interval excludes 0, and so does the test.

    Args:
        difference: Paired, with its interval.
        p_value: Adjusted for the number of comparisons; None where there is none.
    """
    return difference.excludes_zero and (p_value is None or p_value < SIGNIFICANT)


def adjusted(p_value: float | None, family: str = "") -> str:
    """An adjusted p-value in words; nothing where there is none.

    Args:
        p_value: By Holm's method.
        family: Over which comparisons, with a blank before it.

    Example:
        >>> adjusted(0.012, " over all pairs")
        '; p = 0.012 after Holm over all pairs'
    """
    if p_value is None:
        return ""
    size = "p < 0.001" if p_value < 0.001 else f"p = {number(p_value)}"
    return f"; {size} after Holm{family}"


def headline(known: Question, systems: list[str], finding: str) -> str:
    """Say in one sentence which system is better, or that none was shown to be.

    Args:
        known: The figures, and the one that decides.
        systems: Display names; the first is the reference.
        finding: Display name of the target.
    """
    where, title = _where(known), known.protocol.title
    things = where.rsplit(" ", 1)[1] if where[-1] == "s" else "images"
    task = f"telling {things} with {inside_sentence(finding)} from {things} without"
    if known.protocol.metric in PLACE_METRICS:
        task = f"finding {inside_sentence(finding)}"
    scores = {name: known.score(name) for name in systems}
    if not all(score.known for score in scores.values()):
        lost = listing([name for name, score in scores.items() if not score.known])
        return f"{where}, no comparison is possible: the {title} of {lost} is undefined."
    if len(systems) == 1:
        name, score = systems[0], scores[systems[0]]
        ends = f" (95 % interval {score.ends})" if score.bounded else ""
        reached = f"{where}, {name} reached {_article(title)} {title} of {number(score.estimate)}"
        return f"{reached}{ends} in {task}."
    ranked = sorted(systems, key=lambda name: -scores[name].estimate)
    if len(systems) > 2:
        return _headline_of_many(known, ranked, scores, where, task)
    first, second = ranked
    difference = known.difference(first, second)
    values = f"{title} {number(scores[first].estimate)} and {number(scores[second].estimate)}"
    if not difference.bounded:
        reason = difference.note or "the paired difference has no interval"
        return f"{where}, nothing can be claimed of {first} and {second}: {values}; {reason}."
    gap = f"difference {number(difference.estimate)} (95 % interval {difference.ends})"
    if difference.excludes_zero:
        return f"{where}, {first} was better than {second} at {task}: {values}, {gap}."
    return f"{where}, {first} and {second} were not shown to differ in {task}: {values}, {gap}."


def _headline_of_many(
    known: Question, ranked: list[str], scores: dict[str, Interval], where: str, task: str
) -> str:
    """Say of the highest which others it was shown to exceed, each with its difference."""
    best, *others = ranked
    protocol = known.protocol
    beaten: list[str] = []
    open_: list[str] = []
    for other in others:
        difference = known.difference(best, other)
        primary = (protocol.metric, protocol.policy)
        p_value = known.p_value(best, other, primary, all_pairs=True)
        words = f"{other} ({number(scores[other].estimate)}"
        if difference.bounded and len(ranked) <= IN_A_SENTENCE:
            words += f"; difference {number(difference.estimate)}, 95 % interval {difference.ends}"
            words += adjusted(p_value, " over all pairs")
        (beaten if shown(difference, p_value) else open_).append(words + ")")
    parts = [f"it was shown to exceed {listing(beaten)}"] if beaten else []
    parts += [f"it was not shown to differ from {listing(open_)}"] if open_ else []
    return (
        f"{where}, {best} had the highest {protocol.title} of {len(ranked)} systems in {task} "
        f"({number(scores[best].estimate)}); {listing(parts)}."
    )


def _article(title: str) -> str:
    spoken = ("a", "A", "e", "E", "F1", "i", "I", "LR", "MCC", "RSNA")  # as they sound
    return "an" if title.startswith(spoken) else "a"


def _where(known: Question) -> str:
    rows = rows_of(known.metrics)
    rows = rows[rows["metric"] == known.protocol.metric]
    count = int(rows["n_images"].max()) if len(rows) else 0
    nouns = {"study": "studies", "patient": "patients"}
    unit = str(rows["unit"].iloc[0]) if len(rows) and "unit" in rows else "image"
    return f"On these {count:,} test {nouns.get(unit, 'images')}" if count else "On this test set"
