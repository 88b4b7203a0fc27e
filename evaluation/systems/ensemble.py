"""Several systems of one kind as one: boxes fused, probabilities averaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, Boxes, box_iou
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.schemas import ROLES
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import SEEN_FILE, Predictions
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE, MAX_BOXES
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.systems.eligibility import check_data_set, training_id, training_sets

_PART_SIZE = 1024  # images in one file of a predictions folder, as `cxr predict` writes them
_ROWS_AT_ONCE = 512  # such tables stay in the processor's cache
_KEYS = ["image_id", "finding"]
_GRID = ["method", "grid_h", "grid_w", *EDGES]
NAME = "fusion of best boxes"
OVERLAP = 0.5
"""IoU from which boxes are of one lesion: as non-maximum suppression and AP50 have it."""


@dataclass(frozen=True)
class _Joined:
    """A system made of others, in the terms of a predictions folder."""

    images: pd.DataFrame  # ``image_id``, ``status``, ``reason``
    tables: dict[str, pd.DataFrame]  # `boxes`, or `scores` and perhaps `maps`
    how: str  # in words
    settings: dict[str, Any]  # all that decides the result beside the members
    notes: list[str] = field(default_factory=list)


def join_systems(
    members: Sequence[Predictions],
    dataset: DataSet,
    out: Path,
    name: str | None = None,
    *,
    weights: Sequence[float] | None = None,
) -> list[str]:
    """Write the predictions folder of several systems as one; what to know about it.

    One that was begun is gone on with. Without a name it has one made of the members'; without
    weights each member weighs 1.

    Raises:
        InputError: The members do not fit each other, or the folder holds something else.
    """
    _check_members(members, dataset)
    kinds = {member.kind for member in members}
    if len(kinds) > 1:
        raise InputError("ensemble: some members give boxes and some scores; join those of a kind")
    _check_same_findings(members)
    weight = _checked_weights(weights, len(members))
    if kinds == {"boxes"}:
        joined = _join_detectors(members, dataset, weight)
    else:
        joined = _join_classifiers(members, weight)
    names = list(dict.fromkeys(member.name for member in members))
    own_name = f"{names[0]} x {len(members)}" if len(names) == 1 else " + ".join(names)
    _write(members, joined, out, name or own_name)
    return joined.notes


def _write(members: Sequence[Predictions], joined: _Joined, out: Path, name: str) -> None:
    """Write the predictions folder."""
    learned = dict.fromkeys(each for member in members for each in training_sets(member))
    seen, unknown = _joined_seen(members)
    info: dict[str, Any] = {
        "system": name,
        "seed": None,
        "kind": members[0].kind,
        "findings": sorted(_findings_of(members[0])),
        "inference_id": _joined_id(members, joined.settings),
        "data_set": members[0].info["data_set"],
        "cost": _joined_cost(members, f"{' + '.join(m.name for m in members)}: {joined.how}"),
        "members": [
            {
                "system": member.name,
                "folder": member.folder.name,
                "inference_id": member.info.get("inference_id"),
                "recipe": member.info.get("recipe"),
                "cost": member.info.get("cost"),
            }
            for member in members
        ],
        "ensemble": joined.settings,
        "seen_unknown": unknown,
        "trained_on": [{"name": title, "content_id": digest} for title, digest in learned],
        **provenance(),
    }
    with PredictionWriter(out, info) as writer:
        for start in range(0, len(joined.images), _PART_SIZE):
            part = joined.images.iloc[start : start + _PART_SIZE]
            if set(part["image_id"]) <= writer.done:
                continue  # an interrupted run goes on
            of_part = {
                table: rows[rows["image_id"].isin(part["image_id"])]
                for table, rows in joined.tables.items()
            }
            writer.add(part, **of_part)
        if seen is not None:
            write_table(seen, out / SEEN_FILE, "seen")


def _check_members(members: Sequence[Predictions], dataset: DataSet) -> None:
    """Refuse fewer than two members, a repeated one, other data sets and different images."""
    if len(members) < 2:
        raise InputError("ensemble: needs at least two predictions folders")
    first = members[0]
    known: dict[Any, Predictions] = {}
    for member in members:
        check_data_set(member.name, member, dataset)
        training = training_id(member.info)
        if training in known:
            raise InputError(
                f"{member.folder}: says the same as {known[training].folder} (inference_id "
                f"{training}); give each member once"
            )
        known[training] = member
        lacking = set(first.images["image_id"]) ^ set(member.images["image_id"])
        if lacking:
            raise InputError(
                f"{member.folder}: was run on other images than {first.folder} "
                f"({len(lacking)} differ, first '{min(lacking)}'); predict both on one split"
            )


def _findings_of(member: Predictions) -> set[str]:
    """The findings that a system predicts."""
    named = member.info.get("findings")
    if named:
        return set(named)
    rows = member.boxes if member.kind == "boxes" else member.scores
    return set(rows["finding"])


def _check_same_findings(members: Sequence[Predictions]) -> None:
    """Refuse members that predict different findings."""
    first = _findings_of(members[0])
    for member in members[1:]:
        found = _findings_of(member)
        if found == first:
            continue
        shared = sorted(found & first)
        advice = f"; 'cxr predict --finding {shared[0]}' leaves out the others" if shared else ""
        raise InputError(
            f"{member.folder}: predicts {', '.join(sorted(found))}, {members[0].folder} "
            f"{', '.join(sorted(first))}; join systems of the same findings{advice}"
        )


def _join_images(members: Sequence[Predictions]) -> pd.DataFrame:
    """Every image; one that failed in any member failed, with the member's reason."""
    index = pd.Index(members[0].images["image_id"].sort_values())
    reasons = pd.Series("", index=index, dtype=object)
    for member in members:
        table = member.images.set_index("image_id").reindex(index)
        failed = (table["status"] != "ok").to_numpy()
        message = member.name + ": " + table.loc[failed, "reason"].fillna("failed").astype(str)
        before = reasons[failed]
        reasons[failed] = before.where(before == "", before + "; ") + message
    return pd.DataFrame(
        {
            "image_id": index.to_numpy(),
            "status": np.where(reasons == "", "ok", "failed"),
            "reason": reasons.where(reasons != "", None).to_numpy(),
        }
    )


def _join_detectors(
    members: Sequence[Predictions], dataset: DataSet, weights: list[float]
) -> _Joined:
    """Fuse the stored boxes of detectors of the same findings, image by image and class-wise."""
    images = _join_images(members)
    parts = [member.boxes.assign(model=number) for number, member in enumerate(members)]
    boxes = pd.concat(parts, ignore_index=True)
    boxes = boxes[_of_images_that_ran(boxes, images)]
    labels, names, findings = _label_boxes(boxes)
    stored, models = Boxes.from_table(boxes, labels), boxes["model"].to_numpy()
    fused = best_box_fusion(stored, models=models, weights=weights)
    # Sorted by label and falling score: the place within the label is the rank.
    rank = np.arange(len(fused)) - np.searchsorted(fused.labels, fused.labels, side="left")
    kept = fused[(rank < MAX_BOXES) & (fused.scores >= LEAST_SCORE)]
    table = _named_boxes(kept, names, findings, dataset.images)
    settings = {"method": "best", "iou": OVERLAP, "weights": weights}
    return _Joined(images, {"boxes": table}, f"{NAME} at IoU {OVERLAP:g}", settings)


def _join_classifiers(members: Sequence[Predictions], weights: list[float]) -> _Joined:
    """Average the probabilities of classifiers, and their maps where all have alike ones.

    An InputError where a member has no score for an image that it ran on.
    """
    images, share = _join_images(members), np.array(weights) / sum(weights)
    tables = [_rows_that_ran(member.scores, images, _KEYS) for member in members]
    for member, table in zip(members, tables, strict=True):
        if not table[_KEYS].equals(tables[0][_KEYS]):
            raise InputError(
                f"{member.folder}: has scores for other images or findings than "
                f"{members[0].folder}; predict both again"
            )
    each = np.stack([table["score"].to_numpy(np.float64) for table in tables])
    joined = {"scores": tables[0][_KEYS].assign(score=np.clip(share @ each, 0.0, 1.0))}
    notes = []
    maps = _mean_maps(members, images, share)
    if maps is not None:
        joined["maps"] = maps
    elif any(len(member.maps) for member in members):
        notes.append("Activation maps left out: the members' maps are not of one kind and grid.")
    settings = {"method": "mean", "weights": weights}
    return _Joined(images, joined, "mean probability", settings, notes)


def _label_boxes(boxes: pd.DataFrame) -> tuple[Integers, pd.Index, pd.Index]:
    """Number the image and finding of each box: only boxes of one number can meet."""
    image, images = pd.factorize(boxes["image_id"], sort=True)
    finding, findings = pd.factorize(boxes["finding"], sort=True)
    return image * max(len(findings), 1) + finding, pd.Index(images), pd.Index(findings)


def _named_boxes(
    boxes: Boxes, images: pd.Index, findings: pd.Index, sizes: pd.DataFrame
) -> pd.DataFrame:
    """Boxes numbered by `_label_boxes` as a table, clipped to their images' `sizes` where known."""
    image, finding = np.divmod(boxes.labels, max(len(findings), 1))
    table = sizes.set_index("image_id")[["width", "height"]].reindex(images)
    limits = table.astype("Float64").to_numpy(dtype=np.float64, na_value=np.inf)[image]
    clipped = replace(boxes, corners=np.clip(boxes.corners, 0.0, np.hstack([limits, limits])))
    return clipped.to_table(images[image], findings[finding])


def _mean_maps(
    members: Sequence[Predictions], images: pd.DataFrame, share: np.ndarray
) -> pd.DataFrame | None:
    """The weighted mean of raw maps; `None` where they differ in kind, grid or frame."""
    keys = [*_KEYS, *_GRID]
    tables = [_rows_that_ran(member.maps, images, keys) for member in members]
    if tables[0].empty or any(not t[keys].equals(tables[0][keys]) for t in tables):
        return None
    values = [
        list(share @ np.stack([np.asarray(row, dtype=np.float64) for row in rows]))
        for rows in zip(*(table["values"] for table in tables), strict=True)
    ]
    return tables[0].assign(values=pd.Series(values, dtype=object))


def _rows_that_ran(rows: pd.DataFrame, images: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return rows[_of_images_that_ran(rows, images)].sort_values(keys).reset_index(drop=True)


def _of_images_that_ran(rows: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Which rows are of images that ran in every member."""
    return is_member(rows["image_id"], images.loc[images["status"] == "ok", "image_id"])


_WEIGHT_RANGE = (1e-6, 1e6)  # so that sums and shares of weights are exact enough


def _checked_weights(weights: Sequence[float] | None, n_members: int) -> list[float]:
    chosen = [1.0] * n_members if weights is None else [float(weight) for weight in weights]
    low, high = _WEIGHT_RANGE
    if len(chosen) != n_members or not all(low <= weight <= high for weight in chosen):
        raise InputError(
            f"--weights: {n_members} members need {n_members} numbers from {low:g} to {high:g}, "
            "one each"
        )
    return chosen


_SUMMED = (
    "parameters", "trainable_parameters", "flops", "size_bytes", "train_seconds", "latency_ms",
)  # fmt: skip
_GREATEST = ("train_peak_memory_bytes", "peak_memory_bytes")
_SAME_FOR_ALL = ("latency_device", "train_device", "precision", "image_size", "batch_size")


def _joined_cost(members: Sequence[Predictions], made_of: str) -> dict[str, Any]:
    """The members' cost, one after the other; unknown where one is, or where devices differ.

    Memory is that of the member that needs most: one after the other, each gives its back.
    """
    costs = [dict(member.info.get("cost") or {}) for member in members]
    total: dict[str, Any] = {"made_of": made_of}
    for key in (*_SUMMED, *_GREATEST):
        values = [cost.get(key) for cost in costs]
        known = [value for value in values if value is not None]
        whole = max(known, default=None) if key in _GREATEST else sum(known)
        total[key] = whole if len(known) == len(values) else None
    for key in _SAME_FOR_ALL:
        values = [cost.get(key) for cost in costs]
        total[key] = values[0] if all(value == values[0] for value in values) else None
    if total["latency_device"] is None or len({cost.get("precision") for cost in costs}) > 1:
        total["latency_ms"] = None
    if total["train_device"] is None:
        total["train_seconds"] = None
    return total


def _joined_seen(members: Sequence[Predictions]) -> tuple[pd.DataFrame | None, list[str]]:
    """Every image that any member learned from, and the members of which that is unknown.

    Of several roles of an image the one that taught most counts; `None` where nothing is known.
    """
    parts, unknown = [], []
    for member in members:
        unknown += [*member.info.get("seen_unknown", [])]
        seen = member.seen
        if seen is not None:
            parts.append(seen)
        elif not member.info.get("seen_unknown"):
            unknown.append(member.name)
    if not parts:
        return None, unknown
    every = pd.concat(parts, ignore_index=True)
    order = every["role"].map({role: rank for rank, role in enumerate(ROLES)})
    every = every.iloc[np.argsort(order.to_numpy(), kind="stable")]
    return every.drop_duplicates("image_id").sort_values("image_id").reset_index(drop=True), unknown


def _joined_id(members: Sequence[Predictions], settings: dict[str, Any]) -> str:
    """Digest of all that decides the result: the members, in order, and the settings."""
    ids = [member.info.get("inference_id") for member in members]
    text = json.dumps([ids, settings], sort_keys=True, default=str)
    return "ensemble-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _box_tables(boxes: Boxes) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of the boxes of each label, most confident first, -1 beyond: shape ``(R, K)``."""
    labels = boxes.labels
    order = np.lexsort((-boxes.scores, labels))
    if not len(order):
        return
    edge = np.flatnonzero(np.diff(labels[order], prepend=labels[order[0]] - 1))
    counts = np.diff(np.append(edge, len(order)))
    by_size = np.argsort(counts, kind="stable")  # labels of like size share a table
    for start in range(0, len(by_size), _ROWS_AT_ONCE):
        rows = by_size[start : start + _ROWS_AT_ONCE]
        slot = np.arange(counts[rows].max())
        there = slot < counts[rows, None]
        yield np.where(there, order[np.where(there, edge[rows, None] + slot, 0)], -1)


def _by_label(parts: Sequence[Boxes], like: Boxes) -> Boxes:
    """All parts together, by label and falling score; without any, none."""
    parts = [like[:0], *parts]
    names = ("corners", "scores", "labels")
    fused = Boxes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    return fused[np.lexsort((-fused.scores, fused.labels))]


def best_box_fusion(
    boxes: Boxes, *, models: Integers, weights: Sequence[float], iou_threshold: float = OVERLAP
) -> Boxes:
    """Let the most confident box gather each model's best box that overlaps it; drop the others.

    It is non-maximum suppression across models, whose winner is not kept as it is but becomes the
    mean of its own and each other model's best box there, weighted by score and model. Its score
    is the mean over all models, those without a box there counting 0.

    Weighted box fusion takes the mean over every box of a cluster, so a model's faint duplicates
    (stored boxes are suppressed at IoU 0.6 only) pull the score down (RSNA: AP50 0.371, not 0.425).

    Only boxes of one label are fused; `models` has the model of each box as an index from 0. By
    label and falling score.

    Example:
        >>> corners = np.array([[0.0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 3.5]])
        >>> boxes = Boxes(corners, np.array([0.9, 0.3, 0.2]), np.zeros(3, int))
        >>> fused = best_box_fusion(boxes, models=np.array([0, 1, 1]), weights=[1, 1])
        >>> fused.corners.round(3).tolist(), fused.scores.round(3).tolist()
        ([[0.0, 0.0, 4.0, 3.75]], [0.6])
    """
    weight = np.asarray(weights, dtype=np.float64)
    weighed = replace(boxes, scores=boxes.scores * weight[models])
    fused = []
    for table in _box_tables(weighed):
        for rows, sides, total in _gather(weighed, models, table, len(weight), iou_threshold):
            labels = boxes.labels[table[rows, 0]]
            fused.append(Boxes(sides.T, total / weight.sum(), labels))
    return _by_label(fused, boxes)


def _gather(
    boxes: Boxes, models: Integers, table: Integers, n_models: int, iou_threshold: float
) -> list[tuple[npt.NDArray[np.int64], Floats, Floats]]:
    """For each slot: the rows whose box there leads, fused sides ``(4, R)``, summed scores."""
    alive = table >= 0
    sides = np.ascontiguousarray(np.moveaxis(boxes.corners[table], -1, 0))  # (4, R, K)
    score = np.where(alive, np.maximum(boxes.scores[table], np.finfo(float).tiny), 0.0)
    model = np.where(alive, models[table], -1)
    fused = []
    for slot in range(table.shape[1]):
        rows = np.flatnonzero(alive[:, slot])
        if not len(rows):
            continue
        rest = sides[:, rows, slot:]
        overlap = box_iou(*(np.moveaxis(each, 0, -1) for each in (rest[..., :1], rest)))
        near = alive[rows, slot:] & (overlap > iou_threshold)
        near[:, 0] = True  # itself, though it may be without an area
        total, summed = np.zeros(len(rows)), np.zeros((4, len(rows)))
        for number in range(n_models):
            own = near & (model[rows, slot:] == number)
            first = own.argmax(axis=1)  # the most confident, if there is one
            value = np.where(own.any(axis=1), score[rows, slot + first], 0.0)
            total += value
            summed += value * rest[:, np.arange(len(rows)), first]
        fused.append((rows, summed / total, total))
        alive[rows, slot:] &= ~near
    return fused
