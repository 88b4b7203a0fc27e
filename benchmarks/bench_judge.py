"""The judge: a whole comparison, and its two costly parts against scikit-learn and pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.bench import Row, Setting, own_process, peak_gib
from data_prep.contracts.schemas import EDGES
from evaluation.boxes.average_precision import (
    WeightedAveragePrecision,
    average_precision,
    match_boxes,
)
from evaluation.compare.metrics_table import resampled_figures
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.refit import ValidationScores, refit_thresholds
from evaluation.decisions.thresholds import POLICIES, choose_threshold
from evaluation.metrics.evaluation_set import EvaluationSet
from evaluation.metrics.image_metrics import rates
from evaluation.statistics.bootstrap import Resamples, cluster_index
from evaluation.statistics.ranking import Floats, RankedScores

_IMAGES, _QUICK_IMAGES = 27_000, 200
_TEST_PER_VALIDATION, _FEWEST_VALIDATION = 9, 60  # 3,000 validation images for 27,000 of test
_REPLICATES, _QUICK_REPLICATES = 2_000, 20
_LOOP_REPLICATES = 20  # the plain loop is timed on so many: all of them would take minutes
_LIMIT_SECONDS, _LIMIT_GIB = 10.0, 2.0
_ROUNDS = 3
_POLICY = "max_f1"
_RATES = ("accuracy", "precision", "recall", "specificity", "f1")
BOXES_PER_IMAGE = 20
_IMAGES_PER_PATIENT = 2.3  # as of RSNA's 26,684 images
_POSITIVE = 0.22
_SIDE = 1024.0  # px


class Systems(NamedTuple):
    """Two detectors, A and B, and a classifier, C: scores by system, boxes of the detectors."""

    judged: EvaluationSet
    scores: dict[str, pd.Series]
    boxes: dict[str, pd.DataFrame]
    validation: dict[str, ValidationScores]


def evaluation_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure all of a comparison, then image-level resampling, then average precision."""
    n_images = _QUICK_IMAGES if setting.quick else _IMAGES
    n_replicates = _QUICK_REPLICATES if setting.quick else _REPLICATES
    seed, measure = setting.seed, setting.meter.measure
    what = f"judge 3 systems on {n_images:,} images, {n_replicates:,} replicates"
    note = (
        "judging is from image scores and boxes to the table of figures, intervals and paired "
        f"differences; two of the systems are detectors with {BOXES_PER_IMAGE} boxes an image; "
        f"thresholds are refitted on {_n_validation(n_images):,} validation images"
    )
    limit, limit_gib = (None, None) if setting.quick else (_LIMIT_SECONDS, _LIMIT_GIB)
    memory = f"{what}: greatest memory of that process"
    rows = [
        Row(f"{what}: time", "s", "judge", part="seconds", limit=limit, note=note),
        Row(memory, "GiB", "judge", part="peak_gib", limit=limit_gib, note=note),
    ]
    whole = partial(own_process, "benchmarks.bench_judge", n_images, n_replicates, seed)
    yield from measure({"judge": whole}, rows, warm=False, most=_ROUNDS)
    systems, loop = make_systems(n_images, seed), min(n_replicates, _LOOP_REPLICATES)
    runs = {
        "ours": lambda: float(len(image_figures(systems, n_replicates, seed))),
        "scikit-learn": lambda: float(len(looped_figures(systems, loop, seed))),
    }
    name = f"AUROC, AP and five rates of 3 systems on {n_images:,} images, resampled"
    note = (
        f"the loop over scikit-learn is timed on {loop} replicates, ours on {n_replicates:,}; "
        "both choose the threshold for the best F1 again on resampled validation patients"
    )
    row = Row(name, "replicates/s", "ours", "scikit-learn", note=note)
    yield from measure(runs, [row], most=_ROUNDS)
    yield from _box_rows(setting, systems)


def make_systems(n_images: int, seed: int) -> Systems:
    """Draw images, lesions and predictions; the detectors find four lesions of five."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"i{number:06d}" for number in range(n_images)])
    sick = rng.random(n_images) < _POSITIVE
    owners = rng.integers(0, max(1, int(n_images / _IMAGES_PER_PATIENT)), n_images)
    patients, n_patients = cluster_index(owners)
    lesions = np.repeat(np.arange(n_images), np.where(sick, rng.integers(1, 4, n_images), 0))
    truth = _boxes_at(rng, len(lesions))
    kinds = np.where(rng.random(n_images) < 0.4, "normal", "not_normal")
    judged = EvaluationSet(
        image_ids=ids,
        y_true=sick,
        patients=patients,
        n_patients=n_patients,
        boxes_trusted=np.ones(n_images, dtype=bool),
        truth=pd.DataFrame(truth, columns=EDGES).assign(image_id=ids[lesions]),
        x_class=pd.Series(np.where(sick, "lesion", kinds), index=ids),
    )
    boxes = {name: _found(rng, ids, lesions, truth, blur) for name, blur in (("A", 20), ("B", 35))}
    scores = {
        name: frame.groupby("image_id")["score"].max().reindex(ids, fill_value=0.0)
        for name, frame in boxes.items()
    }
    scores["C"] = pd.Series(1 / (1 + np.exp(1.5 - 1.4 * sick - rng.normal(size=n_images))), ids)
    return Systems(judged, scores, boxes, _validation(judged, scores, rng))


def _n_validation(n_images: int) -> int:
    return max(_FEWEST_VALIDATION, n_images // _TEST_PER_VALIDATION)


def _validation(
    judged: EvaluationSet, scores: dict[str, pd.Series], rng: np.random.Generator
) -> dict[str, ValidationScores]:
    """Validation images that score as test images drawn at random do."""
    rows = rng.choice(len(judged.y_true), _n_validation(len(judged.y_true)), replace=False)
    owners = np.char.add("v", judged.patients[rows].astype(str))
    return {
        name: ValidationScores(judged.y_true[rows], each.to_numpy()[rows], owners)
        for name, each in scores.items()
    }


def _boxes_at(rng: np.random.Generator, count: int) -> Floats:
    corner = rng.uniform(20, 0.6 * _SIDE, (count, 2))
    return np.hstack([corner, corner + rng.uniform(60, 0.35 * _SIDE, (count, 2))])


def _found(
    rng: np.random.Generator, ids: pd.Index, lesions: np.ndarray, truth: Floats, blur: float
) -> pd.DataFrame:
    """Blurred lesions among false boxes of lower scores."""
    found = rng.random(len(lesions)) < 0.8
    n_false = len(ids) * BOXES_PER_IMAGE - int(found.sum())
    near = truth[found] + rng.normal(0, blur, (int(found.sum()), 4)).clip(-25, 25)
    frame = pd.DataFrame(np.vstack([near, _boxes_at(rng, n_false)]), columns=EDGES)
    image = np.append(lesions[found], rng.integers(0, len(ids), n_false))
    score = np.append(rng.beta(3, 3, len(near)), rng.beta(0.5, 8, n_false)).clip(0.001, 1)
    return frame.assign(image_id=ids[image], score=score)


def judge(systems: Systems, n_replicates: int, seed: int) -> pd.DataFrame:
    """Every figure, interval and paired difference; thresholds are chosen on validation images."""
    judged, cards = systems.judged, {}
    for name, scores in systems.scores.items():
        boxes = systems.boxes.get(name)
        kept = systems.validation[name]
        choices = {
            policy: choose_threshold(kept.y_true, kept.scores, policy) for policy in POLICIES
        }
        cut = None if boxes is None else float(boxes["score"].median())
        card = Scorecard(judged, scores, choices, validation=kept, boxes=boxes, box_cut=cut)
        cards[name] = [card]
    resamples = Resamples(judged.n_patients, n_replicates, seed)
    return resampled_figures("lesion", cards, resamples).figures.table()


def image_figures(systems: Systems, n_replicates: int, seed: int) -> Floats:
    """Our form: ``(replicates, systems x 7)``, AUROC, average precision and the rates.

    Rates are taken at thresholds for the best F1 on as many resamples of validation.
    """
    judged = systems.judged
    resamples = Resamples(judged.n_patients, n_replicates, seed)
    chosen = {name: (kept, [_POLICY]) for name, kept in systems.validation.items()}
    cuts = {name: each[_POLICY] for name, each in refit_thresholds(chosen, resamples).items()}
    ranked = {
        name: RankedScores(judged.y_true, scores, judged.patients)
        for name, scores in systems.scores.items()
    }
    parts: list[Floats] = []
    done = 0
    for weights in resamples.chunks():
        columns: list[Floats] = []
        for name, each in ranked.items():
            sums = each.sums(weights)
            at_threshold = rates(**sums.counts(cuts[name][done : done + len(weights)]))
            columns += [*sums.figures().values(), *(at_threshold[n] for n in _RATES)]
        parts.append(np.column_stack(columns))
        done += len(weights)
    return np.concatenate(parts)


def looped_figures(systems: Systems, n_replicates: int, seed: int) -> Floats:
    """The same as one would write it: for each resample take its images, call scikit-learn."""
    from sklearn import metrics as peer

    judged, validation = systems.judged, systems.validation
    resamples = Resamples(judged.n_patients, n_replicates, seed)
    owners, n_owners = cluster_index(next(iter(validation.values())).patients)
    anew = Resamples(n_owners, n_replicates, seed, stream=1)
    pairs = zip(*(np.concatenate(list(each.chunks())) for each in (resamples, anew)), strict=True)
    found = []
    for weights, of_owner in pairs:
        rows = np.repeat(np.arange(len(judged.y_true)), weights[judged.patients])
        drawn = np.repeat(np.arange(len(owners)), of_owner[owners])
        truth, columns = judged.y_true[rows], []
        for name, scores in systems.scores.items():
            score, kept = scores.to_numpy()[rows], validation[name]
            cut = choose_threshold(kept.y_true[drawn], kept.scores[drawn], _POLICY).threshold
            called = score >= (np.inf if cut is None else cut)
            columns += [
                peer.roc_auc_score(truth, score),
                peer.average_precision_score(truth, score),
                peer.accuracy_score(truth, called),
                peer.precision_score(truth, called, zero_division=np.nan),
                peer.recall_score(truth, called),
                peer.recall_score(truth, called, pos_label=0),
                peer.f1_score(truth, called),
            ]
        found.append(columns)
    return np.array(found)


def _box_rows(setting: Setting, systems: Systems) -> Iterator[dict[str, Any]]:
    """AP50 and AP of one detector: in numpy, as reported, again for a resample; pycocotools."""
    boxes, judged = systems.boxes["A"], systems.judged
    coco = as_coco(boxes, judged.truth, judged.image_ids)
    ready = _vectorised(systems)
    chunk = next(Resamples(judged.n_patients, 48, setting.seed).chunks())
    runs = {
        "vectorised": lambda: bool(vectorised_figures(systems)),
        "as reported": lambda: bool(average_precision(boxes, judged.truth, judged.image_ids)),
        "a resample": lambda: float(len(ready(chunk))),
        "pycocotools": lambda: bool(plain_figures(*coco)),
    }
    what = f"AP50 and AP of {len(judged.image_ids):,} images x {BOXES_PER_IMAGE} boxes"
    note = (
        "pycocotools has its annotations loaded before the clock starts and is run for one range "
        "of sizes; ours start from tables, and a resample from boxes that are matched"
    )
    rows = [
        Row(f"{what}, {ours}: against pycocotools", "s", ours, "pycocotools", note=note)
        for ours in ("vectorised", "as reported", "a resample")
    ]
    return setting.meter.measure(runs, rows, warm=False, most=_ROUNDS)


def _vectorised(systems: Systems) -> WeightedAveragePrecision:
    judged = systems.judged
    matches = match_boxes(systems.boxes["A"], judged.truth, judged.image_ids)
    return WeightedAveragePrecision(matches, judged.patients, judged.n_patients)


def vectorised_figures(systems: Systems) -> dict[str, float]:
    """AP50 and AP of the first detector in numpy, from its table of boxes."""
    once = np.ones((1, systems.judged.n_patients), dtype=np.int16)
    (figures,) = _vectorised(systems)(once)
    return {"ap50": float(figures[0]), "ap": float(figures.mean())}


def as_coco(boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index) -> tuple[Any, ...]:
    """Truth and predictions as pycocotools takes them."""
    from pycocotools.coco import COCO

    coco = COCO()
    images = [{"id": number + 1} for number in range(len(image_ids))]
    coco.dataset = {"images": images, "categories": [{"id": 1}]}
    made = []
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        for frame in (truth, boxes):
            corners = frame[EDGES].to_numpy()
            place = image_ids.get_indexer(pd.Index(frame["image_id"])) + 1
            score, ones = frame.get("score", 1.0), np.ones(len(frame))
            sides = corners[:, 2:] - corners[:, :2]
            made.append(
                coco.loadRes(np.column_stack([place, corners[:, :2], sides, score * ones, ones]))
            )
    return tuple(made)


def plain_figures(truth: object, boxes: object) -> dict[str, float]:
    """AP50 and AP by pycocotools, used as it is meant to be."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCOeval(truth, boxes, "bbox")
        coco.params.areaRng, coco.params.areaRngLbl = coco.params.areaRng[:1], ["all"]
        coco.params.maxDets = [100]
        coco.evaluate()
        coco.accumulate()
    precision = coco.eval["precision"][:, :, 0, 0, 0]
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}


if __name__ == "__main__":  # judge as many images as the arguments say
    n_images, n_replicates, seed = map(int, sys.argv[1:])
    systems = make_systems(n_images, seed)
    start = time.perf_counter()
    judge(systems, n_replicates, seed)
    seconds = time.perf_counter() - start
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_gib": peak_gib()}))
