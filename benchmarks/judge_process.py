"""Made-up systems to judge, and all statistics of a comparison, in memory.

Run as ``python -m benchmarks.judge_process IMAGES REPLICATES SEED`` it judges them in a process of
its own and prints one JSON object: the seconds that took and the greatest memory.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.boxes.iou import CORNERS
from evaluation.compare.metrics_table import metrics_table
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.thresholds import POLICIES, choose_threshold
from evaluation.metrics.evaluation_set import JudgedImages
from evaluation.metrics.image_metrics import COUNT_METRICS
from evaluation.statistics.bootstrap import Resamples, cluster_bootstrap, cluster_index

BOXES_PER_IMAGE = 20
_IMAGES_PER_PATIENT = 2.3  # as of RSNA's 26,684 images
_POSITIVE = 0.22
_SIDE = 1024.0  # px


@dataclass(frozen=True)
class Systems:
    """Two detectors and a classifier on the same images.

    Attributes:
        judged: The images and what is true of them.
        scores: One score per image, by system.
        boxes: Predicted boxes of the detectors, 20 an image, by system.
    """

    judged: JudgedImages
    scores: dict[str, pd.Series]
    boxes: dict[str, pd.DataFrame]


def make_systems(n_images: int, seed: int) -> Systems:
    """Draw images, lesions and predictions.

    Args:
        n_images: Number of images.
        seed: Seed of all of it.

    Returns:
        The systems; the detectors find four lesions of five, more or less exactly.
    """
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"i{number:06d}" for number in range(n_images)])
    sick = rng.random(n_images) < _POSITIVE
    owners = rng.integers(0, max(1, int(n_images / _IMAGES_PER_PATIENT)), n_images)
    patients, n_patients = cluster_index(owners)
    lesions = np.repeat(np.arange(n_images), np.where(sick, rng.integers(1, 4, n_images), 0))
    truth = _boxes_at(rng, len(lesions))
    kinds = np.where(rng.random(n_images) < 0.4, "normal", "not_normal")
    judged = JudgedImages(
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


def judge(systems: Systems, n_replicates: int, seed: int) -> pd.DataFrame:
    """Every figure, interval and paired difference of a comparison, from scores and boxes.

    Thresholds are chosen on the same images here, which a comparison must not do: it takes as
    long.

    Args:
        systems: What is judged.
        n_replicates: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        The tidy table of `evaluation.compare.metrics_table.metrics_table`.
    """
    judged = systems.judged
    cards = {}
    for name, scores in systems.scores.items():
        boxes = systems.boxes.get(name)
        choices = {each: choose_threshold(judged.y_true, scores, each) for each in POLICIES}
        cut = None if boxes is None else float(boxes["score"].median())
        cards[name] = Scorecard(judged, scores, choices, None, boxes, cut)
    resamples = Resamples(judged.n_patients, n_replicates, seed)

    def figures(weights: npt.NDArray[np.int16]) -> dict:
        return {
            (name, figure): values
            for name, card in cards.items()
            for figure, values in card(weights).items()
            if figure.metric not in COUNT_METRICS
        }

    return metrics_table("lesion", cards, cluster_bootstrap(figures, resamples), resamples)


def main() -> None:
    """Judge as many images as asked for, and print what that took."""
    from benchmarks.bench_child import peak_gib

    n_images, n_replicates, seed = map(int, sys.argv[1:])
    systems = make_systems(n_images, seed)
    start, used = time.perf_counter(), time.process_time()
    judge(systems, n_replicates, seed)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    facts = {"seconds": seconds, "cpu_seconds": used, "peak_gib": peak_gib()}
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    main()
