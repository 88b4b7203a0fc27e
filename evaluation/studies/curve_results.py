"""What a learning-curve study holds, and what it says in words: never more than is shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cxr_compare.evaluation.compare.claims import holm
from cxr_compare.evaluation.metrics.metric import (
    inside_sentence,
    listing,
    number,
    p_equation,
    span_words,
)
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.statistics.bootstrap import Interval
from cxr_compare.evaluation.statistics.learning_curve import Crossing, LearningCurve, crossing
from cxr_compare.evaluation.statistics.ranking import Floats
from cxr_compare.evaluation.studies.study_page import Statement

Kind = Literal["detector", "classifier", "mixed"]
CURVE_METRICS = ("auroc", "average_precision", "localised_sensitivity", "froc_mean")
"""What the arms are compared by; the answer at the head of the page is the first's."""
KINDS: Mapping[Kind, str] = {
    "detector": "detector",
    "classifier": "classifier",
    "mixed": "mixed arm",
}
"""Each arm in a sentence, and the order of colours."""
MAIN: tuple[Kind, Kind] = ("detector", "classifier")
"""The two that the curves are held against each other of."""
_ALPHA = 0.05
_DECIMALS = 6


@dataclass(frozen=True)
class Times:
    """Seconds that annotation takes."""

    label: float  # of one image
    box: float  # of one box, on top of its image's label
    name: str = "as given"  # of the two together, for a button
    sources: tuple[str, ...] = ()  # who measured what, a line each

    @classmethod
    def given(cls, label: float | None, box: float | None) -> Times:
        """Times as given, with the first of `PRESETS` for what is not."""
        usual = PRESETS[0]
        if label is None and box is None:
            return usual
        sources = tuple(
            source if time is None else AS_GIVEN
            for time, source in zip((label, box), usual.sources, strict=True)
        )
        label = usual.label if label is None else label
        return cls(label, usual.box if box is None else box, sources=sources)

    def hours(self, n_images: float, n_boxes: float) -> float:
        """Hours for so many labels and boxes."""
        return (self.label * n_images + self.box * n_boxes) / 3600


_READING = (
    "14.8 s a label: from opening a chest radiograph to its report without AI, mean of 11 "
    "radiologists (Shin et al. 2023). A report is more than a label."
)
AS_GIVEN = "As given to the command."
"""The source of a time that the user gave."""
_NOT_RADIOLOGISTS = "crowd workers on photographs, not radiologists"
PRESETS = (
    Times(
        14.8,
        34.5,
        "reading and drawn boxes",
        (
            _READING,
            "34.5 s a box: 25.5 s to draw and 9.0 s to check it, medians (Su, Deng and "
            f"Fei-Fei 2012, as Papadopoulos et al. 2017 sum them up); {_NOT_RADIOLOGISTS}.",
        ),
    ),
    Times(
        14.8,
        7.0,
        "reading and quick boxes",
        (
            _READING,
            "7.0 s a box: clicks on the four outermost points of an object (Papadopoulos "
            f"et al. 2017, extreme clicking); {_NOT_RADIOLOGISTS}.",
        ),
    ),
    Times(
        1.0,
        42.0,
        "crowd workers",
        (
            "1 s a label: one class of one image, from 20 s for 20 classes (Bearman et al. 2016); "
            f"{_NOT_RADIOLOGISTS}.",
            "42 s a box: drawn, checked, and checked that none is missing (Su, Deng and Fei-Fei "
            f"2012, as Papadopoulos et al. 2016 sum them up); {_NOT_RADIOLOGISTS}.",
        ),
    ),
)
"""Times that others measured; a user's own belong in their place. The first are the default."""


@dataclass(frozen=True)
class Arm:
    """One way to annotate, and what is trained on it; a study has at most one of each kind."""

    kind: Kind
    name: str
    settings: str = ""
    note: str = ""


@dataclass(frozen=True)
class SizeFigure:
    """A figure of one arm at one size: its mean over seeds and folds, and that of each seed."""

    interval: Interval
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class SizePoint:
    """One arm at one size."""

    kind: Kind
    share: float  # of the images for training and validation
    n_images: float  # that it learns from, mean over folds and seeds
    n_boxes: float  # drawn on them
    n_boxed: float  # images whose boxes are complete, or without a lesion
    n_positive: float  # images
    figures: Mapping[str, SizeFigure]  # by metric

    @property
    def n_grown(self) -> float:
        """The images that grow with the share: those with boxes where all have labels."""
        return self.n_boxed if self.kind == "mixed" else self.n_images


@dataclass(frozen=True)
class Difference:
    """First arm minus second, at one size, on the same test patients."""

    metric: str
    share: float
    first: Kind
    second: Kind
    gap: Interval
    p_value: float | None  # of `CurveStudy.compared` Holm's, over all sizes
    n_images: float = math.nan  # of the first arm, from `CurveStudy.compared`

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out and the adjusted p-value is below 0.05."""
        return self.gap.excludes_zero and self.p_value is not None and self.p_value < _ALPHA

    @staticmethod
    def with_all_labels(first: Kind, second: Kind) -> bool:
        """Whether the second arm is that of all labels at each size: the mixed arm has them all."""
        return (first, second) == ("mixed", "classifier")


@dataclass(frozen=True)
class CurveStudy:
    """What the page of `cxr curve` shows."""

    data_set: str  # display name
    target: str  # display name
    folds: Sequence[str]  # splits; each size is trained and evaluated in all
    n_seeds: int  # trainings of each arm, size and fold
    arms: Sequence[Arm]  # in the order to show them
    points: Sequence[SizePoint]  # every arm at every size
    differences: Sequence[Difference] = ()
    # By metric; all arms of one from one call.
    fits: Mapping[str, Mapping[Kind, LearningCurve]] = field(default_factory=dict)
    # By metric and arm, why there is no figure.
    absent: Mapping[tuple[str, Kind], str] = field(default_factory=dict)
    times: Times = PRESETS[0]  # for the charts as they are drawn first
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Those that any arm has, in the order of the page."""
        held = {metric for point in self.points for metric in point.figures}
        return [metric for metric in CURVE_METRICS if metric in held]

    def sizes(self, kind: Kind) -> list[SizePoint]:
        """The points of an arm, the smallest first."""
        return sorted((p for p in self.points if p.kind == kind), key=lambda p: p.share)

    def boxes_per_image(self, kind: Kind) -> float:
        """Boxes drawn for an annotated image of an arm, over all its sizes."""
        images = sum(point.n_images for point in self.sizes(kind))
        return sum(point.n_boxes for point in self.sizes(kind)) / images if images else 0.0

    def fitted(self, metric: str, kind: Kind) -> LearningCurve | None:
        """An arm's curve, as the page holds it: with six decimals; `None` without a line."""
        curve = self.fits.get(metric, {}).get(kind)
        if curve is None or curve.line is None:
            return None
        line = round(curve.line[0], _DECIMALS), round(curve.line[1], _DECIMALS)
        return replace(curve, line=line, draws=curve.draws.round(_DECIMALS))

    def seconds_per_image(self, kind: Kind, times: Times | None) -> float:
        """What an annotated image of an arm costs; 1 without times, to count images."""
        return 1.0 if times is None else times.label + times.box * self.boxes_per_image(kind)

    @property
    def hours_at_hand(self) -> float:
        """The longest time at which both main arms were measured, two digits, rounded down."""
        ends = [
            self.sizes(kind)[-1].n_images * self.seconds_per_image(kind, self.times) / 3600
            for kind in MAIN
            if self.sizes(kind)
        ]
        shortest = min(ends, default=1.0)
        step = 10.0 ** (math.floor(math.log10(shortest)) - 1)
        return round(math.floor(shortest / step + 1e-9) * step, 6)

    def crossing(self, metric: str, times: Times | None = None) -> Crossing | None:
        """Where detector and classifier cross, in images or in seconds; `None` without curves."""
        first, second = (self.fitted(metric, kind) for kind in MAIN)
        if first is None or second is None:
            return None
        costs = [self.seconds_per_image(kind, times) for kind in MAIN]
        return crossing(first, second, (costs[0], costs[1]))

    def pairs(self, metric: str) -> list[tuple[Kind, Kind]]:
        """Which arms are compared, in the order of the differences."""
        of_metric = [row for row in self.differences if row.metric == metric]
        return list(dict.fromkeys((row.first, row.second) for row in of_metric))

    def compared(self, metric: str, first: Kind, second: Kind) -> list[Difference]:
        """The differences of two arms at each size, the smallest first, with Holm's p-values."""
        images = {point.share: point.n_grown for point in self.sizes(first)}
        pair = (metric, first, second)
        rows = [row for row in self.differences if (row.metric, row.first, row.second) == pair]
        rows.sort(key=lambda row: row.share)
        adjusted = holm([row.p_value for row in rows])
        return [
            replace(row, p_value=p, n_images=images[row.share])
            for row, p in zip(rows, adjusted, strict=True)
        ]

    def unclaimed(self, metric: str) -> str:
        """Why nothing is concluded from the two fitted curves; empty if something may be."""
        where = self.crossing(metric)
        curves = [self.fitted(metric, kind) for kind in MAIN]
        usable = all(curve and curve.fits and curve.seeds == "random" for curve in curves)
        return "" if where is None or usable else where.reason

    def never_crossing(self, metric: str) -> str:
        """Why no crossing is shown, whatever the times; empty where that depends on them."""
        where = self.crossing(metric)
        anywhere = where is not None and where.interval == (0.0, math.inf)
        return where.reason if where and anywhere else self.unclaimed(metric)


WORDS = {
    "images": "number of images",
    "time": "annotation time ({label} s a label, {box} s a box)",
    "cross": "By {by}, the fitted {title} curves cross at {at} {unit} ({low} to {high}), where "
    "both were measured: with less the {before} is ahead, with more the {after}.",
    "open": "By {by}, a crossing of the fitted {title} curves is not shown: {why}.",
    "apart": "there is no time at which both were measured",
    "beyond": "its interval reaches beyond the {start} to {end} {unit} at which both were measured",
    "budget": "{hours} hours are {first} images with boxes or {second} labelled images.",
    "far": " No {title} is given there: the {arm} was measured with {start} to {end}.",
    "budget_figures": " The fitted {title} is {first_figure} of the detector and {second_figure} "
    "of the classifier: ",
    "higher": "the {winner} is higher by {gap} ({low} to {high}).",
    "undecided": "a difference is not shown ({gap}, {low} to {high}).",
    "unclaimed": "a difference is not shown: {why}.",
}
"""Sentences that change with the times: for Python, and for the script of the page."""


_ONCE = " This holds for these trained models: each was trained once."


def curve_statements(study: CurveStudy, metric: str) -> Iterator[Statement]:
    """What a study says of one metric: what is missing, differences, crossings."""
    title = title_in_sentence(metric)
    for arm in study.arms:
        if reason := study.absent.get((metric, arm.kind)):
            yield Statement(f"The {KINDS[arm.kind]} has no {title}: {reason}.", about="absent")
    for first, second in study.pairs(metric):
        statement = _difference(study.compared(metric, first, second), title, first, second)
        once = _ONCE if study.n_seeds == 1 and statement.shown else ""
        yield replace(statement, text=statement.text + once)
    yield from _misfits(study, metric)
    for times in (None, study.times):
        if (where := study.crossing(metric, times)) is not None:
            yield _crossing(study, metric, times, where)
    detector, classifier = (study.fitted(metric, kind) for kind in MAIN)
    if detector is not None and classifier is not None:
        yield _budget(study, metric, (detector, classifier))


def title_in_sentence(metric: str) -> str:
    """A metric inside a sentence, as "mean FROC"."""
    title, _, kind = metric_title(metric).partition(", ")
    return inside_sentence(f"{kind} {title}".strip())


def _misfits(study: CurveStudy, metric: str) -> Iterator[Statement]:
    """Arms without a curve, and curves that their points depart from."""
    for kind, curve in study.fits.get(metric, {}).items():
        of = f"of the {KINDS[kind]}"
        if curve.line is None:
            yield Statement(f"No curve {of} is fitted: {curve.reason}.", about="fit")
        elif not curve.fits:
            yield Statement(
                f"The points {of} depart from a power law ({p_equation(curve.lack_of_fit)}): its "
                "curve is drawn, and nothing is concluded from it.",
                about="fit",
            )


def _crossing(study: CurveStudy, metric: str, times: Times | None, where: Crossing) -> Statement:
    """Where the curves of detector and classifier cross, or why that is not shown."""
    about: Literal["images", "time"] = "images"
    scale = 1
    unit = "images"
    by = WORDS["images"]
    if times is not None:
        about = "time"
        scale = 3600
        unit = "hours"
        by = WORDS["time"].format(label=f"{times.label:g}", box=f"{times.box:g}")
    values = {"by": by, "title": title_in_sentence(metric), "unit": unit}
    if where.shown and where.effort is not None and where.interval is not None:
        before, after = MAIN if where.ahead == "second" else reversed(MAIN)
        places = (where.effort, *where.interval)
        at, low, high = (amount_words(place / scale, about) for place in places)
        values |= {"at": at, "low": low, "high": high, "before": before, "after": after}
        return Statement(WORDS["cross"].format(**values), True, about)
    why = study.never_crossing(metric)
    if not why and where.measured is None:
        why = WORDS["apart"]
    elif not why and where.measured:
        start, end = (amount_words(end / scale, about) for end in where.measured)
        why = WORDS["beyond"].format(start=start, end=end, **values)
    return Statement(WORDS["open"].format(why=why, **values), about=about)


def amount_words(value: float, about: Literal["images", "time"]) -> str:
    """Images, or hours with two or three digits."""
    digits = 0 if about == "images" or value >= 10 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f}"


def _budget(
    study: CurveStudy, metric: str, curves: tuple[LearningCurve, LearningCurve]
) -> Statement:
    """What detector and classifier reach with the same time, by their fitted curves."""
    seconds = study.hours_at_hand * 3600
    title = title_in_sentence(metric)
    images = [seconds / study.seconds_per_image(kind, study.times) for kind in MAIN]
    first, second = (amount_words(n, "images") for n in images)
    text = WORDS["budget"].format(hours=f"{study.hours_at_hand:g}", first=first, second=second)
    figures = []
    for kind, curve, n in zip(MAIN, curves, images, strict=True):
        start = float(curve.amounts[0])
        end = float(curve.amounts[-1])
        if not start <= n <= end:
            ends = {"start": amount_words(start, "images"), "end": amount_words(end, "images")}
            text += WORDS["far"].format(title=title, arm=kind, **ends)
            return Statement(text, about="budget")
        figures.append(_figures_at(curve, n))
    gaps = figures[0] - figures[1]
    gap = Interval(float(gaps[0]), *np.quantile(gaps[1:], [0.025, 0.975]).tolist())
    text += WORDS["budget_figures"].format(
        title=title, first_figure=number(figures[0][0]), second_figure=number(figures[1][0])
    )
    if why := study.unclaimed(metric):
        return Statement(text + WORDS["unclaimed"].format(why=why), about="budget")
    if not gap.excludes_zero:
        ends = {"gap": number(gap.estimate), "low": number(gap.low), "high": number(gap.high)}
        return Statement(text + WORDS["undecided"].format(**ends), about="budget")
    low, high = sorted((abs(gap.low), abs(gap.high)))
    ends = {"gap": number(abs(gap.estimate)), "low": number(low), "high": number(high)}
    text += WORDS["higher"].format(winner=MAIN[gap.estimate < 0], **ends)
    return Statement(text, True, "budget")


def _figures_at(curve: LearningCurve, images: float) -> Floats:
    """A curve's figure at a number of images, then that of each draw."""
    lines = np.vstack([np.array(curve.line), curve.draws])
    return np.asarray(1 - np.exp(np.minimum(lines[:, 0] - lines[:, 1] * math.log(images), 0.0)))


def arm_against(first: Kind, second: Kind) -> str:
    """The second arm of a difference in a sentence."""
    return KINDS[second] + (" of all labels" if Difference.with_all_labels(first, second) else "")


def _difference(rows: Sequence[Difference], title: str, first: Kind, second: Kind) -> Statement:
    """Where the one is higher, where the other, and where neither is shown to be."""
    parts: list[str] = []
    unit = "boxed images" if first == "mixed" else "annotated images"
    names = KINDS[first], arm_against(first, second)
    for (winner, loser), sign in ((names, 1), (names[::-1], -1)):
        higher = [row for row in rows if row.shown and row.gap.estimate * sign > 0]
        if higher:
            by = [f"{_gap(row.gap)} with {row.n_images:,.0f}" for row in higher]
            word = f" {unit}" if not parts else ""
            parts.append(
                f"the {title} of the {winner} is higher than that of the {loser} by "
                f"{listing(by)}{word}"
            )
    rest = [f"{row.n_images:,.0f}" for row in rows if not row.shown]
    if parts and rest:
        parts.append(f"with {listing(rest)} a difference is not shown")
    if not parts:
        parts = [
            f"a difference in {title} between the {names[0]} and the {names[1]} is not shown, "
            f"with {listing(rest).replace(' and ', ' or ')} {unit}"
        ]
    text = "; ".join(parts)
    shown = any(row.shown for row in rows)
    return Statement(f"{text[0].upper()}{text[1:]}.", shown, "difference")


def _gap(gap: Interval) -> str:
    """The size of a difference that is shown, without its sign."""
    low, high = sorted((abs(gap.low), abs(gap.high)))
    return f"{number(abs(gap.estimate))} ({span_words(low, high)})"
