"""Verdicts on figures that are given as plain values, and the rows that they rest on."""

import pandas as pd
from scipy.stats import norm

from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.image_blind import FEW_BOXES
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.verdict.claims import Claim, Lookup, decide_together
from cxr_compare.evaluation.verdict.recipes import differing, recipe_table
from cxr_compare.evaluation.verdict.verdict import JointSystem, state_verdict

KEYS = ("first", "second", "metric", "policy")
__all__ = ["FEW_BOXES", "decided", "differing_settings", "holm", "image_blind_name", "verdict_of"]


def verdict_of(systems, rows, *, finding="opacity", joint=None, protocol=None, **options):
    """State the verdict of rows ``first, second, metric, policy, estimate, low, high, note``.

    Intervals of other levels are those of a normal distribution that has the one of 95 %.
    """
    names = [*KEYS, "estimate", "ci_low", "ci_high", "note"]
    table = pd.DataFrame(rows, columns=names).assign(n_images=12, p_value=float("nan"))
    found = state_verdict(
        Lookup(table, _widened(table)),
        systems,
        finding,
        protocol=Protocol(**protocol or {}),
        joint=JointSystem(joint[0], tuple(joint[1:])) if joint else None,
        **options,
    )
    return {
        "headline": found.headline,
        "kind": found.kind,
        "findings": list(found.findings),
        "claims": [claim.to_dict() for claim in found.claims],
    }


def _widened(table):
    ends = {
        tuple(row[key] for key in KEYS): (row["estimate"], row["ci_low"], row["ci_high"])
        for row in table.to_dict("records")
    }

    def at_level(*key_and_level):
        *key, level = key_and_level
        value, low, high = ends[tuple(key)]
        reach = norm.isf((1 - level) / 2) / norm.isf(0.025)
        return value - reach * (value - low), value + reach * (high - value)

    return at_level


def decided(gaps, error):
    """Decide normal differences with this standard error together: which are shown."""
    reach = norm.isf(0.025) * error
    names = [f"B{place}" for place in range(len(gaps))]
    rows = [
        ("A", name, "auroc", "", gap, gap - reach, gap + reach, "")
        for name, gap in zip(names, gaps, strict=True)
    ]
    table = pd.DataFrame(rows, columns=[*KEYS, "estimate", "ci_low", "ci_high", "note"])
    table["n_images"] = 12
    figures = Lookup(table, _widened(table))
    claims = [Claim.of("answer", figures, "A", name, ("auroc", "")) for name in names]
    return [bool(claim.higher) for claim in decide_together(claims, figures)]


def differing_settings(records):
    """Return the settings in which trainings differ: that of each system, by setting."""
    return differing(recipe_table(records)).to_dict("index")
