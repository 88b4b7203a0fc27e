"""Search for the protocol by which boxes have the figure that another program reports.

Programs differ in few rules, which protocols.toml lists. `explain` tries the protocols that
programs are known to use, and those that differ from one of them in one or two rules.
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
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.average_precision import best_precision
from cxr_compare.evaluation.boxes.box_checks import check_arguments
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.boxes.matching import (
    IOU_THRESHOLDS,
    BoxMatches,
    BoxPairs,
    match_pairs,
    pair_boxes,
)
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_RULES: dict[str, dict[str, str]] = _TABLE["rules"]  # text of each value of each rule
KNOWN_PROTOCOLS: dict[str, dict[str, str]] = {rules["name"]: rules for rules in _TABLE["known"]}
"""Rules of the protocols that programs are known to use, by name; others take their first value."""
_FORMS = {name: np.array(rows) for name, rows in _TABLE["forms"].items()}
Protocol = namedtuple(
    "Protocol", "area iou match corners floor most images repeats classes crowd form"
)
"""The value of each rule in protocols.toml."""
_RSNA_RULES = ("corners", "floor", "images", "form")  # rules in which its score may differ
_IOUS = np.concatenate([np.linspace(0.1, 0.45, 8), IOU_THRESHOLDS])
_MOST_CHANGES = 2  # rules in which a protocol may differ from a known one
_FLOAT_DIFFERENCE = 1e-4  # largest difference of two programs with the same protocol
_NEAR = 0.15  # distance within which arbitrary figures are drawn
_ARBITRARY_FIGURES = 4000
# Share of arbitrary figures below which a protocol with changed rules counts as found.
_MOST_CHANCE = 0.05
_FAR = 9  # changes of a protocol that does not give the figure, for sorting


class _ClassMatches(NamedTuple):
    """Predicted boxes of one class in falling score with their matches; arrays ``(boxes,)``."""

    matches: BoxMatches
    overlap: Floats  # the largest IoU with a true box
    on_crowd: Floats  # the largest share of the box that lies on a crowd
    rank: Integers  # within the image, 0 for the most confident


class KnownProtocol(NamedTuple):
    """The known protocol from which a protocol differs in the fewest rules.

    Attributes:
        n_changes: Number of rules in which the two differ; a wrong format of boxes counts twice.
        name: Name of the known protocol.
        rules: Its rules.
    """

    n_changes: int
    name: str
    rules: Protocol


class ProtocolEvaluator:
    """Figures of the same boxes by any protocol; each matching is computed once.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score`` and, for several classes, ``finding``.
        truth: True boxes, the same without scores; ``crowd`` marks COCO's crowds.
        image_ids: Every image evaluated, unique.

    Raises:
        InputError: The images have no predicted, or no true box.

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
        order = np.lexsort((-boxes["score"].to_numpy(), image))  # so that no matching sorts again
        evaluated = boxes.iloc[order[image[order] >= 0]].reset_index(drop=True)
        self._boxes = evaluated.assign(finding=evaluated.get("finding", "lesion"))
        true = truth[truth["image_id"].isin(image_ids)].reset_index(drop=True)
        is_crowd = pd.Series(true.get("crowd", False), index=true.index).eq(True)  # empty: none
        self._truth = true.assign(finding=true.get("finding", "lesion"), crowd=is_crowd)
        self._has_crowds = bool(self._truth["crowd"].any())
        if not len(self._boxes) or not len(self._truth):
            raise InputError("--explain: the images evaluated have no predicted, or no true box")
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
        """Return the values of each rule, without those that make no difference on these boxes."""
        options = {name: [*texts] for name, texts in _RULES.items()}
        lowest = self._boxes["score"].min()
        options["floor"] = [v for v in options["floor"] if v == "0" or float(v) > lowest]
        options["most"] = [v for v in options["most"] if v == "all" or int(v) < most_boxes]
        one_class = len({*self._classes, *self._boxes["finding"]}) == 1
        options["classes"] = ["mean"] if one_class else [*options["classes"], *self._classes]
        options["crowd"] = options["crowd"] if self._has_crowds else ["ignored"]
        return options

    def complete(self, rules: Mapping[str, str]) -> Protocol:
        """Complete a protocol with the first value of each rule that is left out or useless here.

        Args:
            rules: Values by the name of the rule, as in protocols.toml.
        """
        values = []
        for name, options in self._options.items():
            value = rules.get(name)
            values.append(value if value in options else options[0])
        return Protocol(*values)

    def protocols(self) -> dict[Protocol, KnownProtocol]:
        """List the protocols to try, each with the known one that needs the fewest changes."""
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
            if name == "form":  # a wrong format is rarer than the rest
                n += 1
            if n > _MOST_CHANGES:
                continue
            for value in self._options[name]:
                if value not in ("rsna", "0.4:0.75"):
                    yield n, rules._replace(**{name: value})

    def _pair(
        self, corners: str, form: str, kind: str | None, crowds: tuple[bool, ...]
    ) -> BoxPairs:
        """Pair predicted with true boxes (crowds, others or both) as a program reads them."""

        def read(table: pd.DataFrame, form_name: str) -> pd.DataFrame:
            of_kind = table if kind is None else table[table["finding"] == kind]
            edges = of_kind[EDGES].to_numpy(np.float64) @ _FORMS[form_name].T
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
            on = self._pairs(corners, form, kind, (True,))
            area = _areas(on.boxes.corners[on.box])
            both_areas = area + _areas(on.truth.corners[on.true])
            np.maximum.at(on_crowd, on.box, on.iou / (1 + on.iou) * both_areas / area)
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
        """Return the mean over IoU thresholds of one class; NaN without a true box."""
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
        """Compute the figure by a protocol; NaN where there is none."""
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


def _areas(corners: Floats) -> Floats:
    return np.asarray(np.prod(corners[:, 2:] - corners[:, :2], axis=1))


def _area(rule: str, called: Integers, n_true: int, n_boxes: int) -> float:
    """Compute average precision from the ranks of the hits (from 1) among the boxes."""
    true = np.arange(1, len(called) + 1)
    last_recall = len(called) / n_true
    points = np.linspace(0, 1, 11 if rule == "11" else 101)
    if rule in ("101", "11"):
        return float(best_precision(called, n_true, points).mean())
    if rule == "all":
        return float(best_precision(called, n_true, true / n_true).sum() / n_true)
    if rule == "steps":
        return float((true / called).sum() / n_true)
    if rule == "raw-trapezoids":  # from precision 1 at recall 0
        before = np.divide(true - 1, called - 1, out=np.ones(len(true)), where=called > 1)
        return float((true / called + before).sum() / 2 / n_true)
    height = best_precision(called, n_true, points, beyond=True)
    if rule == "trapezoids-to-1" and 0 < last_recall < 1:
        beyond = points >= last_recall
        height[beyond] = len(called) / n_boxes * (1 - points[beyond]) / (1 - last_recall)
    return float(np.trapezoid(height, points))


class ReportedFigure(NamedTuple):
    """A figure that another program reports for the boxes.

    Attributes:
        value: The figure, in [0, 1].
        tolerance: Largest distance of a protocol's figure that is taken as equal.
        changed: Rules in which it differs from the first figure of the same program.
    """

    value: float
    tolerance: float
    changed: dict[str, str]

    @classmethod
    def from_text(cls, text: str) -> ReportedFigure:
        """Read ``0.4712``, ``ap75=0.31`` (at IoU 0.75) or ``score0.3=0.44`` (boxes from score 0.3).

        Raises:
            InputError: The text has none of these forms, or the figure lies outside [0, 1].

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
                f"--explain {text}: give a figure in [0, 1], such as 0.4712, and further ones of "
                "the same program as ap75=F (at IoU 0.75) or score0.3=F (boxes from score 0.3)"
            )
        digits = max(1, len(match["value"].partition(".")[2]))
        tolerance = max(_FLOAT_DIFFERENCE, 0.5 * 10**-digits)
        changed = {"iou": "0.75"} if match["ap75"] else {"floor": floor} if floor else {}
        return cls(value, tolerance, changed)

    def value_by(self, rules: Protocol, evaluator: ProtocolEvaluator) -> float:
        """Compute this figure by a protocol of the first one; NaN where there is none."""
        if rules.area == "rsna" and "iou" in self.changed:
            return np.nan
        return evaluator.value(rules._replace(**self.changed))


def explain(
    figure: float | str | Sequence[float | str],
    boxes: Any,
    truth: Any,
    image_ids: Iterable[Any] | None = None,
) -> dict[str, Any]:
    """Find the protocol by which these boxes have the figure that another program reports.

    About 2,500 protocols are tried, so an arbitrary figure is often met by one of them. The share
    of arbitrary figures that as few changed rules would meet is computed, too: a protocol with
    changed rules counts as found only where that share is below 5 %.

    Args:
        figure: The figure, in [0, 1], or several of the same program: after the first one, the
            texts ``ap75=F`` (at IoU 0.75) and ``score0.3=F`` (boxes from score 0.3). As a text
            ``"0.470"`` keeps its last digit. A protocol gives a figure that it meets within half
            of its last digit, and within 0.0001 at least.
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score`` and, for several classes, ``finding``; or outputs of a detection library, as
            `cxr_compare.boxes_table` takes them.
        truth: True boxes, the same without scores; ``crowd`` marks COCO's crowds.
        image_ids: Every image evaluated, unique; any sequence. Left out: boxes and truth are lists
            with an output for each image, in the same order.

    Returns:
        A dict with these keys:

        - ``best``: the protocol with the fewest changes to a known one that gives all figures, or
          the nearest: ``value`` (of the first figure), ``protocol`` (name of the known one),
          ``changes`` and ``rules`` in words;
        - ``next_best``: up to four further protocols, the same;
        - ``within``: True if the best gives every figure within its tolerance;
        - ``found``: True if the best counts as found;
        - ``chance``: share of arbitrary figures within 0.15 that would be given with as many
          changes as the best, or fewer;
        - ``figure``, ``further`` and ``tolerance``: the first figure, the others, and the tolerance
          of the first;
        - ``n_tried`` and ``n_within``: protocols tried, and those that give the figures with 0, 1
          and 2 changes;
        - ``cxr``: the figure of this program, and ``main_rule``, the one rule that moves it nearest
          to the best protocol;
        - ``text``: the answer in words.

    Raises:
        InputError: The images have no predicted, or no true box, or a value is no box, score or
            figure.

    Source:
        Everingham et al. 2010 and 2015; Lin et al. 2014; the sources of Ultralytics, scikit-learn
        and the RSNA challenge, see protocols.toml.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare import metrics
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [9], "y2": [9]})
        >>> boxes = pd.concat([truth.assign(image_id="b", score=0.9), truth.assign(score=0.4)])
        >>> best = metrics.explain_figure(1.0, boxes, truth, ["a", "b"])["best"]
        >>> round(best["value"], 6), best["changes"]
        (1.0, ['only images with a true box'])
    """
    given = [figure] if isinstance(figure, float | int | str) else list(figure)
    reported = [ReportedFigure.from_text(_as_text(one)) for one in given]
    if not reported or reported[0].changed or not all(one.changed for one in reported[1:]):
        raise InputError(
            "--explain: give the figure itself first, such as 0.4712, and then ap75=F or score0.3=F"
        )
    boxes, truth, ids = box_arguments(boxes, truth, image_ids, one_class=False)
    ids = check_arguments(boxes, truth, ids)
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
    }
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - plain text
        undefined=StrictUndefined,
    )
    return {**answer, "text": templates.get_template("protocols.txt.jinja").render(answer)}


def _as_text(figure: float | str) -> str:
    return figure if isinstance(figure, str) else np.format_float_positional(float(figure))


def _gives(
    values: Floats, figures: Floats, reported: Sequence[ReportedFigure]
) -> npt.NDArray[np.bool_]:
    """Return True where a protocol gives all figures, shape ``(rows of figures, protocols)``.

    Args:
        values: Figures by each protocol, shape ``(protocols, F)``.
        figures: Figures that a program might report, shape ``(rows, F)``.
        reported: The reported figures, whose tolerances count.
    """
    gives = np.ones((len(figures), len(values)), dtype=bool)
    for column, one in enumerate(reported):
        distance = abs(values[:, column] - figures[:, [column]])
        gives &= distance.round(9) <= one.tolerance + 1e-9
    return gives


def _chance(values: Floats, reported: Sequence[ReportedFigure]) -> float:
    """Return the share of arbitrary figures near the reported ones that some protocol gives."""
    rng = np.random.default_rng(0)
    low = np.array([max(0.0, one.value - _NEAR) for one in reported])
    high = np.array([min(1.0, one.value + _NEAR) for one in reported])
    arbitrary = rng.uniform(low, high, (_ARBITRARY_FIGURES, len(reported)))
    given = [_gives(values, rows, reported).any(axis=1) for rows in np.array_split(arbitrary, 20)]
    return float(np.concatenate(given).mean())


def _description(rules: Protocol, known: KnownProtocol, value: float) -> dict[str, Any]:
    """Describe a protocol in words."""
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
    """Return the AP50 or AP of cxr, and the one rule that moves it nearest to the best protocol."""
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
