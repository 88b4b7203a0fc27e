"""Claims of a report, and whether they are false: counted from its tables and from what is known.

Each function takes a result and what is known of the design, and returns named values: True if the
report states something false, or, of a name in `POWER`, if it shows what is true. What it does not
speak of is left out. The part of a name before `` @ `` is a key of `CLAIMS` or of `POWER`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from tools.simulation.designs import Known

Counted = dict[str, bool]
BOXES = ("ap50", "froc_mean", "pointing_accuracy")
"""Figures of boxes without a threshold whose intervals are counted."""
_ALPHA = 0.05
_CHANCE = 0.5


class Claim(NamedTuple):
    """A row of the table: what is counted, and the highest rate in % that is stated, if any."""

    title: str
    limit: float | None = 5.0


CLAIMS = {
    "answer": Claim("the headline calls an equal or a worse system higher"),
    "metric answer": Claim(
        "the headline in another figure (`--metric`) calls an equal system higher"
    ),
    "further": Claim(
        "a claim on a further figure of images calls an equal or a worse system higher"
    ),
    "images": Claim("the headline or any further figure of images of a report does"),
    "places": Claim("AP50, AP or FROC calls an equal detector higher, or constant boxes localise"),
    "any claim": Claim("any claim of a report calls an equal or a worse system higher", None),
    "single p": Claim("the p of a single difference of two equal systems is below 0.05"),
    "chance": Claim("a system that guesses is called better or worse than chance"),
    "interval auroc": Claim("interval of an AUROC misses the true one"),
    "interval difference": Claim("interval of an AUROC difference misses the true one"),
    "interval precision": Claim("interval of an average precision misses the true one"),
    "interval brier": Claim("interval of a Brier score misses the true one"),
    "interval rate": Claim("interval of a figure at the printed threshold misses"),
    "rate differs": Claim("interval of a difference at thresholds of equal systems leaves out 0"),
    "interval group": Claim("interval of a figure in a group of images misses"),
    "scale": Claim("scores of one scale are said to have another one on test images", 1.0),
    "turned": Claim("scores that say nothing are said to be turned round", 1.0),
    "interval boxes": Claim("interval of a figure of boxes misses the true one"),
    "boxes differ": Claim("interval of a difference in boxes of equal detectors leaves out 0"),
    "localises": Claim("a system whose places never depend on the image is said to localise"),
    "less often": Claim("a system that points as often as one place is said to point less often"),
    "interval lesions": Claim("interval of lesions found, poorly boxed or missed misses"),
    "joint": Claim("a joint system that adds nothing is called better than each"),
    "margin": Claim(
        "a system that is worse by exactly the margin is called not worse by more", 2.5
    ),
    "worse": Claim("the same is called worse by more", 2.5),
    "equivalent": Claim("a system that is better by exactly the margin is called equivalent", 2.5),
    "margin figure": Claim("the same by a margin in another figure: called not worse by more", 2.5),
    "worse figure": Claim("the same by a margin in another figure: called worse by more", 2.5),
    "ranks": Claim("the range of ranks of any system leaves out its rank"),
    "finding": Claim("several findings: the first page names a single one that differs"),
    "page of a finding": Claim("several findings: any page calls an equal system higher"),
    "mean": Claim("several findings: equal systems are said to differ in the mean AUROC"),
    "interval mean": Claim("several findings: interval of a mean misses the true one"),
    "folds differ": Claim("one of two equal ways of training is higher over folds"),
    "interval folds": Claim("interval over folds misses the AUROC of the way of training"),
}
"""Statements that are false, and intervals that miss what is true."""
POWER = {
    "power answer": "a better system is called higher in the headline",
    "power localises": "a detector is said to localise",
    "power margin": "an equal system is called not worse by more than the margin",
    "power joint": "a joint system that adds something is called better than each",
    "power scale": "scores of another scale on test images are said to have one",
    "power turned": "validation scores that are turned round are said to be",
}
"""Statements that are true."""


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
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def misses(self, true: float) -> bool:
        return not self.low <= true <= self.high

    @property
    def where(self) -> str:
        """Metric and policy, as the name of a count."""
        return _where(self.metric, self.policy)


def _where(metric: str, policy: str) -> str:
    return ", ".join(filter(None, (metric, policy)))


def _rows(table: pd.DataFrame, first: str = "A", second: str = "") -> Iterator[_Row]:
    """Yield the rows with an interval of a system, or of the difference of two."""
    of = table[(table["first"] == first) & (table["second"] == second) & table["ci_low"].notna()]
    columns = ["first", "second", "metric", "policy", "estimate", "ci_low", "ci_high"]
    return map(_Row._make, of[columns].itertuples(index=False))


def differences(result: Any, known: Known) -> Counted:
    """Count claims that call a system higher which is not better, and low p of equal ones."""
    wrong = {"answer": False, "images": False, "any claim": False}
    single: Counted = {}
    for claim in result.answer.claims:
        pair = claim.first, claim.second
        if not set(pair) <= set(known.auroc):
            continue
        better = known.better(*pair)
        where = _where(claim.metric, claim.policy)
        name = {"answer": "answer", "places": "places"}.get(claim.family, f"further @ {where}")
        is_false = bool(claim.higher) and claim.higher != better
        for counted in (name, "any claim", *([] if name == "places" else ["images"])):
            wrong[counted] = wrong.get(counted, False) or is_false
        if better is None and claim.tested:
            single[f"single p @ {where}, {'-'.join(pair)}"] = claim.p_value < _ALPHA
    return wrong | single


def power(result: Any, known: Known) -> Counted:
    """Count whether the first system, which is better, is called higher than the second."""
    claims = [each for each in result.answer.claims if each.family == "answer"]
    (claim,) = [each for each in claims if {each.first, each.second} == {"A", "B"}]
    return {"power answer": claim.higher == known.better("A", "B")}


def chance(result: Any, known: Known) -> Counted:
    """Count whether the interval of an AUROC shows a system that guesses to be no guess."""
    rows = [row for row in _rows(result.figures) if row.metric == "auroc"]
    return {"chance": rows[0].misses(_CHANCE)} if rows else {}


def rank_intervals(result: Any, known: Known) -> Counted:
    """Count intervals of figures without a threshold that miss the truth, and of the difference."""
    true = {"auroc": known.mean_auroc(), "average_precision": known.average_precision()}
    names = {"auroc": "interval auroc", "average_precision": "interval precision"}
    found = {
        names[row.metric]: row.misses(true[row.metric])
        for row in _rows(result.figures)
        if row.metric in names
    }
    for row in _rows(result.figures, "A", "B"):
        if row.metric == "auroc":
            found["interval difference"] = row.misses(known.auroc["A"] - known.auroc["B"])
    return found


def ranking(result: Any, known: Known) -> Counted:
    """Count a false headline and missing intervals of AUROC, which rest on no resamples."""
    headline = {"answer": differences(result, known)["answer"]}
    found = rank_intervals(result, known)
    return headline | {name: found[name] for name in found if name != "interval precision"}


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
    true = {policy: known.rates(at) for policy, at in thresholds.items() if at is not None}
    return {
        f"interval rate @ {row.where}": row.misses(true[row.policy][row.metric])
        for row in _rows(result.figures)
        if row.policy in true and row.metric in true[row.policy]
    }


def brier_intervals(result: Any, known: Known) -> Counted:
    """Count intervals of the Brier score that miss that of the printed probabilities."""
    decisions = result.decisions
    own = decisions[decisions["system"] == "A"]
    true = known.brier(own["score"], own["probability"])
    found: Counted = {}
    for row in _rows(result.figures):
        if row.metric == "brier":
            found["interval brier"] = row.misses(true)
    return found


def group_intervals(result: Any, known: Known) -> Counted:
    """Count intervals of figures in groups that miss the figures of all images.

    They are those of each group, as groups are drawn without regard to labels and scores.
    """
    groups = result.groups
    rows = groups[(groups["system"] == "A") & groups["ci_low"].notna()]
    found: Counted = {}
    for row in rows[rows["topic"].isin(["sex", "view"])].to_dict("records"):
        if row["metric"] == "auroc":
            value = known.mean_auroc()
        else:
            value = known.rates(result.answer.thresholds["A"][row["policy"]])[row["metric"]]
        missed = not row["ci_low"] <= value <= row["ci_high"]
        found[f"interval group @ {row['metric']}, {row['group']}"] = missed
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
    found: Counted = {}
    for row in _rows(result.figures):
        if row.metric in true:
            value = true[row.metric]
        elif row.metric == "localised_sensitivity":
            value = known.localised(result.answer.thresholds["A"][row.policy])
        else:
            continue
        found[f"interval boxes @ {row.where}"] = row.misses(value)
    return found


def localises(result: Any, known: Known) -> Counted:
    """Count claims that systems localise lesions; false of one whose boxes never change."""
    shown = {
        claim.first
        for claim in result.answer.claims
        if claim.second not in known.auroc and claim.higher == claim.first
    }
    return {"power localises": "A" in shown, "localises": bool(shown & known.image_blind)}


def points_less_often(result: Any, known: Known) -> Counted:
    """Count claims that systems point less often than one place; false of one at the best place."""
    shown = {
        claim.first
        for claim in result.answer.claims
        if claim.family == "places" and claim.higher == claim.second
    }
    return {"less often": bool(shown & known.image_blind)}


def joint(result: Any, known: Known) -> Counted:
    """Count joint systems that are called better than each member."""
    claims = [each for each in result.answer.claims if each.family == "joint"]
    is_said = all(each.higher == result.answer.joint for each in claims) and bool(claims)
    return {"power joint" if known.joint_adds else "joint": is_said}


def margin(decisions: Mapping[str, str], known: Known, figure: str = "") -> Counted:
    """Count false decisions that systems are not worse, or equivalent, by exactly the margin.

    `figure` is the one in which they differ by it, empty for the AUROC.
    """
    of_figure = " figure" if figure else ""
    found: Counted = {}
    for name, decision in decisions.items():
        better = known.better("A", name)
        if better is None:
            found["power margin"] = decision in ("not worse", "equivalent")
        elif better == name:
            found[f"equivalent @ {name}"] = decision == "equivalent"
        else:
            is_shown = decision in ("not worse", "equivalent")
            found[f"margin{of_figure} @ {figure or name}"] = is_shown
    return found


def worse(decisions: Mapping[str, str], known: Known, figure: str = "") -> Counted:
    """Count false decisions that systems are worse by more than exactly the margin."""
    of_figure = " figure" if figure else ""
    return {
        f"worse{of_figure} @ {figure or name}": decision == "worse"
        for name, decision in decisions.items()
        if known.better("A", name) == "A"
    }


def ranks(result: Any, known: Known) -> Counted:
    """Count ranges of ranks that miss a rank.

    Systems that are equally good have all ranks between them.
    """
    true = known.auroc
    found: Counted = {}
    missed = [
        not (
            low <= 1 + sum(other > true[name] for other in true.values())
            and high >= len(true) - sum(other < true[name] for other in true.values())
        )
        for name, (low, high) in result.answer.ranks.items()
    ]
    if missed:
        found["ranks"] = any(missed)
    return found


def findings(result: Any, known: Known) -> Counted:
    """Count claims about equal systems on any of several findings and on their mean."""
    means = result.macro
    of_auroc = means[means["metric"] == "auroc"].set_index(["first", "second"])
    found = {
        "finding": bool((result.tests["p_holm"] < _ALPHA).any()),
        "mean": bool(of_auroc.loc[("A", "B"), "p_holm"] < _ALPHA),
    }
    own = means[(means["first"] == "A") & (means["second"] == "")]
    for row in own.to_dict("records"):
        names = row["findings"].split(",")
        true = known.auroc["A"]
        if row["metric"] == "average_precision":
            true = sum(known.precisions[name] for name in names) / len(names)
        missed = not row["ci_low"] <= true <= row["ci_high"]
        found[f"interval mean @ {row['metric']}"] = missed
    for page in result.results.values():
        for claim in page.answer.claims:
            name = f"page of a finding @ {_where(claim.metric, claim.policy)}"
            found[name] = found.get(name, False) or bool(claim.higher)
    return found


def folds(table: Any, known: Known) -> Counted:
    """Count intervals over folds that show a difference of equals, or miss the true AUROC."""
    table = table[table["metric"] == "auroc"].set_index(["first", "second"])
    gap, own = table.loc[("A", "B")], table.loc[("A", "")]
    return {
        "folds differ": bool(gap["ci_low"] > 0 or gap["ci_high"] < 0),
        "interval folds": not own["ci_low"] <= known.auroc["A"] <= own["ci_high"],
    }
