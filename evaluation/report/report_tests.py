"""The report's tables of paired differences: their tests, and every pair of systems."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import pandas as pd

from evaluation.compare.intervals import ALL, Interval, find_difference
from evaluation.compare.paired_tests import OBUCHOWSKI
from evaluation.compare.question import Question
from evaluation.metrics.registry import metric_words, number, policy_words
from evaluation.report.grids import Grid, figure_words
from evaluation.report.tables import figure_keys
from evaluation.statistics.bootstrap import BOOTSTRAP, BOOTSTRAP_BCA

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison

_DECIDES = " (decides)"


def difference_tests(comparison: Comparison) -> Grid | None:
    """Return the tests of paired differences on all images that are not the bootstrap's alone.

    Args:
        comparison: What ``cxr compare`` found.

    Returns:
        The table, or None where no tests were made. Where two methods give an interval of the
        same difference, it says which one decides.
    """
    table = _of_images(comparison.tests)
    if table.empty:
        return None
    chosen = table[(table["subgroup"] == ALL) & (table["second"].fillna("") != "")]
    resampled = chosen["method"].astype(str).str.startswith((BOOTSTRAP, BOOTSTRAP_BCA))
    chosen = chosen[~resampled | (chosen["metric"] == "auroc")]  # the others have no second one
    rows = []
    for row in chosen.to_dict("records"):
        gap = Interval(_real(row["estimate"]), _real(row["ci_low"]), _real(row["ci_high"]))
        method = str(row["method"]) + (_DECIDES if row["method"] == OBUCHOWSKI else "")
        rows.append(
            (_what(row["metric"], row["policy"]), f"{row['first']} − {row['second']}", method,
             figure_words(gap), p_words(row["p_value"]), p_words(row["p_holm"]),
             number(_real(row["detectable"])))
        )  # fmt: skip
    if not rows:
        return None
    lead = (
        "p-values beside the intervals, for those who must report them. Of a difference in AUROC "
        "Obuchowski's interval and test decide: they stand in the main table and behind the "
        "answer; DeLong's and the bootstrap's stand here only to be compared. Tests that take "
        "images as independent are too sure where patients have several. Holm: over the "
        "differences from the first system, per figure. Detectable: the smallest true difference "
        "that a test set like this one shows with 80 % power. Further tests, by the bootstrap, "
        "stand in tests.csv."
    )
    columns = ("Figure", "Difference", "Method", "Estimate", "p", "p (Holm)", "Detectable")
    return Grid("Tests of the differences", lead, columns, tuple(rows))


def every_pair(comparison: Comparison) -> Grid | None:
    """Return the differences of every pair, where there are more than two systems.

    Args:
        comparison: What ``cxr compare`` found.

    Returns:
        The figures of the main and the localisation table, with p-values after Holm over all
        pairs where there are tests; None for one or two systems.
    """
    systems = comparison.systems
    if len(systems) < 3:
        return None
    tests = _of_images(comparison.tests)
    known = Question(comparison.metrics, tests, comparison.protocol, many=True)
    n_pairs = len(systems) * (len(systems) - 1) // 2
    rows = []
    for part in ("first", "place"):
        for key in figure_keys(comparison, part):
            if key.subgroup != ALL:
                continue
            at = (key.metric, key.policy)
            for first, second in combinations(systems, 2):
                gap = find_difference(comparison.metrics, first, second, *at)
                p_value = known.p_value(first, second, at, all_pairs=True)
                words = figure_words(gap), p_words(p_value)
                if gap.known:
                    rows.append((_what(*at), f"{first} − {second}", *words))
    lead = (
        "The columns beside the figures compare with the first system; here is every pair, which "
        "the best of several needs. The intervals are of one difference each, not widened for "
        f"their number. p is after Holm over the {n_pairs} pairs of one figure at one threshold "
        "(its family); a difference is claimed of the best system only where its interval "
        "excludes 0 and that p is below 0.05."
    )
    columns = ("Figure", "Difference", "Estimate", "p (Holm, all pairs)")
    return Grid("Every pair of systems", lead, columns, tuple(rows)) if rows else None


def p_words(value: Any) -> str:
    """Return a p-value with two digits that count.

    Example:
        >>> p_words(0.0312), p_words(0.21), p_words(1e-9), p_words(None)
        ('0.031', '0.21', '< 0.0001', '–')
    """
    real = _real(value)
    if real != real:
        return "–"
    return "< 0.0001" if real < 1e-4 else f"{real:.2g}" if real < 0.1 else f"{real:.2f}"


def _of_images(tests: pd.DataFrame) -> pd.DataFrame:
    """Tests by image; those by study or patient stand in tests.csv."""
    return tests[tests["unit"] == "image"] if "unit" in tests else tests


def _what(metric: str, policy: Any) -> str:
    at = f", {policy_words(policy)}" if isinstance(policy, str) and policy else ""
    return metric_words(metric).title + at


def _real(value: Any) -> float:
    return float("nan") if value is None or pd.isna(value) else float(value)
