"""Evaluation: a whole comparison, its costly parts against scikit-learn and COCO's evaluators."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.bench import Row, Setting
from benchmarks.worker import Candidate, Run
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.box_choice import BoxCandidate, BoxChoice
from cxr_compare.evaluation.boxes.average_precision import (
    WeightedAveragePrecision,
    unchecked_average_precision,
)
from cxr_compare.evaluation.boxes.matching import match_pairs, pair_boxes
from cxr_compare.evaluation.boxes.overlaps import (
    OverlappingBoxes,
    OverlapRule,
    StoredPairs,
    overlap_candidates,
)
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.figure_intervals import compute_figures
from cxr_compare.evaluation.groups.failure_analysis import failure_table, shortcut_table
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.replicates import choose_again, refit_choices, replicates
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_index
from cxr_compare.evaluation.statistics.ranking import RankedScores
from cxr_compare.evaluation.thresholds import POLICIES, ValidationScores, choose_threshold

_IMAGES = 27_000
_QUICK_IMAGES = 200
# 3,000 validation images for 27,000 of test
_TEST_PER_VALIDATION = 9
_FEWEST_VALIDATION = 60
_REPLICATES = 2_000
_QUICK_REPLICATES = 20
_LOOP_REPLICATES = 20  # the plain loop is timed on so many: all of them would take minutes
_COCO = ("pycocotools", "faster-coco-eval")
_LIMIT_SECONDS = 10.0
_LIMIT_GIB = 2.0
_ROUNDS = 3
_POLICY = "max_f1"
_RATES = ("accuracy", "precision", "recall", "specificity", "f1")
BOXES_PER_IMAGE = 20
_IMAGES_PER_PATIENT = 2.3  # as of RSNA's 26,684 images
_POSITIVE = 0.22
_SIDE = 1024.0  # px


class Systems(NamedTuple):
    """Two detectors, A and B, and a classifier, C: scores by system, boxes of the detectors.

    `choices` are what the detectors' overlaps and score cuts of boxes are chosen on; `images` have
    sex, age and view, which are no different.
    """

    evaluated: LabelledImages
    scores: dict[str, pd.Series]
    boxes: dict[str, pd.DataFrame]
    validation: dict[str, ValidationScores]
    choices: dict[str, BoxChoice]
    images: pd.DataFrame


def evaluation_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield rows of a whole comparison, and of its resampling against a loop over scikit-learn."""
    n_images = _QUICK_IMAGES if setting.quick else _IMAGES
    n_replicates = _QUICK_REPLICATES if setting.quick else _REPLICATES
    ours = "ours"
    peer = "loop over scikit-learn"
    loop = min(n_replicates, _LOOP_REPLICATES)
    arguments: dict[str, Any] = {"n_images": n_images, "seed": setting.seed}
    limits: dict[str, Any] = (
        {} if setting.quick else {"limit": _LIMIT_SECONDS, "limit_gib": _LIMIT_GIB}
    )
    note = (
        "evaluating is from image scores and boxes to the tables of figures, intervals and paired "
        "differences, and of where systems fail: 9 groups (2 of sex, 5 of age, 2 of view); "
        "two of the systems are detectors with "
        f"{BOXES_PER_IMAGE} boxes an image; "
        "thresholds, overlaps and score cuts of boxes are refitted on "
        f"{_n_validation(n_images):,} validation images"
    )
    work = f"evaluate 3 systems on {n_images:,} images, {n_replicates:,} replicates"
    whole = {ours: Candidate.from_setup(whole_comparison, n_replicates=n_replicates, **arguments)}
    rows = [Row(work, "s", ours, note=note, **limits)]
    yield from setting.meter.measure(whole, rows, warm=False, most=_ROUNDS)
    note = (
        f"the loop over scikit-learn is timed on {loop} replicates, ours on {n_replicates:,}; "
        "both choose the threshold for the best F1 again on resampled validation patients"
    )
    work = f"AUROC, AP and five rates of 3 systems, resampled, {n_images:,} images"
    candidates = {
        ours: Candidate.from_setup(our_replicates, n_replicates=n_replicates, **arguments),
        peer: Candidate.from_setup(looped_replicates, n_replicates=loop, **arguments),
    }
    rows = [Row(work, "replicates/s", ours, peer, note=note)]
    yield from setting.meter.measure(candidates, rows, most=_ROUNDS)


def precision_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Return rows of AP50 and AP of one detector: as reported, for a resample, and by others."""
    n_images = _QUICK_IMAGES if setting.quick else _IMAGES
    reported = "as reported"
    resampled = "one more resample"
    candidates = _precision(n_images, setting.seed, BOXES_PER_IMAGE, (reported, resampled))
    work = f"AP50 and AP, {n_images:,} images x {BOXES_PER_IMAGE} boxes"
    note = (
        "AP: pycocotools and faster-coco-eval have their annotations loaded before the clock "
        "starts and are run for one range of sizes; ours start from tables, a resample from boxes "
        "that are matched"
    )
    rows = [
        Row(work, "s", ours, peer, note=note) for ours in (reported, resampled) for peer in _COCO
    ]
    return setting.meter.measure(candidates, rows, warm=False, most=_ROUNDS)


def _precision(n_images: int, seed: int, boxes: int, ours: Sequence[str]) -> dict[str, Candidate]:
    arguments: dict[str, Any] = {"n_images": n_images, "seed": seed, "boxes": boxes}
    return {how: Candidate.from_setup(box_figures, how=how, **arguments) for how in (*ours, *_COCO)}


def whole_comparison(n_images: int, n_replicates: int, seed: int) -> Run:
    """Set up a whole comparison by our program: every figure, interval and difference."""
    systems = make_systems(n_images, seed)
    return lambda: bool(len(evaluate(systems, n_replicates, seed, groups=True)))


def our_replicates(
    n_images: int, n_replicates: int, seed: int, boxes: int = BOXES_PER_IMAGE
) -> Run:
    """Set up the image-level figures of every resample by our program."""
    systems = make_systems(n_images, seed, boxes)
    return lambda: float(len(image_figures(systems, n_replicates, seed)))


def looped_replicates(
    n_images: int, n_replicates: int, seed: int, boxes: int = BOXES_PER_IMAGE
) -> Run:
    """Set up the same figures by a loop over scikit-learn."""
    systems = make_systems(n_images, seed, boxes)
    return lambda: float(len(looped_figures(systems, n_replicates, seed)))


def box_figures(n_images: int, seed: int, boxes: int, how: str) -> Run:
    """Set up AP50 and AP of the first detector, by our program or by another one.

    `how` is the name of the candidate.
    """
    systems = make_systems(n_images, seed, boxes)
    found = systems.boxes["A"]
    evaluated = systems.evaluated
    if how in _COCO:
        given = as_coco(found, evaluated.true_boxes, evaluated.image_ids, how)
        return lambda: bool(plain_figures(given, how))
    if how == "as reported":
        return lambda: bool(
            unchecked_average_precision(found, evaluated.true_boxes, evaluated.image_ids)
        )
    matches = match_pairs(pair_boxes(found, evaluated.true_boxes, evaluated.image_ids))
    ready = WeightedAveragePrecision(matches, evaluated.patients, evaluated.n_patients)
    chunk = next(Resamples(evaluated.n_patients, 48, seed).chunks())
    return lambda: float(len(ready(chunk)))


def make_systems(n_images: int, seed: int, n_boxes: int = BOXES_PER_IMAGE) -> Systems:
    """Draw images, lesions and predictions; the detectors find four of five lesions."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"i{number:06d}" for number in range(n_images)], name="image_id")
    sick = rng.random(n_images) < _POSITIVE
    owners = rng.integers(0, max(1, int(n_images / _IMAGES_PER_PATIENT)), n_images)
    lesions = np.repeat(np.arange(n_images), np.where(sick, rng.integers(1, 4, n_images), 0))
    truth = _boxes_at(rng, len(lesions))
    kinds = np.where(rng.random(n_images) < 0.4, "normal", "not_normal")
    evaluated = LabelledImages.from_arrays(ids, sick, owners, finding="lesion")
    evaluated = replace(
        evaluated,
        images=evaluated.images.assign(x_class=np.where(sick, "lesion", kinds)),
        true_boxes=pd.DataFrame(truth, columns=EDGES).assign(image_id=ids[lesions]),
        boxes_trusted=ids,
    )
    boxes = {
        name: _found(rng, ids, lesions, truth, blur, n_boxes)
        for name, blur in (("A", 20), ("B", 35))
    }
    scores = {
        name: frame.groupby("image_id")["score"].max().reindex(ids, fill_value=0.0)
        for name, frame in boxes.items()
    }
    scores["C"] = pd.Series(1 / (1 + np.exp(1.5 - 1.4 * sick - rng.normal(size=n_images))), ids)
    rows = rng.choice(n_images, _n_validation(n_images), replace=False)
    names = np.char.add("v", owners[rows].astype(str))
    validation = {
        name: ValidationScores(sick[rows], each.to_numpy()[rows], names)
        for name, each in scores.items()
    }
    choices = {
        name: BoxChoice(
            [
                BoxCandidate(*each)
                for each in overlap_candidates(
                    StoredPairs.on_images(
                        OverlappingBoxes.from_boxes(found[found["image_id"].isin(ids[rows])]),
                        evaluated.true_boxes,
                        ids[rows],
                    )
                )
            ],
            names,
        )
        for name, found in boxes.items()
    }
    return Systems(evaluated, scores, boxes, validation, choices, _facts(rng, evaluated))


def _facts(rng: np.random.Generator, evaluated: LabelledImages) -> pd.DataFrame:
    """Draw facts of images; of 27,000, about 90 are of patients over 79 years, 200 under 18."""
    n = evaluated.n_patients
    of = evaluated.patients
    return pd.DataFrame(
        {
            "image_id": evaluated.image_ids.to_numpy(),
            "patient_id": of.astype(str),
            "sex": rng.choice(["F", "M"], n, p=[0.43, 0.57])[of],
            "age_years": rng.normal(47, 12, n).clip(1, 92).round()[of],
            "view": rng.choice(["AP", "PA"], len(of), p=[0.46, 0.54]),
            "height": _SIDE,
            "width": _SIDE,
        }
    )


def _n_validation(n_images: int) -> int:
    return max(_FEWEST_VALIDATION, n_images // _TEST_PER_VALIDATION)


def _boxes_at(rng: np.random.Generator, count: int) -> Floats:
    corner = rng.uniform(20, 0.6 * _SIDE, (count, 2))
    return np.hstack([corner, corner + rng.uniform(60, 0.35 * _SIDE, (count, 2))])


def _found(
    rng: np.random.Generator,
    ids: pd.Index,
    lesions: np.ndarray,
    truth: Floats,
    blur: float,
    n_boxes: int,
) -> pd.DataFrame:
    """Return blurred lesions among false boxes with lower scores."""
    found = rng.random(len(lesions)) < 0.8
    n_false = len(ids) * n_boxes - int(found.sum())
    near = truth[found] + rng.normal(0, blur, (int(found.sum()), 4)).clip(-25, 25)
    frame = pd.DataFrame(np.vstack([near, _boxes_at(rng, n_false)]), columns=EDGES)
    image = np.append(lesions[found], rng.integers(0, len(ids), n_false))
    score = np.append(rng.beta(3, 3, len(near)), rng.beta(0.5, 8, n_false)).clip(0.001, 1)
    return frame.assign(image_id=ids[image], score=score)


def evaluate(
    systems: Systems, n_replicates: int, seed: int, *, groups: bool = False
) -> pd.DataFrame:
    """Compute every figure, interval and paired difference.

    Thresholds and cuts are chosen on validation images.
    """
    models = {name: [_tuned(systems, name)] for name in systems.scores}
    resamples = Resamples(systems.evaluated.n_patients, n_replicates, seed)
    again = choose_again(models, resamples)
    frames = replicates(models, resamples, again)
    figures = compute_figures("lesion", models, frames, resamples).table()
    if not groups:
        return figures
    shortcuts = shortcut_table(models)
    where = failure_table(models, again, Protocol(), None, resamples, shortcuts)
    return pd.concat([figures, where], ignore_index=True)


def _tuned(systems: Systems, name: str) -> EvaluatedModel:
    """Return a system with the thresholds and the rule of boxes that validation chooses."""
    images = systems.evaluated
    chosen_on = systems.validation[name]
    thresholds = {
        policy: choose_threshold(chosen_on.y_true, chosen_on.scores, policy) for policy in POLICIES
    }
    choices = Choices(target="lesion", chosen_on={}, thresholds=thresholds, chosen_scores=chosen_on)
    if name not in systems.boxes:
        output = Output.from_scores(images.image_ids, systems.scores[name])
        return EvaluatedModel(name, images, output, choices)
    of_boxes = systems.choices[name]
    choices = replace(
        choices,
        overlap=of_boxes.rule.limit if isinstance(of_boxes.rule, OverlapRule) else None,
        box_cut=of_boxes.cut,
        box_choice=of_boxes,
    )
    output = Output.from_boxes(images.image_ids, systems.boxes[name])
    return EvaluatedModel(name, images, output, choices)


def image_figures(systems: Systems, n_replicates: int, seed: int) -> Floats:
    """Compute the image-level figures of every resample by our program.

    Rates are taken at thresholds for the best F1, chosen on as many resamples of validation.

    The result has AUROC, average precision and rates, ``(replicates, systems x 7)``.
    """
    evaluated = systems.evaluated
    resamples = Resamples(evaluated.n_patients, n_replicates, seed)
    chosen = {n: [replace(kept, policies=(_POLICY,))] for n, kept in systems.validation.items()}
    cuts = {name: each[_POLICY] for name, each in refit_choices(chosen, resamples).items()}
    ranked = {
        name: RankedScores(evaluated.y_true, scores, evaluated.patients)
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
    """Compute the figures of `image_figures` by a plain loop that calls scikit-learn."""
    from sklearn import metrics as peer

    evaluated = systems.evaluated
    validation = systems.validation
    resamples = Resamples(evaluated.n_patients, n_replicates, seed)
    owners, n_owners = cluster_index(next(iter(validation.values())).patients)
    anew = Resamples(n_owners, n_replicates, seed, stream=1)
    pairs = zip(*(np.concatenate(list(each.chunks())) for each in (resamples, anew)), strict=True)
    found = []
    for weights, of_owner in pairs:
        rows = np.repeat(np.arange(len(evaluated.y_true)), weights[evaluated.patients])
        drawn = np.repeat(np.arange(len(owners)), of_owner[owners])
        truth = evaluated.y_true[rows]
        columns = []
        for name, scores in systems.scores.items():
            score = scores.to_numpy()[rows]
            kept = validation[name]
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


def vectorised_figures(systems: Systems) -> dict[str, float]:
    """Compute AP50 and AP of the first detector by our program, from its table of boxes."""
    evaluated = systems.evaluated
    matches = match_pairs(pair_boxes(systems.boxes["A"], evaluated.true_boxes, evaluated.image_ids))
    once = np.ones((1, evaluated.n_patients), dtype=np.int16)
    (figures,) = WeightedAveragePrecision(matches, evaluated.patients, evaluated.n_patients)(once)
    return {"ap50": float(figures[0]), "ap": float(figures.mean())}


def _coco_classes(program: str) -> tuple[Any, Any]:
    if program == "faster-coco-eval":
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    from pycocotools.coco import COCO as Annotations  # noqa: N811  another class of that name
    from pycocotools.cocoeval import COCOeval

    return Annotations, COCOeval


def as_coco(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index, program: str
) -> tuple[Any, Any]:
    """Convert truth and predictions to the form of ``pycocotools`` or ``faster-coco-eval``."""
    coco = _coco_classes(program)[0]()
    images = [{"id": number + 1} for number in range(len(image_ids))]
    coco.dataset = {"images": images, "categories": [{"id": 1}]}
    made: list[Any] = []
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        for frame in (truth, boxes):
            corners = frame[EDGES].to_numpy()
            place = image_ids.get_indexer(pd.Index(frame["image_id"])) + 1
            score = frame.get("score", 1.0)
            ones = np.ones(len(frame))
            sides = corners[:, 2:] - corners[:, :2]
            made.append(
                coco.loadRes(np.column_stack([place, corners[:, :2], sides, score * ones, ones]))
            )
    return made[0], made[1]


def plain_figures(given: tuple[Any, Any], program: str) -> dict[str, float]:
    """Compute AP50 and AP by pycocotools or faster-coco-eval, as their documents describe it.

    `given` are the truth and predictions from `as_coco`. The keys are ``ap50`` and ``ap``.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        coco = _coco_classes(program)[1](*given, "bbox")
        coco.params.areaRng = coco.params.areaRng[:1]
        coco.params.areaRngLbl = ["all"]
        coco.params.maxDets = [100]
        coco.evaluate()
        coco.accumulate()
    precision = coco.eval["precision"][:, :, 0, 0, 0]
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}


BLOCKS = {"evaluation": (evaluation_rows, precision_rows)}
