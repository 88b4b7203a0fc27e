"""Claims of a report, and whether they are false: counted from its result and from what is known.

Each function takes a result and what is known of the design, and returns named values: True if the
report states something false, or, of a claim without a limit, if it shows what is true. What it
does not speak of is left out. The part of a name before `` @ `` is a key of `CLAIMS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from tools.simulation.designs import Known

Counted = dict[str, bool]
BOXES = ("ap50", "froc_mean", "pointing_accuracy")
"""Figures of boxes whose intervals are counted."""


class Claim(NamedTuple):
    """A row of the table: what is counted, and the highest rate in % that is stated, if any."""

    title: str
    limit: float | None = 5.0


_OWN = "own interval leaves out 0"
CLAIMS = {
    "answer": Claim("headline calls an equal or a worse system higher"),
    "further": Claim("a claim on another figure calls an equal or a worse system higher"),
    "any claim": Claim("headline or another claim calls an equal or a worse system higher", 10.0),
    "corrected p": Claim("any corrected p of an equal pair is below 0.05, in AUROC"),
    "chance": Claim("a system that guesses is not said to guess"),
    "interval auroc": Claim("interval of an AUROC misses the true one"),
    "interval difference": Claim("interval of an AUROC difference misses the true one"),
    "rate differs": Claim(f"a figure at a threshold of two equal systems: {_OWN}"),
    "interval rate": Claim("interval of a figure at the printed threshold misses"),
    "interval predictive": Claim("interval of PPV or NPV at a known prevalence misses"),
    "boxes differ": Claim(f"a figure of boxes of two equal detectors: {_OWN}"),
    "interval boxes": Claim("interval of a figure of boxes misses the true one"),
    "localises": Claim("constant boxes are said to localise"),
    "shortcut": Claim("facts that predict nothing are said to predict the label"),
    "interval shortcut": Claim("interval of the AUROC of a shortcut misses"),
    "joint": Claim("a joint system that adds nothing is called better than each"),
    "finding": Claim("any of 14 findings: equal systems are said to differ"),
    "page of a finding": Claim("the page of any of 14 findings calls an equal system higher"),
    "mean": Claim("equal systems are said to differ in the mean AUROC"),
    "interval mean": Claim("interval of the mean AUROC over findings misses the true one"),
    "folds differ": Claim("one of two equal ways of training is higher over folds"),
    "interval folds": Claim("interval over folds misses the AUROC of the way of training"),
    "power answer": Claim("a truly better system is called higher in the headline", None),
    "power chance": Claim("a system that does not guess is shown to be better than chance", None),
    "power localises": Claim("a detector is said to localise", None),
    "power shortcut": Claim("a fact that predicts the label is said to predict it", None),
    "power joint": Claim("a joint system that adds something is called better than each", None),
}


class _Row(NamedTuple):
    """Figure of a system or difference of two, with its interval."""

    first: str
    second: str
    metric: str
    policy: str
    estimate: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        return not (pd.isna(self.low) or pd.isna(self.high))

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def misses(self, true: float) -> bool:
        return not self.low <= true <= self.high

    @property
    def where(self) -> str:
        """Metric and policy, as the name of a count."""
        return ", ".join(filter(None, (self.metric, self.policy)))


def _rows(table: pd.DataFrame, first: str = "A", second: str = "") -> Iterator[_Row]:
    """Yield the rows with an interval of a system, or of the difference of two."""
    of = table[(table["first"] == first) & (table["second"] == second)]
    columns = ["first", "second", "metric", "policy", "estimate", "ci_low", "ci_high"]
    return filter(lambda row: row.bounded, map(_Row._make, of[columns].itertuples(index=False)))


def differences(result: Any, known: Known) -> Counted:
    """Count claims and corrected p-values that call a system higher which is not better."""
    wrong = {"answer": False, "findings": False}
    for claim in result.answer.claims:
        pair = claim["first"], claim["second"]
        if claim["family"] in wrong and set(pair) <= set(known.auroc) and claim["higher"]:
            wrong[claim["family"]] |= claim["higher"] != known.better(*pair)
    figures = result.figures
    shown = figures[(figures["metric"] == "auroc") & (figures["p_holm"] < 0.05)]
    pairs = zip(shown["first"], shown["second"], strict=True)
    equal = [pair for pair in pairs if set(pair) <= set(known.auroc) and not known.better(*pair)]
    return {
        "answer": wrong["answer"],
        "further": wrong["findings"],
        "any claim": any(wrong.values()),
        "corrected p": bool(equal),
    }


def power(result: Any, known: Known) -> Counted:
    """Count whether the first system, which is better, is called higher than the second."""
    claims = [each for each in result.answer.claims if each["family"] == "answer"]
    (claim,) = [each for each in claims if {each["first"], each["second"]} == {"A", "B"}]
    return {"power answer": claim["higher"] == known.better("A", "B")}


def chance(result: Any, known: Known) -> Counted:
    """Count whether the report says that its only system was not shown to beat guessing."""
    said = [text for text in result.cautions if text.endswith("better than chance (0.5).")]
    name = "chance" if known.auroc["A"] == 0.5 else "power chance"
    return {name: not said}


def auroc_intervals(result: Any, known: Known) -> Counted:
    """Count intervals of the AUROC, and of the difference of equal systems, that miss the truth."""
    found: Counted = {}
    for row in (*_rows(result.figures), *_rows(result.figures, "A", "B")):
        if row.metric == "auroc":
            name, true = ("difference", 0.0) if row.second else ("auroc", known.mean_auroc())
            found[f"interval {name}"] = row.misses(true)
    return found


def rate_differences(result: Any, known: Known) -> Counted:
    """Count differences of equal systems at thresholds whose own interval leaves out 0."""
    rates = known.rates(0.5)
    return {
        f"rate differs @ {row.where}": row.excludes_zero
        for row in _rows(result.figures, "A", "B")
        if row.metric in rates
    }


def rate_intervals(result: Any, known: Known) -> Counted:
    """Count intervals of figures that miss the true figure at the printed threshold."""
    thresholds = result.answer.thresholds["A"]
    true = {policy: known.rates(threshold) for policy, threshold in thresholds.items()}
    return {
        f"interval rate @ {row.where}": row.misses(true[row.policy][row.metric])
        for row in _rows(result.figures)
        if row.policy in true and row.metric in true[row.policy]
    }


def predictive_values(result: Any, known: Known) -> Counted:
    """Count intervals of PPV and NPV at a known prevalence that miss the true values."""
    groups = result.groups
    rows = groups[(groups["topic"] == "prevalence") & (groups["system"] == "A")]
    found: Counted = {}
    for row in rows.dropna(subset="ci_low").to_dict("records"):
        threshold = result.answer.thresholds["A"][row["policy"]]
        true = known.rates(threshold, float(row["group"]))
        value = true["precision" if row["metric"] == "ppv" else "npv"]
        missed = not row["ci_low"] <= value <= row["ci_high"]
        found[f"interval predictive @ {row['metric']}"] = missed
    return found


def box_differences(result: Any, known: Known) -> Counted:
    """Count differences of figures of boxes of equal detectors whose own interval leaves out 0."""
    return {
        f"boxes differ @ {row.where}": row.excludes_zero
        for row in _rows(result.figures, "A", "B")
        if row.metric in (*BOXES, "localised_sensitivity")
    }


def box_intervals(result: Any, known: Known) -> Counted:
    """Count intervals of figures of boxes that miss the true ones."""
    true = known.box_figures()
    return {
        f"interval boxes @ {row.metric}": row.misses(true[row.metric])
        for row in _rows(result.figures)
        if row.metric in true
    }


def localises(result: Any, known: Known) -> Counted:
    """Count claims that systems localise lesions; false of one whose boxes never change."""
    shown = {
        claim["first"]
        for claim in result.answer.claims
        if claim["second"] not in known.auroc and claim["higher"] == claim["first"]
    }
    found = {"power localises": "A" in shown}
    if known.image_blind:
        found["localises"] = bool(shown & known.image_blind)
    return found


def shortcuts(result: Any, known: Known) -> Counted:
    """Count facts that are said to predict the label, and intervals of a known AUROC."""
    groups = result.groups
    rows = groups[(groups["topic"] == "shortcut") & groups["ci_low"].notna()]
    if known.of_view is None:
        found = {
            f"shortcut @ {group}": low > 0.5
            for group, low in zip(rows["group"], rows["ci_low"], strict=True)
        }
        said = any(text.startswith("The label can be predicted") for text in result.cautions)
        return {"shortcut @ caution": said, **found}
    ends = rows.loc[rows["group"] == "view", ["ci_low", "ci_high"]].to_numpy(np.float64)
    low, high = ends[0]
    return {"interval shortcut": not low <= known.of_view <= high, "power shortcut": low > 0.5}


def joint(result: Any, known: Known) -> Counted:
    """Count joint systems that are called better than each member."""
    claims = [each for each in result.answer.claims if each["family"] == "joint"]
    shown = all(each["higher"] == result.answer.joint[0] for each in claims) and bool(claims)
    return {"power joint" if known.joint_adds else "joint": shown}


def findings(result: Any, known: Known) -> Counted:
    """Count claims about equal systems on any of several findings and on their mean."""
    means = result.macro[result.macro["metric"] == "auroc"]
    (gap,) = means[means["second"] != ""].to_dict("records")
    own = means[(means["first"] == "A") & (means["second"] == "")].to_dict("records")[0]
    pages = [each.answer.claims for each in result.results.values()]
    return {
        "finding": bool((result.tests["p_holm"] < 0.05).any()),
        "page of a finding": any(
            claim["family"] == "answer" and claim["higher"] for page in pages for claim in page
        ),
        "mean": gap["p_holm"] < 0.05,
        "interval mean": not own["ci_low"] <= known.auroc["A"] <= own["ci_high"],
    }


def folds(table: Any, known: Known) -> Counted:
    """Count intervals over folds that show a difference of equals, or miss the true AUROC."""
    table = table[table["metric"] == "auroc"].set_index(["first", "second"])
    gap, own = table.loc[("A", "B")], table.loc[("A", "")]
    return {
        "folds differ": bool(gap["ci_low"] > 0 or gap["ci_high"] < 0),
        "interval folds": not own["ci_low"] <= known.auroc["A"] <= own["ci_high"],
    }
