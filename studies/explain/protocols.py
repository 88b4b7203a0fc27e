"""Search for the rules by which another program computed the figure that it reports for boxes.

A protocol is a set of rules by which a program evaluates boxes, such as the IoU threshold or the
images that count. The file ``protocols.toml`` lists the rules, their values, and the protocols that
programs are known to use. `explain_figure` tries these protocols, and those that differ from one of
them in one or two rules.
"""

from __future__ import annotations

import re
import tomllib
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import BoxForm
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.evaluation.boxes.average_precision import share_on_crowds
from cxr_compare.evaluation.boxes.best_precision import best_precision
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.boxes.matching import (
    IOU_THRESHOLDS,
    BoxMatches,
    BoxPairs,
    match_pairs,
    pair_boxes,
)
from cxr_compare.evaluation.boxes.other_readings import (
    OtherReading,
    other_readings,
    reread_form,
    swapped_axes,
)
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_RULES: dict[str, dict[str, str]] = _TABLE["rules"]  # by rule: the text that explains each value
KNOWN_PROTOCOLS: dict[str, dict[str, str]] = {rules["name"]: rules for rules in _TABLE["known"]}
"""Protocols that programs are known to use: values of rules, by the name of the protocol.

A rule that a protocol does not name has its first value in ``protocols.toml``.
"""
_FORMS: dict[str, tuple[BoxForm, BoxForm]] = {
    "right": ("xyxy", "xyxy"),
    "widths-as-corners": ("xywh", "xyxy"),
    "corners-as-widths": ("xyxy", "xywh"),
    "centre-as-corner": ("cxcywh", "xywh"),
    "corner-as-centre": ("xywh", "cxcywh"),
}  # form in which boxes are written, and form for which a program takes it
Protocol = namedtuple(
    "Protocol", "area iou match corners floor most images repeats classes crowd form"
)
"""Protocol of an evaluation of boxes: one value for each rule in ``protocols.toml``."""
_RSNA_RULES = ("corners", "floor", "images", "form")  # rules that can be changed for the RSNA score
_IOUS = np.concatenate([np.linspace(0.1, 0.45, 8), IOU_THRESHOLDS])
_MOST_CHANGES = 2  # largest number of rules in which a protocol may differ from a known one
_FLOAT_DIFFERENCE = 1e-4  # largest difference between two programs with the same protocol
_NEAR = 0.15  # arbitrary figures are drawn at most this far from the reported one
_ARBITRARY_FIGURES = 4000
# A protocol with changed rules counts as found if a smaller share of arbitrary figures would be
# explained by as few changes.
_MOST_CHANCE = 0.05
_FAR = 9  # stands for the number of changes of protocols that do not give the figure, to sort last


class _ClassMatches(NamedTuple):
    """Predicted boxes of one class in the order of falling scores, with their matches."""

    matches: BoxMatches
    overlap: Floats  # (boxes,), the largest IoU with a true box
    on_crowd: Floats  # (boxes,), the largest share of the box's area that lies on a crowd
    rank: Integers  # (boxes,), rank in the image, 0 for the most confident


class KnownProtocol(NamedTuple):
    """Known protocol that is nearest to a protocol that was tried.

    A protocol is a set of rules by which a program evaluates boxes. `n_changes` is the number of
    rules in which the two differ; a wrong format of the boxes counts as two.
    """

    n_changes: int
    name: str
    rules: Protocol


class ProtocolEvaluator:
    """Evaluator that computes the average precision of one set of boxes by any protocol.

    A protocol is a set of rules by which a program evaluates boxes, such as the IoU threshold. A
    protocol may also ask for the score of the RSNA challenge 2018 instead of an average precision.
    Boxes are matched once for each combination of rules that affects the matching.

    `boxes` have ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px), ``score`` and, if there
    are several classes, ``finding``. `truth` has the same columns except ``score``; an optional
    column ``crowd`` is True for COCO's crowds: boxes around groups of objects that were not boxed
    singly. `image_ids` are those of all images that are evaluated, each once. `value` maps a
    protocol to the figure by it, in [0, 1], NaN where it is undefined. Raises InputError if there
    is no predicted or no true box on these images.

    Example:
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(image_id="b", score=0.9), truth.assign(score=0.4)])
        >>> evaluator = ProtocolEvaluator(boxes, truth, pd.Index(["a", "b"]))
        >>> round(evaluator.value(evaluator.complete({})), 6)
        0.5
        >>> round(evaluator.value(evaluator.complete({"images": "positive"})), 6)
        1.0
    """

    def __init__(self, boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index) -> None:
        image = image_ids.get_indexer(pd.Index(boxes["image_id"]))
        order = np.lexsort((-boxes["score"].to_numpy(), image))  # sorted once, for every matching
        evaluated = boxes.iloc[order[image[order] >= 0]].reset_index(drop=True)
        self._boxes = evaluated.assign(finding=evaluated.get("finding", "lesion"))
        true = truth[truth["image_id"].isin(image_ids)].reset_index(drop=True)
        is_crowd = pd.Series(true.get("crowd", False), index=true.index).eq(True)  # NaN: none
        self._truth = true.assign(finding=true.get("finding", "lesion"), crowd=is_crowd)
        self._has_crowds = bool(self._truth["crowd"].any())
        if not len(self._boxes) or not len(self._truth):
            raise InputError("explain: the images evaluated have no predicted, or no true box")
        self._image_ids = image_ids
        scores = self._boxes.groupby("image_id")["score"]
        self._top_score = scores.max().reindex(image_ids).to_numpy()
        self._is_positive = image_ids.isin(self._truth["image_id"])
        self._classes = sorted(self._truth["finding"].unique())
        self._options = self._useful_options(most_boxes=scores.size().max())
        self._pairs = cache(self._pair)
        self._class_matches = cache(self._match)
        self.value = cache(self._value)

    def _useful_options(self, most_boxes: int) -> dict[str, list[str]]:
        """Return the values of each rule that can make a difference on these boxes."""
        options = {name: [*texts] for name, texts in _RULES.items()}
        lowest = self._boxes["score"].min()
        options["floor"] = [v for v in options["floor"] if v == "0" or float(v) > lowest]
        options["most"] = [v for v in options["most"] if v == "all" or int(v) < most_boxes]
        one_class = len({*self._classes, *self._boxes["finding"]}) == 1
        options["classes"] = ["mean"] if one_class else [*options["classes"], *self._classes]
        options["crowd"] = options["crowd"] if self._has_crowds else ["ignored"]
        return options

    def complete(self, rules: Mapping[str, str]) -> Protocol:
        """Build a protocol from the values of some rules.

        A rule takes its first value if it is not given, or if its value makes no difference on
        these boxes.

        `rules` are those of ``protocols.toml`` beside this module, such as ``{"images":
        "positive"}``.
        """
        values = []
        for name, options in self._options.items():
            value = rules.get(name)
            values.append(value if value in options else options[0])
        return Protocol(*values)

    def protocols(self) -> dict[Protocol, KnownProtocol]:
        """Return the protocols to try, each with the known protocol that is nearest to it.

        These are the known ones, and those with one or two other rules.
        """
        nearest: dict[Protocol, KnownProtocol] = {}
        for name, known in KNOWN_PROTOCOLS.items():
            rules = self.complete(known)
            nearest.setdefault(rules, KnownProtocol(0, name, rules))
        for n_changes in range(_MOST_CHANGES):
            latest = [item for item in nearest.items() if item[1].n_changes == n_changes]
            for rules, known_one in latest:
                for n, changed in self._changes(rules, n_changes):
                    if changed not in nearest or n < nearest[changed].n_changes:
                        nearest[changed] = known_one._replace(n_changes=n)
        return nearest

    def _changes(self, rules: Protocol, n_changes: int) -> Iterable[tuple[int, Protocol]]:
        """Yield the protocols that differ in one more rule, with their number of changes."""
        for name in _RSNA_RULES if rules.area == "rsna" else _RULES:
            n = n_changes + 1
            if name == "form":  # a wrong format of boxes is rarer than another rule
                n += 1
            if n > _MOST_CHANGES:
                continue
            for value in self._options[name]:
                if value not in ("rsna", "0.4:0.75"):
                    yield n, rules._replace(**{name: value})

    def _pair(
        self, corners: str, form: str, kind: str | None, crowds: tuple[bool, ...]
    ) -> BoxPairs:
        """Pair predicted and true boxes as a program with these rules reads them.

        `kind` is the class whose boxes are paired, or None for all classes as one. `crowds` says
        which true boxes are used: True stands for crowds, False for all other true boxes.
        """

        def read(table: pd.DataFrame, form_name: str) -> pd.DataFrame:
            of_kind = table if kind is None else table[table["finding"] == kind]
            edges = _misread(of_kind[EDGES].to_numpy(np.float64), form_name)
            edges[:, 2:] += corners == "pixels"
            return of_kind.assign(**dict(zip(EDGES, edges.T, strict=True)))

        form_of_truth = form[4:] if form.startswith("all-") else "right"
        truth = read(self._truth[self._truth["crowd"].isin(crowds)], form_of_truth)
        boxes = read(self._boxes, form.removeprefix("all-"))
        return pair_boxes(boxes, truth, self._image_ids, most=None)

    def _match(
        self, match: str, corners: str, crowd: str, form: str, kind: str | None
    ) -> _ClassMatches:
        pairs = self._pairs(corners, form, kind, (False, True) if crowd == "true" else (False,))
        boxes = pairs.boxes
        matches = match_pairs(pairs, _IOUS, best_only=match == "best")
        overlap = np.zeros(len(boxes.score))
        np.maximum.at(overlap, pairs.box, pairs.iou)
        on_crowd = np.zeros(len(boxes.score))
        if crowd == "ignored" and self._has_crowds:
            on_crowd = share_on_crowds(self._pairs(corners, form, kind, (True,)))
        falling = np.argsort(-boxes.score, kind="stable")
        return _ClassMatches(matches, overlap[falling], on_crowd[falling], boxes.rank[falling])

    def _images(self, rules: Protocol) -> npt.NDArray[np.bool_]:
        """Return True for the images that count, shape ``(images,)``."""
        if rules.images == "positive":
            return self._is_positive
        if rules.images == "predicted":
            return np.asarray(self._top_score >= float(rules.floor))
        return np.ones(len(self._image_ids), dtype=bool)

    def _average_precision(self, rules: Protocol, kind: str | None) -> float:
        """Return the average precision of one class, averaged over the IoU thresholds of the rules.

        The result is NaN if the class has no true box on the images that count.
        """
        of_class = self._class_matches(rules.match, rules.corners, rules.crowd, rules.form, kind)
        matches = of_class.matches
        images = self._images(rules)
        n_true = int(matches.n_true[images].sum())
        if not n_true:
            return np.nan
        end = int(np.searchsorted(-matches.score, -float(rules.floor), side="right"))
        counts = images[matches.image[:end]]
        if rules.most != "all":
            counts &= of_class.rank[:end] < int(rules.most)
        low, _, high = rules.iou.partition(":")
        rounded = _IOUS.round(2)
        thresholds = np.flatnonzero((rounded >= float(low)) & (rounded <= float(high or low)))
        areas = []
        for threshold in thresholds.tolist():
            hit = matches.hit[:end, threshold]
            counted = counts
            if rules.repeats == "ignored":
                counted = counted & (hit | (of_class.overlap[:end] < _IOUS[threshold]))
            if self._has_crowds:
                counted = counted & (hit | (of_class.on_crowd[:end] < _IOUS[threshold]))
            ranks = np.cumsum(counted, dtype=np.int64)
            called = np.asarray(ranks[hit & counted], dtype=np.int64)
            areas.append(_area(rules.area, called, n_true, int(counted.sum())))
        return float(np.mean(areas)) if areas else np.nan

    def _value(self, rules: Protocol) -> float:
        """Compute the figure by a protocol; NaN where it is undefined."""
        if rules.area == "rsna":
            pairs = self._pairs(rules.corners, rules.form, None, (False,))
            n_images = len(self._image_ids)
            score = WeightedRsnaScore(pairs, np.arange(n_images), n_images)
            weights = self._images(rules).astype(np.float64)[None]
            return float(score.at(weights, np.array([float(rules.floor)]))[0])
        kinds = {"mean": self._classes, "one": [None]}.get(rules.classes, [rules.classes])
        figures = np.array([self._average_precision(rules, kind) for kind in kinds])
        defined = figures[~np.isnan(figures)]
        return float(defined.mean()) if len(defined) else np.nan


def _misread(corners: Floats, form: str) -> Floats:
    """Return what a program makes of boxes that it takes for another form, shape ``(N, 4)``."""
    if form == "swapped":
        return swapped_axes(corners)
    written, read_as = _FORMS[form]
    return reread_form(corners, written, read_as).copy()


def _area(rule: str, called: Integers, n_true: int, n_boxes: int) -> float:
    """Compute the average precision by the rule ``area`` of ``protocols.toml``.

    `called` holds the ranks, from 1, of the boxes that match, among all `n_boxes` boxes in the
    order of falling scores.
    """
    true = np.arange(1, len(called) + 1)
    last_recall = len(called) / n_true
    points = np.linspace(0, 1, 11 if rule == "11" else 101)
    if rule in ("101", "11"):
        return float(best_precision(called, n_true, points).mean())
    if rule == "all":
        return float(best_precision(called, n_true, true / n_true).sum() / n_true)
    if rule == "steps":
        return float((true / called).sum() / n_true)
    if rule == "raw-trapezoids":  # the curve starts at precision 1 and recall 0
        before = np.divide(true - 1, called - 1, out=np.ones(len(true)), where=called > 1)
        return float((true / called + before).sum() / 2 / n_true)
    height = best_precision(called, n_true, points, beyond=True)
    if rule == "trapezoids-to-1" and 0 < last_recall < 1:
        beyond = points >= last_recall
        height[beyond] = len(called) / n_boxes * (1 - points[beyond]) / (1 - last_recall)
    return float(np.trapezoid(height, points))


class ReportedFigure(NamedTuple):
    """Figure that another program reports for a set of predicted boxes.

    `value` is in [0, 1]; a figure computed here counts as equal up to `tolerance`. `changed` are
    the rules that have another value than for the first figure that the program reports, such as
    ``{"iou": "0.75"}``; empty for the first figure itself.
    """

    value: float
    tolerance: float
    changed: dict[str, str]

    @classmethod
    def from_text(cls, text: str) -> ReportedFigure:
        """Read a reported figure from a text.

        It is the figure, such as ``0.4712``; or that at the IoU threshold 0.75, such as
        ``ap75=0.31``; or that of the boxes with a score of at least 0.3, such as ``score0.3=0.44``.
        The tolerance is half of the last digit, but at least 0.0001. Raises InputError for another
        form, or a figure outside [0, 1].

        Example:
            >>> ReportedFigure.from_text("ap75=0.31")
            ReportedFigure(value=0.31, tolerance=0.005, changed={'iou': '0.75'})
        """
        match = re.fullmatch(
            r"(?:(?P<ap75>ap75)=|score(?P<floor>[0-9.]+)=)?(?P<value>[0-9.]+)", text
        )
        try:
            value = float(match["value"]) if match else np.nan
            floor = match["floor"] if match and match["floor"] else ""
            if floor:
                float(floor)
        except ValueError:
            value = np.nan
        if match is None or not 0 <= value <= 1:
            raise InputError(
                f"--figure {text}: give a figure in [0, 1], such as 0.4712, and further ones of "
                "the same program as ap75=F (at IoU 0.75) or score0.3=F (boxes from score 0.3)"
            )
        digits = max(1, len(match["value"].partition(".")[2]))
        tolerance = max(_FLOAT_DIFFERENCE, 0.5 * 10**-digits)
        changed = {"iou": "0.75"} if match["ap75"] else {"floor": floor} if floor else {}
        return cls(value, tolerance, changed)

    def value_by(self, rules: Protocol, evaluator: ProtocolEvaluator) -> float:
        """Compute this figure on the evaluator's boxes by a protocol (a set of rules).

        `rules` are those of the first figure; `changed` is applied to them. NaN where it is
        undefined.
        """
        if rules.area == "rsna" and "iou" in self.changed:
            return np.nan
        return evaluator.value(rules._replace(**self.changed))


@with_known_keywords
def explain_figure(
    figure: float | str | Sequence[float | str],
    boxes: Any,
    truth: Any,
    image_ids: Iterable[Any] | None = None,
    image_sizes: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Find the protocol by which these boxes give the figure that another program reports.

    A protocol is a set of rules by which a program evaluates boxes. About 2,500 protocols are
    tried: those that programs are known to use, and those that differ from one of them in one or
    two rules. With so many, even an arbitrary figure is often given by some protocol. Therefore the
    share of arbitrary figures that would be given with as few changed rules is computed as well. A
    protocol with changed rules counts as found only if that share is below 5 %.

    Args:
        figure: The reported figure, in [0, 1], as a number or a text; or a list of figures of the
            same program. In a list, the first item is the figure itself. The others are texts:
            ``ap75=0.31`` for a figure of 0.31 at the IoU threshold 0.75, and ``score0.3=0.44`` for
            a figure of 0.44 of the boxes with a score of at least 0.3. A protocol gives a figure if
            the two differ by at most half of the figure's last digit, or by at most 0.0001 if that
            is larger. A text such as ``"0.470"`` keeps its last digit; a number does not.
        boxes: Predicted boxes, as a table with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2``
            (original px), ``score`` (in [0, 1]) and, if there are several classes, ``finding``; or
            as a list of the outputs of a detection library (torchvision, Ultralytics or
            supervision), one for each image.
        truth: True boxes, in one of the same two forms, without scores. An optional column
            ``crowd`` is True for COCO's crowds.
        image_ids: Ids of all images that are evaluated, with and without boxes, each once. None is
            allowed if `boxes` and `truth` are lists that hold one output for each image, in the
            same order.
        image_sizes: Table with ``image_id``, ``width`` and ``height`` (px) of the images, without
            which some mistakes in the boxes cannot be recognised; None if no size is known.

    Returns:
        A dictionary with these keys:

            - ``best``: the best protocol: of those that give all figures, the one with the fewest
              changes to a known protocol, or the nearest one if none gives them. It is a dictionary
              with ``value`` (the first figure by this protocol), ``protocol`` (name of the known
              protocol), ``changes`` (list of the changed rules in words) and ``rules`` (all rules
              in words);
            - ``next_best``: a list of up to four further protocols, in the same form;
            - ``within``: True if the best protocol gives every figure within its tolerance;
            - ``found``: True if the best protocol counts as found;
            - ``chance``: share of arbitrary figures, at most 0.15 from the reported ones, that some
              protocol with at most as many changes as the best one would give;
            - ``figure``, ``further`` and ``tolerance``: the first figure, the further figures, and
              the tolerance of the first figure;
            - ``n_tried``: number of protocols that were tried;
            - ``n_within``: numbers of protocols that give the figures with 0, 1 and 2 changes;
            - ``cxr``: name and value of the figure that cxr-compare itself computes;
            - ``main_rule``: the rule of the best protocol that, applied alone, brings the figure of
              cxr-compare nearest to that of the best protocol. It is None if no rule differs, or if
              the best protocol is the RSNA score;
            - ``other_readings``: other ways to read the boxes, such as y before x, by which far
              more of them match a true box; a list of dictionaries, see `OtherReading`;
            - ``text``: the answer in words.

    Raises:
        InputError: There is no predicted box or no true box on the images, a box or a score is
            invalid, or a figure cannot be read.

    Source:
        Everingham et al. 2010 and 2015 (Pascal VOC); Lin et al. 2014 (COCO); the source code of
        Ultralytics, scikit-learn and the RSNA challenge, see ``protocols.toml``.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.studies.explain.protocols import explain_figure
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [9], "y2": [9]})
        >>> boxes = pd.concat([truth.assign(image_id="b", score=0.9), truth.assign(score=0.4)])
        >>> best = explain_figure(1.0, boxes, truth, ["a", "b"])["best"]
        >>> round(best["value"], 6), best["changes"]
        (1.0, ['only images with a true box'])
    """
    given = [figure] if isinstance(figure, float | int | str) else list(figure)
    reported = [ReportedFigure.from_text(_as_text(one)) for one in given]
    if not reported or reported[0].changed or not all(one.changed for one in reported[1:]):
        raise InputError(
            "--figure: give the figure itself first, such as 0.4712, and then ap75=F or score0.3=F"
        )
    boxes, truth, ids = box_arguments(boxes, truth, image_ids, one_class=False, crowds=True)
    evaluator = ProtocolEvaluator(boxes, truth, ids)
    tried = evaluator.protocols()
    values = np.array([[one.value_by(rules, evaluator) for one in reported] for rules in tried])
    changes = np.array([known.n_changes for known in tried.values()])
    gives = _gives(values, np.array([[one.value for one in reported]]), reported)[0]
    n_changes = dict(zip(tried, np.where(gives, changes, _FAR).tolist(), strict=True))
    distance = dict(zip(tried, abs(values[:, 0] - reported[0].value).round(9), strict=True))
    defined = [rules for rules in tried if not np.isnan(distance[rules])]
    ranked = sorted(defined, key=lambda rules: (n_changes[rules], distance[rules]))[:5]
    described = [_description(rules, tried[rules], evaluator.value(rules)) for rules in ranked]
    fewest = n_changes[ranked[0]]
    within = fewest < _FAR
    few_changes = changes <= (fewest if within else _MOST_CHANGES)
    chance = _chance(values[few_changes], reported)
    answer = {
        "figure": reported[0].value,
        "further": given[1:],
        "tolerance": reported[0].tolerance,
        "within": within,
        "found": within and (fewest == 0 or chance < _MOST_CHANCE),
        "chance": chance,
        "n_tried": len(tried),
        "n_within": [int((gives & (changes == n)).sum()) for n in range(_MOST_CHANGES + 1)],
        "best": described[0],
        "next_best": described[1:],
        **_figure_of_cxr(evaluator, ranked[0]),
        "other_readings": [each._asdict() for each in _readings(boxes, truth, ids, image_sizes)],
    }
    return {**answer, "text": _answer_text(answer)}


def _readings(
    boxes: pd.DataFrame, truth: pd.DataFrame, ids: pd.Index, sizes: pd.DataFrame | None
) -> list[OtherReading]:
    """Try the known mistakes in the boxes, with the true boxes that are no crowds."""
    images = pd.DataFrame({"image_id": ids})
    if sizes is not None:
        images = images.merge(sizes[["image_id", "width", "height"]], how="left")
    is_crowd = pd.Series(truth.get("crowd", False), index=truth.index).eq(True)
    return other_readings(boxes, truth[~is_crowd], images)


def _answer_text(answer: Mapping[str, Any]) -> str:
    """Say which protocol would give a figure, and how sure that is."""
    best, further = answer["best"], answer["further"]
    percent = "less than 1 %" if answer["chance"] < 0.005 else f"{100 * answer['chance']:.0f} %"
    reported = ", ".join(map(str, [answer["figure"], *further]))
    odds = f"of arbitrary figures within 0.15, {percent} would be given with as few other rules."
    if answer["found"]:
        text = f"{_named(best)}; reported: {reported}."
        if best["changes"]:
            text += f" {odds[0].upper()}{odds[1:]}"
    elif answer["within"]:
        more = "a further figure" if further else "a second figure"
        text = (
            f"{reported} does not tell the protocol: {odds} Give {more} of the same program, its "
            "AP at IoU 0.75 (--figure ap75=F) or this figure of boxes from another score (--figure "
            f"score0.3=F). One protocol that fits: {_named(best)}."
        )
    else:
        text = (
            f"None of {answer['n_tried']:,} protocols would give {reported}. The nearest: "
            f"{_named(best)}."
        )
    text += f" Its rules: {'; '.join(best['rules'].values())}."
    n_known, n_one, n_two = answer["n_within"]
    if n_known + n_one + n_two > 1:
        second = answer["next_best"][0]
        text += (
            f" Other protocols fit, too: {n_known} known, {n_one} with one other rule, {n_two} "
            f"with two. The next: {_named(second)}. To tell the two apart, ask which it was:"
        )
        asked = []
        for name, rule in best["rules"].items():
            other = second["rules"].get(name)
            if other != rule:
                asked.append(rule if other is None else f"{rule}, or {other}")
        text += f" {'; '.join(asked)}." if asked else ""
    own = answer["cxr"]
    text += f" {own['metric'].upper()} of cxr is {own['value']:.4f}"
    rule = answer["main_rule"]
    if rule and rule["value"] != own["value"]:
        text += (
            f'; with "{rule["rule"]}" in the place of "{rule["instead_of"]}" alone it is '
            f"{rule['value']:.4f}"
        )
    text += "."
    for reading in answer["other_readings"][:1]:
        text += f" {OtherReading(**reading).text()}"
    return text


def _named(protocol: Mapping[str, Any]) -> str:
    rules = ""
    if protocol["changes"]:
        rules = f" with other rules ({'; '.join(protocol['changes'])})"
    return f"{protocol['protocol']}{rules} would give {protocol['value']:.4f}"


def _as_text(figure: float | str) -> str:
    return figure if isinstance(figure, str) else np.format_float_positional(float(figure))


def _gives(
    values: Floats, figures: Floats, reported: Sequence[ReportedFigure]
) -> npt.NDArray[np.bool_]:
    """Return True where a protocol gives all figures of a row, shape ``(rows, protocols)``.

    `values` are figures by each protocol, ``(protocols, F)``. `figures` are those that a program
    might report, ``(rows, F)``. The tolerances are those of the F `reported` figures.
    """
    gives = np.ones((len(figures), len(values)), dtype=bool)
    for column, one in enumerate(reported):
        distance = abs(values[:, column] - figures[:, [column]])
        gives &= distance.round(9) <= one.tolerance + 1e-9
    return gives


def _chance(values: Floats, reported: Sequence[ReportedFigure]) -> float:
    """Return the share of arbitrary figures that at least one protocol gives.

    The arbitrary figures are drawn at random from a range around the reported ones. `values` holds
    the figures by each protocol, shape ``(protocols, F)``.
    """
    rng = np.random.default_rng(0)
    low = np.array([max(0.0, one.value - _NEAR) for one in reported])
    high = np.array([min(1.0, one.value + _NEAR) for one in reported])
    arbitrary = rng.uniform(low, high, (_ARBITRARY_FIGURES, len(reported)))
    given = [_gives(values, rows, reported).any(axis=1) for rows in np.array_split(arbitrary, 20)]
    return float(np.concatenate(given).mean())


def _description(rules: Protocol, known: KnownProtocol, value: float) -> dict[str, Any]:
    """Describe a protocol in words, as `explain_figure` returns it."""
    texts = {
        name: _RULES[name].get(choice, f"the class {choice} alone")
        for name, choice in rules._asdict().items()
    }
    used = ("area", "iou", *_RSNA_RULES) if rules.area == "rsna" else _RULES
    return {
        "value": value,
        "protocol": known.name,
        "changes": [
            text
            for name, text in texts.items()
            if getattr(rules, name) != getattr(known.rules, name)
        ],
        "rules": {name: texts[name] for name in used},
    }


def _figure_of_cxr(evaluator: ProtocolEvaluator, best: Protocol) -> dict[str, Any]:
    """Return cxr-compare's own figure, and the one rule that moves it nearest to the best protocol.

    The figure is AP if the best protocol averages over IoU 0.5 to 0.95, and AP50 otherwise.
    """
    iou = best.iou if best.iou == "0.5:0.95" else "0.5"
    own = evaluator.complete({"iou": iou, "floor": "0.001", "most": "100"})
    changes = []
    for name, value, own_value in zip(_RULES, best, own, strict=True):
        if value == own_value or best.area == "rsna":  # no single rule leads to the RSNA score
            continue
        changes.append(
            {
                "rule": _RULES[name].get(value, value),
                "instead_of": _RULES[name].get(own_value, own_value),
                "value": evaluator.value(own._replace(**{name: value})),
            }
        )
    target = evaluator.value(best)
    changes.sort(key=lambda change: abs(change["value"] - target))
    return {
        "cxr": {"metric": "ap50" if iou == "0.5" else "ap", "value": evaluator.value(own)},
        "main_rule": changes[0] if changes else None,
    }
