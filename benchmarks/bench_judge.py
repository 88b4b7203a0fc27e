"""The judge: a whole comparison, and its two costly parts against scikit-learn and pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.bench import Row, Run, Setting, duration, paired_row, peak_gib, rate, single_row
from evaluation.boxes.average_precision import (
    WeightedAveragePrecision,
    average_precision,
    match_boxes,
)
from evaluation.boxes.iou import CORNERS
from evaluation.compare.metrics_table import figures_of
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.thresholds import POLICIES, choose_threshold
from evaluation.metrics.evaluation_set import EvaluationSet
from evaluation.metrics.image_metrics import rates
from evaluation.metrics.registry import family
from evaluation.statistics.bootstrap import (
    Resamples,
    cluster_bootstrap,
    cluster_index,
    per_cluster,
)
from evaluation.statistics.ranking import RankedScores

_IMAGES, _QUICK_IMAGES = 27_000, 200
_REPLICATES, _QUICK_REPLICATES = 2_000, 20
_LOOP_REPLICATES = 20  # the plain loop is timed on so many: all of them would take minutes
_LIMIT_SECONDS, _LIMIT_GIB = 10.0, 2.0
_ROUNDS = 3
_THRESHOLD = 0.5
_RATES = ("accuracy", "precision", "recall", "specificity", "f1")
BOXES_PER_IMAGE = 20
_IMAGES_PER_PATIENT = 2.3  # as of RSNA's 26,684 images
_POSITIVE = 0.22
_SIDE = 1024.0  # px


def evaluation_rows(setting: Setting) -> Iterator[Row]:
    """Measure all of a comparison, then image-level resampling, then average precision."""
    n_images = _QUICK_IMAGES if setting.quick else _IMAGES
    n_replicates = _QUICK_REPLICATES if setting.quick else _REPLICATES
    yield from _whole_rows(setting, n_images, n_replicates)
    systems = make_systems(n_images, setting.seed)
    yield _bootstrap_row(setting, systems, n_replicates)
    yield from _box_rows(setting, systems)


@dataclass(frozen=True)
class Systems:
    """Two detectors, A and B, and a classifier, C: scores by system, boxes of the detectors."""

    judged: EvaluationSet
    scores: dict[str, pd.Series]
    boxes: dict[str, pd.DataFrame]


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
        truth=pd.DataFrame(truth, columns=CORNERS).assign(image_id=ids[lesions]),
        x_class=pd.Series(np.where(sick, "lesion", kinds), index=ids),
    )
    boxes = {name: _found(rng, ids, lesions, truth, blur) for name, blur in (("A", 20), ("B", 35))}
    scores = {
        name: frame.groupby("image_id")["score"].max().reindex(ids, fill_value=0.0)
        for name, frame in boxes.items()
    }
    scores["C"] = pd.Series(1 / (1 + np.exp(1.5 - 1.4 * sick - rng.normal(size=n_images))), ids)
    return Systems(judged, scores, boxes)


def _boxes_at(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    corner = rng.uniform(20, 0.6 * _SIDE, (count, 2))
    return np.hstack([corner, corner + rng.uniform(60, 0.35 * _SIDE, (count, 2))])


def _found(
    rng: np.random.Generator,
    ids: pd.Index,
    lesions: npt.NDArray[np.int64],
    truth: npt.NDArray[np.float64],
    blur: float,
) -> pd.DataFrame:
    """Blurred lesions among false boxes of lower scores."""
    found = rng.random(len(lesions)) < 0.8
    n_false = len(ids) * BOXES_PER_IMAGE - int(found.sum())
    near = truth[found] + rng.normal(0, blur, (int(found.sum()), 4)).clip(-25, 25)
    frame = pd.DataFrame(np.vstack([near, _boxes_at(rng, n_false)]), columns=CORNERS)
    image = np.append(lesions[found], rng.integers(0, len(ids), n_false))
    score = np.append(rng.beta(3, 3, len(near)), rng.beta(0.5, 8, n_false)).clip(0.001, 1)
    return frame.assign(image_id=ids[image], score=score)


def _whole_rows(setting: Setting, n_images: int, n_replicates: int) -> Iterator[Row]:
    """All statistics of three systems, each time in a fresh process."""
    runs, rejected = setting.meter.answers(
        "benchmarks.bench_judge", n_images, n_replicates, setting.seed, most_rounds=_ROUNDS
    )
    what = f"judge 3 systems on {n_images:,} images, {n_replicates:,} replicates"
    note = (
        "judging is from image scores and boxes to the table of figures, intervals and paired "
        f"differences; two of the systems are detectors with {BOXES_PER_IMAGE} boxes an image"
    )
    for key, unit, limit, words in (
        ("seconds", "s", _LIMIT_SECONDS, "time"),
        ("peak_gib", "GiB", _LIMIT_GIB, "greatest memory of that process"),
    ):
        values = [run[key] for run in runs]
        most = None if setting.quick else limit
        yield single_row(f"{what}: {words}", unit, values, rejected=rejected, limit=most, note=note)


def judge(systems: Systems, n_replicates: int, seed: int) -> pd.DataFrame:
    """Every figure, interval and paired difference of a comparison, as its tidy table.

    Thresholds are chosen on the same images here, which a comparison must not do: it takes as
    long.
    """
    judged = systems.judged
    cards = {}
    for name, scores in systems.scores.items():
        boxes = systems.boxes.get(name)
        choices = {each: choose_threshold(judged.y_true, scores, each) for each in POLICIES}
        cut = None if boxes is None else float(boxes["score"].median())
        cards[name] = Scorecard(judged, scores, choices, boxes=boxes, box_cut=cut)
    resamples = Resamples(judged.n_patients, n_replicates, seed)

    def figures(weights: npt.NDArray[np.int16]) -> dict:
        return {
            (name, figure): values
            for name, card in cards.items()
            for figure, values in card(weights).items()
            if figure.metric not in family("counts")
        }

    drawn = cluster_bootstrap(figures, resamples)
    return figures_of("lesion", cards, drawn, resamples).table()


def _bootstrap_row(setting: Setting, systems: Systems, n_replicates: int) -> Row:
    """Seven image-level figures of each system on resamples of patients."""
    loop = min(n_replicates, _LOOP_REPLICATES)
    timings = setting.meter.compare(
        {
            "ours": lambda: float(len(image_figures(systems, n_replicates, setting.seed))),
            "scikit-learn": lambda: float(len(looped_figures(systems, loop, setting.seed))),
        },
        most_rounds=_ROUNDS,
    )
    n_images = len(systems.judged.image_ids)
    title = f"AUROC, AP and five rates of 3 systems on {n_images:,} images, resampled"
    note = f"the loop over scikit-learn is timed on {loop} replicates, ours on {n_replicates:,}"
    return paired_row(title, timings, "ours", "scikit-learn", "replicates/s", rate, note)


def image_figures(systems: Systems, n_replicates: int, seed: int) -> npt.NDArray[np.float64]:
    """Our form: ``(replicates, systems x 7)``, AUROC, average precision and the rates."""
    judged = systems.judged
    resamples = Resamples(judged.n_patients, n_replicates, seed)
    ready = []
    for scores in systems.scores.values():
        called = scores.to_numpy() >= _THRESHOLD
        cells = [called & judged.y_true, called & ~judged.y_true]
        cells += [~called & ~judged.y_true, ~called & judged.y_true]
        counts = per_cluster(np.column_stack(cells), judged.patients, judged.n_patients)
        ready.append((RankedScores(judged.y_true, scores, judged.patients), counts))
    parts = []
    for weights in resamples.chunks():
        columns: list[npt.NDArray[np.float64]] = []
        for ranked, counts in ready:
            tp, fp, tn, fn = (weights.astype(np.float64) @ counts).T
            at_threshold = rates(tp, fp, tn, fn)
            columns += [*ranked.figures(weights).values(), *(at_threshold[n] for n in _RATES)]
        parts.append(np.column_stack(columns))
    return np.concatenate(parts)


def looped_figures(systems: Systems, n_replicates: int, seed: int) -> npt.NDArray[np.float64]:
    """The same as one would write it: for each resample take its images, call scikit-learn."""
    from sklearn import metrics as peer

    judged = systems.judged
    resamples = Resamples(judged.n_patients, n_replicates, seed)
    found = []
    for weights in np.concatenate(list(resamples.chunks())):
        rows = np.repeat(np.arange(len(judged.y_true)), weights[judged.patients])
        truth, columns = judged.y_true[rows], []
        for scores in systems.scores.values():
            score = scores.to_numpy()[rows]
            called = score >= _THRESHOLD
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


def _box_rows(setting: Setting, systems: Systems) -> Iterator[Row]:
    """AP50 and AP of one detector: in numpy, as reported, again for a resample; pycocotools."""
    boxes, judged = systems.boxes["A"], systems.judged
    coco = as_coco(boxes, judged.truth, judged.image_ids)
    ready = _vectorised(systems)
    chunk = next(Resamples(judged.n_patients, 48, setting.seed).chunks())
    candidates: dict[str, Run] = {
        "vectorised": lambda: float(bool(vectorised_figures(systems))),
        "as reported": lambda: float(
            bool(average_precision(boxes, judged.truth, judged.image_ids))
        ),
        "a resample": lambda: float(len(ready(chunk))),
        "pycocotools": lambda: float(bool(plain_figures(*coco))),
    }
    timings = setting.meter.compare(candidates, warm=False, most_rounds=_ROUNDS)
    what = f"AP50 and AP of {len(judged.image_ids):,} images x {BOXES_PER_IMAGE} boxes"
    note = (
        "pycocotools has its annotations loaded before the clock starts and is run for one range "
        "of sizes; ours start from tables, and a resample from boxes that are matched"
    )
    for ours in ("vectorised", "as reported", "a resample"):
        title = f"{what}, {ours}: against pycocotools"
        yield paired_row(title, timings, ours, "pycocotools", "s", duration, note)


def _vectorised(systems: Systems) -> WeightedAveragePrecision:
    judged = systems.judged
    matches = match_boxes(systems.boxes["A"], judged.truth, judged.image_ids)
    return WeightedAveragePrecision(matches, judged.patients, judged.n_patients)


def vectorised_figures(systems: Systems) -> dict[str, float]:
    """AP50 and AP of the first detector in numpy, from its table of boxes."""
    once = np.ones((1, systems.judged.n_patients), dtype=np.int16)
    (figures,) = _vectorised(systems)(once)
    return {"ap50": float(figures[0]), "ap": float(figures.mean())}


def as_coco(boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index) -> tuple:
    """Truth and predictions as pycocotools takes them."""
    from pycocotools.coco import COCO

    images = [{"id": number + 1} for number in range(len(image_ids))]
    made = []
    for frame in (truth, boxes):
        corners = frame[CORNERS].to_numpy()
        sides = corners[:, 2:] - corners[:, :2]
        columns = {
            "id": np.arange(1, len(frame) + 1),
            "image_id": image_ids.get_indexer(pd.Index(frame["image_id"])) + 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": np.hstack([corners[:, :2], sides]).tolist(),
            "area": sides.prod(axis=1),
            "score": frame.get("score", pd.Series(1.0, frame.index)).to_numpy(),
        }
        rows = pd.DataFrame(columns).to_dict("records")
        coco = COCO()
        coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": rows}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        made.append(coco)
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


def _main() -> None:
    """Judge as many images as the arguments say, and print what that took."""
    n_images, n_replicates, seed = map(int, sys.argv[1:])
    systems = make_systems(n_images, seed)
    start, used = time.perf_counter(), time.process_time()
    judge(systems, n_replicates, seed)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    facts = {"seconds": seconds, "cpu_seconds": used, "peak_gib": peak_gib()}
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    _main()
