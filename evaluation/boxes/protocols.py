"""By which protocol boxes have the figure that another program reports.

Programs differ in few rules, which protocols.toml lists. `explain` tries the protocols that
programs are known to use, and those that differ from one of them in one or two rules.
"""

from __future__ import annotations

import tomllib
from collections import namedtuple
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
_RULES: dict[str, dict[str, str]] = _TABLE["rules"]  # what each value of each rule means
_FORMS = {name: np.array(rows) for name, rows in _TABLE["forms"].items()}
_Protocol = namedtuple(  # the value of each rule
    "_Protocol", "area iou match corners floor most images repeats classes crowd form"
)
_OF_RSNA = ("corners", "floor", "images", "form")  # rules in which its score may differ
_IOUS = np.concatenate([np.linspace(0.1, 0.45, 8), IOU_THRESHOLDS])
_MOST_CHANGES = 2  # rules in which a protocol may differ from a known one


class _Matched(NamedTuple):
    """Predicted boxes of one class in falling score, and what they hit; arrays ``(boxes,)``."""

    matches: BoxMatches
    overlap: Floats  # the largest IoU with a true box
    on_crowd: Floats  # the largest share of the box that lies on a crowd
    rank: Integers  # within the image, 0 the most confident


class _BoxEvaluator:
    """Figures of the same boxes by any protocol; each matching is made once."""

    def __init__(self, boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index) -> None:
        at = image_ids.get_indexer(pd.Index(boxes["image_id"]))
        order = np.lexsort((-boxes["score"].to_numpy(), at))  # so that no matching sorts again
        true = truth[truth["image_id"].isin(image_ids)].reset_index(drop=True)
        crowd = pd.Series(true.get("crowd", False), index=true.index).eq(True)  # empty: none
        self._truth = true.assign(finding=true.get("finding", "lesion"), crowd=crowd)
        found = boxes.iloc[order[at[order] >= 0]].reset_index(drop=True)
        self._boxes = found.assign(finding=found.get("finding", "lesion"))
        self._has_crowds = bool(self._truth["crowd"].any())
        if not len(self._boxes) or not len(self._truth):
            raise InputError("--explain: the images evaluated have no predicted, or no true box")
        self._image_ids, scores = image_ids, self._boxes.groupby("image_id")["score"]
        self._top = scores.max().reindex(image_ids).to_numpy()
        self._positive = image_ids.isin(self._truth["image_id"])
        self._classes = sorted(self._truth["finding"].unique())
        self._options = self._useful_options(scores.size().max())
        self._pairs, self._matched = cache(self._pair), cache(self._match)
        self.value = cache(self._value)

    def _useful_options(self, fullest: int) -> dict[str, list[str]]:
        """Values of each rule, without those that make no difference on these boxes."""
        options = {name: [*words] for name, words in _RULES.items()}
        lowest = self._boxes["score"].min()
        options["floor"] = [v for v in options["floor"] if v == "0" or float(v) > lowest]
        options["most"] = [v for v in options["most"] if v == "all" or int(v) < fullest]
        one_class = len({*self._classes, *self._boxes["finding"]}) == 1
        options["classes"] = ["mean"] if one_class else [*options["classes"], *self._classes]
        options["crowd"] = options["crowd"] if self._has_crowds else ["ignored"]
        return options

    def plain(self, given: dict[str, str]) -> _Protocol:
        """A protocol with the first of each rule's values where none or a useless one is given."""
        chosen = ((given.get(name), values) for name, values in self._options.items())
        return _Protocol(*(value if value in values else values[0] for value, values in chosen))

    def protocols(self) -> dict[_Protocol, tuple[int, str, _Protocol]]:
        """Each by its fewest changes: how many, to which known one, by name and rules."""
        ways: dict[_Protocol, tuple[int, str, _Protocol]] = {}
        for known in _TABLE["known"]:
            rules = self.plain(known)
            ways.setdefault(rules, (0, known["name"], rules))
        for n_changes in range(_MOST_CHANGES):
            for rules, way in [item for item in ways.items() if item[1][0] == n_changes]:
                for name in _OF_RSNA if rules.area == "rsna" else _RULES:
                    n = n_changes + 1 + (name == "form")  # a wrong format is rarer than the rest
                    for value in self._options[name] if n <= _MOST_CHANGES else ():
                        changed = rules._replace(**{name: value})
                        if {value} - {"rsna", "0.4:0.75"} and n < ways.get(changed, (9,))[0]:
                            ways[changed] = (n, *way[1:])
        return ways

    def _pair(
        self, corners: str, form: str, kind: str | None, crowds: tuple[bool, ...]
    ) -> BoxPairs:
        """Predicted boxes and true ones, crowds or others or both, as a program reads them."""

        def read(table: pd.DataFrame, taken_for: str) -> pd.DataFrame:
            of_kind = table if kind is None else table[table["finding"] == kind]
            edges = of_kind[EDGES].to_numpy(np.float64) @ _FORMS[taken_for].T
            edges[:, 2:] += corners == "pixels"
            return of_kind.assign(**dict(zip(EDGES, edges.T, strict=True)))

        of_truth = form[4:] if form.startswith("all-") else "right"
        truth = read(self._truth[self._truth["crowd"].isin(crowds)], of_truth)
        boxes = read(self._boxes, form.removeprefix("all-"))
        return pair_boxes(boxes, truth, self._image_ids, most=None)

    def _match(self, match: str, corners: str, crowd: str, form: str, kind: str | None) -> _Matched:
        pairs = self._pairs(corners, form, kind, (False, True) if crowd == "true" else (False,))
        boxes, matches = pairs.boxes, match_pairs(pairs, _IOUS, best_only=match == "best")
        overlap, on_crowd = np.zeros(len(boxes.score)), np.zeros(len(boxes.score))
        np.maximum.at(overlap, pairs.box, pairs.iou)
        if crowd == "ignored" and self._has_crowds:
            on = self._pairs(corners, form, kind, (True,))
            both = (on.boxes.corners[on.box], on.truth.corners[on.true])
            sizes = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in both]
            np.maximum.at(on_crowd, on.box, on.iou / (1 + on.iou) * sum(sizes) / sizes[0])
        falling = np.argsort(-boxes.score, kind="stable")
        return _Matched(matches, overlap[falling], on_crowd[falling], boxes.rank[falling])

    def _images(self, rules: _Protocol) -> np.ndarray:
        """Which images count, bool."""
        some = {"positive": self._positive, "predicted": self._top >= float(rules.floor)}
        return some.get(rules.images, np.ones(len(self._image_ids), dtype=bool))

    def _average_precision(self, rules: _Protocol, kind: str | None) -> float:
        """Mean over IoU of one class; NaN without a true box."""
        matched = self._matched(rules.match, rules.corners, rules.crowd, rules.form, kind)
        images, areas = self._images(rules), []
        matches = matched.matches
        n_true = int(matches.n_true[images].sum())
        end = int(np.searchsorted(-matches.score, -float(rules.floor), side="right"))
        counts = images[matches.image[:end]]
        if rules.most != "all":
            counts &= matched.rank[:end] < int(rules.most)
        low, high = (float(iou) for iou in (rules.iou.split(":") * 2)[:2])
        ious = np.flatnonzero((low <= _IOUS.round(2)) & (_IOUS.round(2) <= high))
        for at in ious.tolist() if n_true else ():
            hit, kept = matches.hit[:end, at], counts
            if rules.repeats == "ignored":
                kept = kept & (hit | (matched.overlap[:end] < _IOUS[at]))
            if self._has_crowds:
                kept = kept & (hit | (matched.on_crowd[:end] < _IOUS[at]))
            called = np.cumsum(kept)[hit & kept]
            areas.append(_area(rules.area, called, n_true, int(kept.sum())))
        return float(np.mean(areas)) if areas else np.nan

    def _value(self, rules: _Protocol) -> float:
        """The figure by a protocol; NaN where there is none."""
        if rules.area == "rsna":
            pairs = self._pairs(rules.corners, rules.form, None, (False,))
            score = WeightedRsnaScore(pairs, np.arange(len(self._top)), len(self._top))
            images, cut = self._images(rules).astype(np.float64), np.array([float(rules.floor)])
            return float(score.at(images[None], cut)[0])
        kinds = {"mean": self._classes, "one": [None]}.get(rules.classes, [rules.classes])
        figures = np.array([self._average_precision(rules, kind) for kind in kinds])
        defined = figures[~np.isnan(figures)]
        return float(defined.mean()) if len(defined) else np.nan


def _area(rule: str, called: Integers, n_true: int, n_boxes: int) -> float:
    """Average precision of hits at these places (from 1) among boxes in falling score."""
    true, last = np.arange(1, len(called) + 1), len(called) / n_true
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
    if rule == "trapezoids-to-1" and 0 < last < 1:
        beyond = points >= last
        height[beyond] = len(called) / n_boxes * (1 - points[beyond]) / (1 - last)
    return float(np.trapezoid(height, points))


def explain(
    figure: float, boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None
) -> dict[str, Any]:
    """Find the protocol by which these boxes have the figure that another program reports.

    Args:
        figure: In [0, 1]. It is met within half of its last digit, and within 0.001 at least.
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score`` and, of several classes, ``finding``; or outputs of a detection library, as
            `cxr_compare.boxes_table` takes them.
        truth: True boxes, the same without scores; ``crowd`` marks COCO's crowds.
        image_ids: Every image evaluated, unique; any sequence. Left out: boxes and truth are lists
            with an output for each image, in the same order.

    Returns:
        ``found``, the protocol with the fewest changes to a known one that gives the figure, or
        the nearest: ``value``, ``protocol``, ``changes`` and ``rules`` in words; whether it is
        ``within`` the ``tolerance``; how many give it by 0, 1 and 2 changes (``n_within``); the
        ``next`` best; ``own``, cxr's figure, and the ``main_rule`` of the difference; ``text``.

    Raises:
        InputError: The images have no predicted, or no true box, or a value is no box or score.

    Example:
        >>> from cxr_compare import metrics
        >>> true = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [9], "y2": [9]})
        >>> marks = pd.concat([true.assign(image_id="b", score=0.9), true.assign(score=0.4)])
        >>> found = metrics.explain_figure(1.0, marks, true, ["a", "b"])["found"]
        >>> round(found["value"], 6), found["changes"]
        (1.0, ['only images with a true box'])
    """
    digits = len(f"{figure!r}".partition(".")[2])
    tolerance = max(0.001, 0.5 * 10**-digits) + 1e-9
    boxes, truth, ids = box_arguments(boxes, truth, image_ids, one_class=False)
    ids = check_arguments(boxes, truth, ids)
    evaluator = _BoxEvaluator(boxes, truth, ids)
    ways = evaluator.protocols()
    away = {rules: round(abs(evaluator.value(rules) - figure), 9) for rules in ways}
    fits = {rules: ways[rules][0] for rules in ways if away[rules] <= tolerance}
    defined = [rules for rules in ways if not np.isnan(away[rules])]
    ranked = sorted(defined, key=lambda rules: (fits.get(rules, 9), away[rules]))[:5]
    described = []
    for rules in ranked:
        _, name, known = ways[rules]
        words = {n: _RULES[n].get(v, f"the class {v} alone") for n, v in rules._asdict().items()}
        changes = [words[n] for n in words if getattr(rules, n) != getattr(known, n)]
        used = ("area", "iou", *_OF_RSNA) if rules.area == "rsna" else _RULES
        described.append({
            "value": evaluator.value(rules), "protocol": name, "changes": changes,
            "rules": {n: words[n] for n in used},
        })  # fmt: skip
    answer = {
        "figure": figure, "tolerance": tolerance, "within": bool(fits), "n_tried": len(ways),
        "n_within": [[*fits.values()].count(n) for n in range(_MOST_CHANGES + 1)],
        "found": described[0], "next": described[1:], **_own_figure(evaluator, ranked[0]),
    }  # fmt: skip
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - plain text
        undefined=StrictUndefined,
    )
    return {**answer, "text": templates.get_template("protocols.txt.jinja").render(answer)}


def _own_figure(evaluator: _BoxEvaluator, found: _Protocol) -> dict[str, Any]:
    """The AP50 or AP of cxr, and the one rule that moves it nearest to the found protocol."""
    iou = found.iou if found.iou == "0.5:0.95" else "0.5"
    own = evaluator.plain({"iou": iou, "floor": "0.001", "most": "100"})
    moved = [
        {"rule": _RULES[name].get(value, value), "instead_of": _RULES[name].get(mine, mine),
         "value": evaluator.value(own._replace(**{name: value}))}
        for name, value, mine in zip(_RULES, found, own, strict=True)
        if value != mine and found.area != "rsna"  # to which no single rule leads
    ]  # fmt: skip
    moved.sort(key=lambda change: abs(change["value"] - evaluator.value(found)))
    figure = {"metric": "ap50" if iou == "0.5" else "ap", "value": evaluator.value(own)}
    return {"own": figure, "main_rule": moved[0] if moved else None}
