"""Benchmark of the judge: a whole comparison, and its two costly parts against plain peers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn import metrics as peer

from benchmarks.bench_rows import Row, duration, paired_row, rate, single_row
from benchmarks.bench_setting import Setting
from benchmarks.judge_process import BOXES_PER_IMAGE, Systems, make_systems
from evaluation.boxes.average_precision import (
    WeightedAveragePrecision,
    average_precision,
    match_boxes,
)
from evaluation.boxes.iou import CORNERS
from evaluation.metrics.image_metrics import rates
from evaluation.statistics.bootstrap import Resamples, per_cluster
from evaluation.statistics.ranking import RankedScores
from scripts.runtime import answer_of

_IMAGES, _QUICK_IMAGES = 27_000, 200
_REPLICATES, _QUICK_REPLICATES = 2_000, 20
_LOOP_REPLICATES = 20  # the plain loop is timed on so many: all of them would take minutes
_LIMIT_SECONDS, _LIMIT_GIB = 10.0, 2.0
_ROUNDS = 3
_THRESHOLD = 0.5
_RATES = ("accuracy", "precision", "recall", "specificity", "f1")


def rows(setting: Setting) -> Iterator[Row]:
    """Measure the rows of this module, one after the other."""
    n_images = _QUICK_IMAGES if setting.quick else _IMAGES
    n_replicates = _QUICK_REPLICATES if setting.quick else _REPLICATES
    yield from _whole_rows(setting, n_images, n_replicates)
    systems = make_systems(n_images, setting.seed)
    yield _bootstrap_row(setting, systems, n_replicates)
    yield from _box_rows(setting, systems)


def _whole_rows(setting: Setting, n_images: int, n_replicates: int) -> Iterator[Row]:
    """All statistics of three systems, each time in a fresh process."""
    runs: list[dict[str, float]] = []
    counted, rejected = [], 0
    judged = partial(answer_of, "benchmarks.judge_process", n_images, n_replicates, setting.seed)
    for _ in range(min(_ROUNDS, setting.meter.rounds)):
        sample, noisy = setting.meter.quiet_sample(lambda: runs.append(judged()))
        rejected += noisy
        if sample is not None:
            counted.append(runs[-1])
    what = f"judge 3 systems on {n_images:,} images, {n_replicates:,} replicates"
    note = (
        "judging is from image scores and boxes to the table of figures, intervals and paired "
        f"differences; two of the systems are detectors with {BOXES_PER_IMAGE} boxes an image"
    )
    for key, unit, limit, words in (
        ("seconds", "s", _LIMIT_SECONDS, "time"),
        ("peak_gib", "GiB", _LIMIT_GIB, "greatest memory of that process"),
    ):
        values = [run[key] for run in counted]
        given = None if setting.quick else limit
        yield single_row(
            f"{what}: {words}", unit, values, rejected=rejected, limit=given, note=note
        )


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
    """The same as one would write it: for each resample take its images, ask scikit-learn."""
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
    candidates: dict[str, Callable[[], float | None]] = {
        "vectorised": lambda: _once(vectorised_figures, systems),
        "as reported": lambda: _once(average_precision, boxes, judged.truth, judged.image_ids),
        "a resample": lambda: float(len(ready(chunk))),
        "pycocotools": lambda: _once(plain_figures, *coco),
    }
    timings = setting.meter.compare(candidates, warm=False, most_rounds=_ROUNDS)
    what = f"AP50 and AP of {len(judged.image_ids):,} images x {BOXES_PER_IMAGE} boxes"
    note = (
        "pycocotools has its annotations loaded before the clock starts and is asked for one range "
        "of sizes; ours start from tables, and a resample from boxes that are matched"
    )
    for ours in ("vectorised", "as reported", "a resample"):
        title = f"{what}, {ours}: against pycocotools"
        yield paired_row(title, timings, ours, "pycocotools", "s", duration, note)


def _once(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


def _vectorised(systems: Systems) -> WeightedAveragePrecision:
    judged = systems.judged
    matches = match_boxes(systems.boxes["A"], judged.truth, judged.image_ids)
    return WeightedAveragePrecision(matches, judged.patients, judged.n_patients)


def vectorised_figures(systems: Systems) -> dict[str, float]:
    """AP50 and AP of the first detector in numpy, from its table of boxes."""
    once = np.ones((1, systems.judged.n_patients), dtype=np.int16)
    (figures,) = _vectorised(systems)(once)
    return {"ap50": float(figures[0]), "ap": float(figures.mean())}


def as_coco(boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index) -> tuple[COCO, COCO]:
    """Truth and predictions as pycocotools takes them."""
    images = [{"id": number + 1} for number in range(len(image_ids))]
    made = []
    for frame in (truth, boxes):
        corners = frame[CORNERS].to_numpy()
        columns = {
            "image_id": image_ids.get_indexer(pd.Index(frame["image_id"])) + 1,
            "bbox": np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist(),
            "score": frame.get("score", pd.Series(1.0, frame.index)),
        }
        rows: list[dict[str, Any]] = pd.DataFrame(columns).to_dict("records")  # type: ignore[assignment]
        for number, row in enumerate(rows, start=1):
            area = row["bbox"][2] * row["bbox"][3]
            row |= {"id": number, "category_id": 1, "iscrowd": 0, "area": area}
        coco = COCO()
        coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": rows}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        made.append(coco)
    return made[0], made[1]


def plain_figures(truth: COCO, boxes: COCO) -> dict[str, float]:
    """AP50 and AP by pycocotools, used as it is meant to be."""
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, boxes, "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]
        judge.params.maxDets = [100]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, 0, 0, 0]
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}
