"""Claims of a report, counted from the result of `cxr_compare.compare` alone.

Each function in `CLAIMS` takes a report and the truth, and returns named values: 1 if the report is
wrong (or, of a name that begins with "power", if it shows what is true), 0 if not, and NaN if it
says nothing. The part of a name before `` @ `` is a key of `QUESTIONS`, the rows of the table.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import rankdata

import cxr_compare
from tools.simulation.designs import Design, Drawn
from tools.simulation.draw import Floats, Sample

Found = dict[str, float]
Result = cxr_compare.Result


class Question(NamedTuple):
    """A row of the table: what the share is of, and what the report promises, in %, if anything."""

    title: str
    promised: str = ""


RATES = (
    "recall",
    "specificity",
    "precision",
    "npv",
    "f1",
    "accuracy",
    "balanced_accuracy",
    "mcc",
)
_BOXES = (
    "ap50",
    "ap50_decided",
    "froc_mean",
    "wafroc",
    "rsna_score",
    "vinbigdata_score",
    "pointing_accuracy",
    "localised_sensitivity",
)
_OWN = "own interval leaves out 0"
QUESTIONS = {
    "headline": Question("headline calls an equal system higher in AUROC", "at most 5"),
    "sentence": Question("any sentence calls an equal system higher", "at most 10"),
    "mark": Question("any corrected p of an equal pair is below 0.05, in AUROC", "at most 5"),
    "any mark": Question("any corrected p of an equal pair is below 0.05", "at most 10"),
    "dot": Question(f"AUROC of any equal pair: {_OWN}", "none"),
    "dot average_precision": Question(f"AP of any equal pair: {_OWN}", "none"),
    "differs rate": Question(f"a figure at a threshold of two equal systems: {_OWN}", "at most 5"),
    "misses auroc": Question("interval of an AUROC misses the true one", "5"),
    "misses difference": Question("interval of an AUROC difference misses the true one", "5"),
    "misses rate": Question("interval of a figure at the printed threshold misses", "5"),
    "no interval": Question("a figure at a threshold has no interval"),
    "misses calibration_slope": Question("interval of the calibration slope misses", "5"),
    "better than chance": Question("a system that guesses is not said to guess", "at most 5"),
    "power chance": Question("a system that does not guess is shown to be better than chance"),
    "power headline": Question("a truly better system is called higher in the headline"),
    "power mark": Question("a truly better system: corrected p below 0.05"),
    "power dot": Question(f"a truly better system: {_OWN}"),
    "power rate": Question(f"a figure at a threshold of a truly better system: {_OWN}"),
    "wrong direction": Question("the worse system is called higher", "at most 2.5"),
    "misses predictive": Question("interval of PPV or NPV at a prevalence misses", "5"),
    "group": Question("a group that does not differ is said to differ", "at most 5"),
    "shortcut": Question("facts that predict nothing: interval on one side of 0.5", "2.5"),
    "misses shortcut": Question("interval of the AUROC of a shortcut misses", "5"),
    "joint": Question("a joint system that adds nothing is called better than each", "at most 5"),
    "power joint": Question("a joint system that adds something is called better than each"),
    "joint boxes": Question("boxes of a joint system that adds nothing are called better", "5"),
    "power joint boxes": Question("boxes of a joint system that adds something: FROC is better"),
    "differs boxes": Question(f"a figure of boxes of two equal detectors: {_OWN}", "at most 5"),
    "misses boxes": Question("interval of a figure of boxes misses the true one", "5"),
    "finding of boxes": Question("one detector is called higher than itself, suppressed", "0"),
    "localises": Question("constant boxes are said to localise", "at most 5"),
}


def sample_auroc(sample: Sample) -> float:
    """Return the AUROC of the first row of scores of a sample."""
    positive = sample.y_true
    n, n_positive = len(positive), int(positive.sum())
    above = rankdata(sample.scores[0])[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * (n - n_positive)))


class Truth:
    """True values of a design, computed from many drawn images when they are first needed."""

    def __init__(self, design: Design) -> None:
        self.design = design

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(f"{self.design.name} {purpose}".encode())])

    @property
    def all_equal(self) -> bool:
        """True if no system is better than another."""
        return self.design.detector is not None or len(set(self.design.auroc)) == 1

    def better(self, first: str, second: str) -> str | None:
        """Return the better one of two systems, None if they are equal."""
        true = dict(zip(self.design.systems, self.design.auroc, strict=True))
        if self.all_equal or true[first] == true[second]:
            return None
        return max(first, second, key=lambda name: true[name])

    @cached_property
    def auroc(self) -> float:
        """Mean AUROC of the first system over many test sets, with pairs within a patient."""
        rng = self._rng("auroc")
        design = self.design
        n_sets = max(300, min(2000, 400_000 // design.patients))
        samples = (
            design.sample(rng, design.patients, design.skills(rng)[:1]) for _ in range(n_sets)
        )
        return float(np.mean([sample_auroc(each) for each in samples]))

    @cached_property
    def _population(self) -> tuple[Floats, Floats, float]:
        """Rising scores of positive and of negative images, and the share of positive images."""
        rng = self._rng("rates")
        design = self.design
        skills = [[design.skills(rng)[0][0]]]
        many = design.sample(rng, 100_000, skills)
        # Small sets are drawn until both classes have two patients, which changes their share.
        sets = [design.sample(rng, design.patients, skills).y_true for _ in range(1500)]
        share = sum(each.sum() for each in sets) / sum(map(len, sets))
        scores = many.scores[0]
        return np.sort(scores[many.y_true]), np.sort(scores[~many.y_true]), float(share)

    def rates(self, threshold: float) -> dict[str, float]:
        """Return the true figures of the first system at a threshold."""
        positive, negative, share = self._population
        recall = 1 - float(np.searchsorted(positive, threshold)) / len(positive)
        specificity = float(np.searchsorted(negative, threshold)) / len(negative)
        tp, fn = share * recall, share * (1 - recall)
        tn, fp = (1 - share) * specificity, (1 - share) * (1 - specificity)
        called = tp + fp
        spread = np.sqrt(called * (1 - called) * share * (1 - share))
        return {
            "recall": recall,
            "specificity": specificity,
            "precision": tp / called if called else np.nan,
            "npv": tn / (tn + fn) if called < 1 else np.nan,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "accuracy": tp + tn,
            "balanced_accuracy": (recall + specificity) / 2,
            "mcc": float((tp * tn - fp * fn) / spread) if spread else np.nan,
        }

    @cached_property
    def boxes(self) -> dict[str, float]:
        """Figures of boxes on large test sets, as means over what validation sets choose."""
        rng = self._rng("boxes")
        seen: list[dict[str, float]] = []
        for _ in range(8):
            drawn = self.design.drawn(rng, n_test=800)
            figures = _cells(run_compare(drawn, {}, 100).figures)
            seen.append({metric: figures[("A", metric, "")].estimate for metric in _TRUE_BOXES})
        return {metric: float(np.mean([each[metric] for each in seen])) for metric in _TRUE_BOXES}


_TRUE_BOXES = ("ap50", "ap50_decided", "froc_mean", "vinbigdata_score", "pointing_accuracy")


class _Cell(NamedTuple):
    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def misses(self, true: float) -> float:
        """Return 1 if the interval misses a value, NaN without an interval."""
        if np.isnan(self.low) or np.isnan(true):
            return np.nan
        return float(not self.low <= true <= self.high)


def _cells(table: pd.DataFrame) -> dict[tuple[str, str, str], _Cell]:
    """Return the figures by image of a table, by system or pair, metric and policy."""
    rows = table[(table["unit"] == "image") & (table["subgroup"] == "all")]
    columns = ["first", "second", "metric", "policy", "estimate", "ci_low", "ci_high"]
    numbers = rows[columns].astype(dict.fromkeys(columns[4:], float))
    return {
        (" - ".join(filter(None, (first, second))), metric, policy): _Cell(*values)
        for first, second, metric, policy, *values in numbers.itertuples(index=False)
    }


def run_compare(drawn: Drawn, options: Mapping[str, Any], replicates: int) -> Result:
    """Compare drawn systems by the public function."""
    return cxr_compare.compare(
        drawn.systems,
        truth=drawn.truth,
        boxes=drawn.boxes,
        replicates=replicates,
        **{**options, **drawn.options},
    )


def headline(result: Result, truth: Truth) -> Found:
    """Count a headline that calls a system higher which is not."""
    wrong = any(
        claim["higher"] is not None
        and claim["higher"] != truth.better(claim["first"], claim["second"])
        for claim in result.answer.claims
    )
    return {"headline": float(wrong)}


def _calls_higher(finding: str) -> bool:
    return "was higher for" in finding or ", higher for" in finding


def sentences(result: Result, truth: Truth) -> Found:
    """Count a report of equal systems with any sentence that calls one of them higher."""
    assert truth.all_equal
    called = headline(result, truth)["headline"] == 1 or any(map(_calls_higher, result.findings))
    return {"sentence": float(called)}


def _marked(result: Result, metric: str | None = None) -> pd.DataFrame:
    """Return the pairs with a corrected p-value below 0.05."""
    tests = result.tests
    rows = tests[(tests["unit"] == "image") & (tests["p_holm"] < 0.05)]
    return rows if metric is None else rows[rows["metric"] == metric]


def _pairs(result: Result) -> list[tuple[str, str]]:
    return list(itertools.combinations(result.systems, 2))


def marks(result: Result, truth: Truth) -> Found:
    """Count tables in which any pair of equal systems is marked, corrected or not."""
    gaps = _cells(result.figures)

    def any_dot(metric: str) -> float:
        keys = [(f"{a} - {b}", metric, "") for a, b in _pairs(result)]
        return float(any(gaps[key].excludes_zero for key in keys if key in gaps))

    return {
        "mark": float(len(_marked(result, "auroc")) > 0),
        "any mark": float(len(_marked(result)) > 0),
        "dot": any_dot("auroc"),
        "dot average_precision": any_dot("average_precision"),
    }


def auroc_intervals(result: Result, truth: Truth) -> Found:
    """Count intervals of the AUROC, and of its difference, that miss the true value."""
    own = _cells(result.figures)[("A", "auroc", "")]
    gap = _cells(result.figures)[("A - B", "auroc", "")]
    return {"misses auroc": own.misses(truth.auroc), "misses difference": gap.misses(0.0)}


def rate_differences(result: Result, truth: Truth) -> Found:
    """Count differences of equal systems at chosen thresholds whose own interval leaves out 0."""
    gaps = _cells(result.figures)
    return {
        f"differs rate @ {metric}, {policy}": float(gap.excludes_zero)
        for (system, metric, policy), gap in gaps.items()
        if system == "A - B" and policy and metric in RATES
    }


def rate_intervals(result: Result, truth: Truth) -> Found:
    """Count intervals of single figures that miss the true figure at the printed threshold."""
    figures = _cells(result.figures)
    found: Found = {}
    for policy, threshold in result.answer.thresholds["A"].items():
        true = None if threshold is None else truth.rates(threshold)
        for metric in RATES if true is not None else ():
            figure = figures[("A", metric, policy)]
            found[f"misses rate @ {metric}, {policy}"] = figure.misses(true[metric])
            found[f"no interval @ {metric}, {policy}"] = float(np.isnan(figure.low))
    return found


def calibration(result: Result, truth: Truth) -> Found:
    """Count intervals that miss the slope of the true log-odds on those of the probabilities."""
    rows = result.decisions
    rows = rows[rows["probability"].between(1e-9, 1 - 1e-9)].sort_values("score")
    ends = rows.iloc[[0, -1]]
    fitted = np.diff(logit(ends["probability"])) / np.diff(logit(ends["score"]))
    # A binormal score is log-odds over the skill.
    true = float(truth.design.skills(np.random.default_rng(0))[0][0] / fitted[0])
    slope = _cells(result.figures)[("A", "calibration_slope", "")]
    return {"misses calibration_slope": slope.misses(true)}


def chance(result: Result, truth: Truth) -> Found:
    """Count whether the report says that its only system was not shown to beat guessing."""
    text = " ".join([result.headline, *result.cautions])
    shown = float("not shown to be better than chance" not in " ".join(text.split()))
    return {"better than chance" if truth.design.auroc[0] == 0.5 else "power chance": shown}


def power(result: Result, truth: Truth) -> Found:
    """Count how often truly better systems are called higher, as shares of their pairs."""
    pairs = {pair: truth.better(*pair) for pair in _pairs(result)}
    named = {(c["first"], c["second"]): c["higher"] for c in result.answer.claims}
    marked = {(row["first"], row["second"]) for row in _marked(result, "auroc").to_dict("records")}
    gaps = _cells(result.figures)
    true = {pair: name for pair, name in pairs.items() if name is not None}
    right = [named.get(pair) == name for pair, name in true.items()]
    wrong = [named.get(pair) not in (None, name) for pair, name in true.items()]
    dots = {pair: gaps[(f"{pair[0]} - {pair[1]}", "auroc", "")].excludes_zero for pair in true}
    found = {
        "power headline": np.mean(right),
        "wrong direction": float(any(wrong)),
        "power mark": np.mean([pair in marked for pair in true]),
        "power dot": np.mean(list(dots.values())),
    }
    equal = [pair for pair, name in pairs.items() if name is None]
    if equal:
        found["headline"] = float(any(named.get(pair) is not None for pair in equal))
        found["mark"] = float(any(pair in marked for pair in equal))
    for metric in ("recall", "specificity", "f1", "accuracy"):
        gap = gaps.get(("A - B", metric, "max_f1"))
        if gap is not None:
            found[f"power rate @ {metric}"] = float(gap.excludes_zero and gap.estimate > 0)
    return {name: float(value) for name, value in found.items()}


def predictive_values(result: Result, truth: Truth) -> Found:
    """Count intervals of PPV and NPV at a prevalence that miss the true values."""
    assert truth.design.at_use is not None
    prevalence, _ = truth.design.at_use
    rows = result.groups
    found: Found = {}
    for row in rows[rows["topic"] == "prevalence"].to_dict("records"):
        threshold = result.answer.thresholds["A"][row["policy"]]
        rates = truth.rates(threshold)
        recall, specificity = rates["recall"], rates["specificity"]
        hits, alarms = prevalence * recall, (1 - prevalence) * (1 - specificity)
        clear, missed = (1 - prevalence) * specificity, prevalence * (1 - recall)
        true = {"ppv": hits / (hits + alarms), "npv": clear / (clear + missed)}[row["metric"]]
        cell = _Cell(row["estimate"], row["ci_low"], row["ci_high"])
        found[f"misses predictive @ {row['metric']}"] = cell.misses(true)
    return found


def groups(result: Result, truth: Truth) -> Found:
    """Count groups that are said to differ from the rest."""
    return {"group": float(len(_different_groups(result)) > 0)}


def groups_by_auroc(result: Result, truth: Truth) -> Found:
    """Count groups that are said to differ in AUROC, where other figures truly differ."""
    metrics = _different_groups(result)["metric"]
    return {"group @ auroc": float((metrics == "auroc").any())}


def _different_groups(result: Result) -> pd.DataFrame:
    rows = result.groups
    rows = rows[rows["group"].astype(str).str.endswith(" - rest") & (rows["p_holm"] < 0.05)]
    return rows[(rows["ci_low"] > 0) | (rows["ci_high"] < 0)]


def shortcut(result: Result, truth: Truth) -> Found:
    """Count shortcuts by facts that predict nothing."""
    rows = result.groups
    rows = rows[(rows["topic"] == "shortcut") & rows["ci_low"].notna()]
    above, below = rows["ci_low"] > 0.5, rows["ci_high"] < 0.5
    return {
        f"shortcut @ {side}, {group}": float(is_off)
        for side, flags in (("above", above), ("below", below))
        for group, is_off in zip(rows["group"], flags, strict=True)
    }


def shortcut_interval(result: Result, truth: Truth) -> Found:
    """Count intervals of the AUROC by view that miss 0.7."""
    rows = result.groups
    (row,) = rows[(rows["topic"] == "shortcut") & (rows["group"] == "view")].to_dict("records")
    return {"misses shortcut": _Cell(row["estimate"], row["ci_low"], row["ci_high"]).misses(0.7)}


def _joint_shown(result: Result) -> float:
    return float(f"{result.systems[-1]} was shown to have a higher" in result.headline)


def joint(result: Result, truth: Truth) -> Found:
    """Count joint systems that are called better than each member although they add nothing."""
    return {"joint": _joint_shown(result)}


def joint_power(result: Result, truth: Truth) -> Found:
    """Count joint systems that are called better than each member, as they are."""
    return {"power joint": _joint_shown(result)}


def _joint_boxes(result: Result) -> Found:
    gaps = _cells(result.figures)
    member, whole = result.systems[0], result.systems[-1]
    shown = {}
    for metric in ("ap50_decided", "froc_mean", "rsna_score"):
        gap = gaps.get((f"{member} - {whole}", metric, ""))
        if gap is not None:
            shown[metric] = float(gap.high < 0)
    return shown


def joint_boxes(result: Result, truth: Truth) -> Found:
    """Count gated boxes that are better by their own interval although nothing was added."""
    return {f"joint boxes @ {metric}": shown for metric, shown in _joint_boxes(result).items()}


def joint_boxes_power(result: Result, truth: Truth) -> Found:
    """Count gated boxes that are better by FROC."""
    return {"power joint boxes": _joint_boxes(result)["froc_mean"]}


def box_differences(result: Result, truth: Truth) -> Found:
    """Count differences of figures of boxes of equal detectors."""
    gaps = _cells(result.figures)
    return {
        f"differs boxes @ {metric}" + (f", {policy}" if policy else ""): float(gap.excludes_zero)
        for (system, metric, policy), gap in gaps.items()
        if system == "A - B" and metric in _BOXES and not np.isnan(gap.low)
    }


def box_intervals(result: Result, truth: Truth) -> Found:
    """Count intervals of figures of boxes that miss the true ones."""
    figures = _cells(result.figures)
    return {
        f"misses boxes @ {metric}": figures[("A", metric, "")].misses(true)
        for metric, true in truth.boxes.items()
    }


def box_findings(result: Result, truth: Truth) -> Found:
    """Count sentences that call a detector higher than the same detector after suppression."""
    return {"finding of boxes": float(any(map(_calls_higher, result.findings)))}


def localises(result: Result, truth: Truth) -> Found:
    """Count sentences that say that the second system, whose boxes never change, localises."""
    texts = [result.headline, *result.findings]
    said = [re.search(r"\bB\b[^.;]*\b(?<!not )localises\b", text) for text in texts]
    return {"localises": float(any(each is not None for each in said))}


CLAIMS: dict[str, Callable[[Result, Truth], Found]] = {
    function.__name__: function
    for function in (
        headline,
        sentences,
        marks,
        auroc_intervals,
        rate_differences,
        rate_intervals,
        calibration,
        chance,
        power,
        predictive_values,
        groups,
        groups_by_auroc,
        shortcut,
        shortcut_interval,
        joint,
        joint_power,
        joint_boxes,
        joint_boxes_power,
        box_differences,
        box_intervals,
        box_findings,
        localises,
    )
}


def measure(design: Design) -> Callable[[np.random.Generator], Found]:
    """Return a function that draws one data set of a design, and counts the report's claims."""
    truth = Truth(design)

    def one(rng: np.random.Generator) -> Found:
        result = run_compare(drawn := design.drawn(rng), design.options, design.replicates)
        found: Found = {}
        for name in design.claims:
            found |= CLAIMS[name](result, truth)
        del drawn  # with the folder of its files
        return found

    return one
