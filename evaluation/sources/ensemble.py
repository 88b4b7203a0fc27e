"""Ensembles: several systems become one, with boxes fused, scores averaged, or both joined."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.schemas import ROLES
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MemberInfo, PredictionsInfo, TrainingSet
from cxr_compare.data_prep.store.prediction_writer import Part, PredictionWriter
from cxr_compare.data_prep.store.predictions import SEEN_FILE, Predictions
from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE, MAX_BOXES
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.sources.box_fusion import NAME, OVERLAP, BoxGroups, best_box_fusion
from cxr_compare.evaluation.sources.eligibility import check_data_set, training_sets
from cxr_compare.evaluation.sources.joint import JointRule, fit_joint
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import training_id
from cxr_compare.evaluation.statistics.joint_score import METHOD

_PART_SIZE = 1024  # images in one file of a predictions folder, as `cxr predict` writes them
_KEYS = ["image_id", "finding"]
_GRID = ["method", "grid_h", "grid_w", *EDGES]
_MAPS_LEFT_OUT = "Activation maps left out: the members' maps are not of one kind and grid."


@dataclass(frozen=True)
class JoinedOutput:
    """The output of an ensemble, as the tables of a predictions folder."""

    images: pd.DataFrame  # ``image_id``, ``status``, ``reason``
    tables: dict[str, pd.DataFrame]  # `boxes`, or `scores` and maybe `maps`, or all three
    method: str  # phrase for readers of the report
    settings: dict[str, Any]  # all that decides the result except for the members
    notes: list[str] = field(default_factory=list)
    fitted_on: pd.Index | None = None  # images that the weights learned on

    @property
    def kind(self) -> Literal["boxes", "scores", "both"]:
        """Kind of the ensemble, as `Predictions.kind`."""
        if "boxes" in self.tables and "scores" in self.tables:
            return "both"
        return "boxes" if "boxes" in self.tables else "scores"


def join_systems(
    members: Sequence[Predictions],
    dataset: DataSet,
    out: Path | None = None,
    name: str | None = None,
    split: str = "default",
) -> Predictions:
    """Return the predictions of an ensemble: several detectors, several classifiers, or of both.

    Boxes of detectors that overlap are fused to mean boxes (`best_box_fusion`). Probabilities of
    classifiers, and activation maps if all have the same grid, are averaged. Detectors and
    classifiers together become a joint system, see `join_both`, which is fitted on the validation
    images of `split`. `out` and `name` are as in `joined_predictions`.

    An InputError is raised if there are fewer than two members, a member is given twice, members
    differ in findings, images or data set, the validation images do not suffice to fit a joint
    system, or the folder holds something else than an interrupted start of the same ensemble.
    """
    for member in members:
        check_data_set(member.name, member, dataset)
    joined = join(members, lambda: truths_of_findings(members, dataset, split), dataset.images)
    return joined_predictions(members, joined, name, out, dataset)


def join(
    members: Sequence[Predictions],
    truths: Callable[[], Mapping[str, LabelledImages]],
    sizes: pd.DataFrame,
) -> JoinedOutput:
    """Join several detectors, several classifiers, or both; errors are those of `join_systems`.

    `truths` returns labels, roles and true boxes of the images by finding; it is called for a joint
    system of detectors and classifiers only. `sizes` has ``image_id``, ``width`` and ``height`` of
    the images (px).
    """
    if {member.kind for member in members} not in ({"boxes"}, {"scores"}):
        return join_both(members, truths(), sizes)
    check_members(members)
    _check_same_findings(members)
    if members[0].kind == "boxes":
        return _join_detectors(members, sizes)
    return _join_classifiers(members)


def shared_findings(members: Sequence[Predictions]) -> list[str]:
    """Return the findings that all members predict, sorted."""
    return sorted(set.intersection(*map(_findings_of, members)))


def truths_of_findings(
    members: Sequence[Predictions],
    dataset: DataSet,
    split: str,
    findings: Sequence[str] | None = None,
) -> dict[str, LabelledImages]:
    """Return the ground truth of each finding on which members are joined.

    Without `findings`, it is those that all members predict. An InputError is raised if a member
    does not predict one of the findings, or no finding is shared.
    """
    shared = shared_findings(members)
    findings = shared if findings is None else findings
    if not findings or not set(shared).issuperset(findings):
        _check_same_findings(members)
    return {
        finding: LabelledSplit(dataset, Target(finding, (finding,), finding), split).truth
        for finding in findings
    }


def join_both(
    members: Sequence[Predictions],
    truths: Mapping[str, LabelledImages],
    sizes: pd.DataFrame,
    *,
    boxes_by: str = BOXES_BY,
) -> JoinedOutput:
    """Join detectors and classifiers: one image score by logistic regression gates the boxes.

    The regression is fitted on the logits of the members' image scores of the validation images.
    The validation images themselves get scores whose weights were fitted on other patients, so that
    a threshold can be chosen on them; all other images get those of the fit on all of them. The
    gate is that with the highest figure `boxes_by` on validation.

    The result has scores, the boxes of the detector (fused if there are several) and the maps of
    the classifier. An InputError is raised if the members do not fit each other, or the validation
    images do not suffice.
    """
    roles = next(iter(truths.values())).roles
    check_members(members, evaluated=roles.index[roles.isin(["val", "test"])])
    images = _join_images(members)
    ran = pd.Index(images.loc[images["status"] == "ok", "image_id"], name="image_id")
    boxes = _boxes_of_detectors(members, sizes)
    fitted = fit_joint(members, truths, ran, boxes, boxes_by)
    tables = fitted.rule.apply(members, ran, boxes, fitted.held_out)
    maps = _maps_of_classifiers(members, images, list(truths))
    if maps is not None:
        tables["maps"] = maps
    left_out = maps is None and any(len(member.maps) for member in members)
    notes = [_MAPS_LEFT_OUT] if left_out else []
    return JoinedOutput(images, tables, METHOD, fitted.rule.to_json(), notes, fitted.fitted_on)


def joined_output(
    members: Sequence[Predictions], rule: JointRule, sizes: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Apply a fitted rule to the members' output on new images.

    The members are in the order in which the weights were fitted; `sizes` is that of `join`. The
    status of the images is returned with the tables of a predictions folder.
    """
    images = _join_images(members)
    ran = pd.Index(images.loc[images["status"] == "ok", "image_id"], name="image_id")
    tables = rule.apply(members, ran, _boxes_of_detectors(members, sizes))
    maps = _maps_of_classifiers(members, images, list(rule.findings))
    return images, tables if maps is None else {**tables, "maps": maps}


def _maps_of_classifiers(
    members: Sequence[Predictions], images: pd.DataFrame, findings: Sequence[str]
) -> pd.DataFrame | None:
    """Return the mean map of those members that give maps; None without or if they differ."""
    with_maps = [member for member in members if len(member.maps)]
    if not with_maps:
        return None
    maps = _mean_maps(with_maps, images)
    return None if maps is None else maps[maps["finding"].isin(findings)]


def _boxes_of_detectors(members: Sequence[Predictions], sizes: pd.DataFrame) -> pd.DataFrame | None:
    """Return the boxes of the only detector, or the fused boxes of several; None without one."""
    detectors = [member for member in members if member.kind != "scores"]
    if len(detectors) > 1:
        return _join_detectors(detectors, sizes).tables["boxes"]
    if not detectors:
        return None
    boxes = detectors[0].boxes
    return boxes[_is_of_successful_image(boxes, _join_images(members))].reset_index(drop=True)


def joined_predictions(
    members: Sequence[Predictions],
    joined: JoinedOutput,
    name: str | None = None,
    out: Path | None = None,
    dataset: DataSet | None = None,
) -> Predictions:
    """Return the predictions of an ensemble, which are kept in memory or written to a folder.

    The name None joins the names of the members, as in ``A + B``, or counts members of equal names,
    as in ``A x 3``. The folder `out` gets the format of the predictions of a single model; if
    writing was interrupted, the next call goes on where it stopped. Without `dataset`, it does not
    list the images on which the weights were fitted.
    """
    info = _info(members, joined, name)
    if out is None:
        return Predictions.from_part(info, Part(joined.images, joined.tables))
    fitted_on = None
    if joined.fitted_on is not None and dataset is not None:
        fitted_on = dataset.identities(joined.fitted_on).assign(role="val")
    seen, unknown = _joined_seen(members, fitted_on)
    with PredictionWriter(out, info.with_values(seen_unknown=unknown)) as writer:
        for start in range(0, len(joined.images), _PART_SIZE):
            part = joined.images.iloc[start : start + _PART_SIZE]
            if set(part["image_id"]) <= writer.done:
                continue  # this part was written before an interruption
            part_tables = {
                table: rows[rows["image_id"].isin(part["image_id"])]
                for table, rows in joined.tables.items()
            }
            writer.add(part, **part_tables)
        if seen is not None:
            writer.files[SEEN_FILE] = write_table(seen, out / SEEN_FILE, "seen")
    return Predictions.open(out)


def _info(
    members: Sequence[Predictions], joined: JoinedOutput, name: str | None
) -> PredictionsInfo:
    """Return the record of an ensemble: its members, its cost and all that decides the result."""
    names = list(dict.fromkeys(member.name for member in members))
    default_name = f"{names[0]} x {len(members)}" if len(names) == 1 else " + ".join(names)
    data_sets = dict.fromkeys(entry for member in members for entry in training_sets(member))
    member_names = " + ".join(member.name for member in members)
    findings = joined.settings.get("findings", _findings_of(members[0]))
    costs = [dict(member.info.cost or {}) for member in members]
    member_infos = [
        MemberInfo(
            system=member.name,
            folder=member.folder.name,
            inference_id=member.info.inference_id,
            recipe=member.info.recipe,
            cost=member.info.cost,
        )
        for member in members
    ]
    return PredictionsInfo(
        system=name or default_name,
        seed=None,
        kind=joined.kind,
        findings=tuple(sorted(findings)),
        inference_id=joined_id(members, joined.settings),
        data_set=members[0].info.data_set,
        cost=joined_cost(costs, f"{member_names}: {joined.method}"),
        members=tuple(member_infos),
        ensemble=joined.settings,
        notes=tuple(joined.notes),
        trained_on=tuple(TrainingSet(name=title, content_id=digest) for title, digest in data_sets),
        **provenance(),
    )


def check_members(members: Sequence[Predictions], evaluated: pd.Index | None = None) -> None:
    """Refuse fewer than two members, repeated members, logits and different images.

    Members may differ in images that are not among the evaluated ones, if these are given.
    """
    if len(members) < 2:
        raise InputError("ensemble: needs at least two predictions folders")
    first = members[0]
    member_by_training: dict[Any, Predictions] = {}
    for member in members:
        low, high = member.score_range or (0.0, 1.0)
        if low < 0 or high > 1:
            raise InputError(
                f"{member.folder}: the scores of {member.name} lie between {low:g} and {high:g}, "
                "and probabilities are joined; import them in [0, 1] (of a logit 1 / (1 + "
                "exp(-score)))"
            )
        training = training_id(member.info)
        if training in member_by_training:
            other = member_by_training[training]
            raise InputError(
                f"{member.folder}: says the same as {other.folder} (inference_id "
                f"{training}); give each member once"
            )
        member_by_training[training] = member
        differing = set(first.images["image_id"]) ^ set(member.images["image_id"])
        if evaluated is not None:
            differing &= set(evaluated)
        if differing:
            raise InputError(
                f"{member.folder}: was run on other images than {first.folder} "
                f"({len(differing)} differ, first '{min(differing)}'); predict or import both for "
                "one split"
            )


def _findings_of(member: Predictions) -> set[str]:
    """Return the findings that a system predicts."""
    named = member.info.findings
    if named:
        return set(named)
    rows = member.boxes if member.kind == "boxes" else member.scores
    return set(rows["finding"])


def _check_same_findings(members: Sequence[Predictions]) -> None:
    """Refuse members that predict different findings."""
    first = _findings_of(members[0])
    for member in members[1:]:
        findings = _findings_of(member)
        if findings == first:
            continue
        raise InputError(
            f"{member.folder}: predicts {', '.join(sorted(findings))}, {members[0].folder} "
            f"{', '.join(sorted(first))}; join systems of the same findings"
        )


def _join_images(members: Sequence[Predictions]) -> pd.DataFrame:
    """Join the images that all members list; one that failed in any member counts as failed."""
    index = pd.Index(members[0].images["image_id"].sort_values())
    for member in members[1:]:
        index = index[is_member(index, member.images["image_id"])]
    reasons: dict[str, list[str]] = {}
    for member in members:
        failed = member.images[member.images["status"] != "ok"]
        for image_id, reason in zip(failed["image_id"], failed["reason"], strict=True):
            text = "failed" if pd.isna(reason) else reason
            reasons.setdefault(image_id, []).append(f"{member.name}: {text}")
    return pd.DataFrame(
        {
            "image_id": index.to_numpy(),
            "status": ["failed" if image_id in reasons else "ok" for image_id in index],
            "reason": pd.Series(
                ["; ".join(reasons[i]) if i in reasons else None for i in index], dtype=object
            ),
        }
    )


def _join_detectors(members: Sequence[Predictions], sizes: pd.DataFrame) -> JoinedOutput:
    """Fuse the stored boxes of detectors, separately for each image and finding."""
    images = _join_images(members)
    parts = [member.boxes.assign(model=number) for number, member in enumerate(members)]
    table = pd.concat(parts, ignore_index=True)
    table = table[_is_of_successful_image(table, images)]
    groups = BoxGroups.from_table(table)
    boxes = Boxes.from_table(table, groups.labels)
    fused = best_box_fusion(boxes, models=table["model"].to_numpy(), n_models=len(members))
    # The boxes are in order of label and falling score, so the position within the label is the
    # rank.
    rank = np.arange(len(fused)) - np.searchsorted(fused.labels, fused.labels, side="left")
    kept = fused[(rank < MAX_BOXES) & (fused.scores >= LEAST_SCORE)]
    settings = {"method": "best", "iou": OVERLAP}
    return JoinedOutput(
        images,
        {"boxes": groups.to_table(kept, sizes)},
        f"{NAME} at IoU {OVERLAP:g}",
        settings,
    )


def _join_classifiers(members: Sequence[Predictions]) -> JoinedOutput:
    """Average the probabilities of classifiers, and their maps if all maps are of one kind.

    A member that lacks a score for an image that it ran on is refused.
    """
    images = _join_images(members)
    tables = [_rows_that_ran(member.scores, images, _KEYS) for member in members]
    for member, table in zip(members, tables, strict=True):
        if not table[_KEYS].equals(tables[0][_KEYS]):
            raise InputError(
                f"{member.folder}: has scores for other images or findings than "
                f"{members[0].folder}; predict both again"
            )
    scores = np.stack([table["score"].to_numpy(np.float64) for table in tables])  # (M, N)
    joined = {"scores": tables[0][_KEYS].assign(score=scores.mean(axis=0))}
    notes = []
    maps = _mean_maps(members, images)
    if maps is not None:
        joined["maps"] = maps
    elif any(len(member.maps) for member in members):
        notes.append(_MAPS_LEFT_OUT)
    settings = {"method": "mean"}
    return JoinedOutput(images, joined, "mean probability", settings, notes)


def _mean_maps(members: Sequence[Predictions], images: pd.DataFrame) -> pd.DataFrame | None:
    """Compute the mean of raw maps; None if the maps differ in kind, grid or frame."""
    keys = [*_KEYS, *_GRID]
    tables = [_rows_that_ran(member.maps, images, keys) for member in members]
    if tables[0].empty or any(not table[keys].equals(tables[0][keys]) for table in tables):
        return None
    values = [
        list(np.mean([np.asarray(row, dtype=np.float64) for row in rows], axis=0))
        for rows in zip(*(table["values"] for table in tables), strict=True)
    ]
    return tables[0].assign(values=pd.Series(values, dtype=object))


def _rows_that_ran(rows: pd.DataFrame, images: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return rows[_is_of_successful_image(rows, images)].sort_values(keys).reset_index(drop=True)


def _is_of_successful_image(rows: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Return True for the rows of images that ran in every member, shape ``(N,)``."""
    return is_member(rows["image_id"], images.loc[images["status"] == "ok", "image_id"])


_SUMMED = (
    "parameters",
    "trainable_parameters",
    "flops",
    "size_bytes",
    "train_seconds",
    "latency_ms",
)
_GREATEST = ("peak_memory_bytes",)
_SAME_FOR_ALL = ("latency_device", "train_device", "precision", "image_size", "batch_size")


def joined_cost(costs: Sequence[Mapping[str, Any]], made_of: str) -> dict[str, Any]:
    """Compute the cost of running the members one after the other; unknown values are None.

    The memory is the largest of all members. Times on different devices are not added.
    """
    total: dict[str, Any] = {"made_of": made_of}
    for key in (*_SUMMED, *_GREATEST):
        values = [cost.get(key) for cost in costs]
        stated = [value for value in values if value is not None]
        whole = max(stated, default=None) if key in _GREATEST else sum(stated)
        total[key] = whole if len(stated) == len(values) else None
    for key in _SAME_FOR_ALL:
        values = [cost.get(key) for cost in costs]
        total[key] = values[0] if all(value == values[0] for value in values) else None
    if total["latency_device"] is None or len({cost.get("precision") for cost in costs}) > 1:
        total["latency_ms"] = None
    if total["train_device"] is None:
        total["train_seconds"] = None
    return total


def _joined_seen(
    members: Sequence[Predictions], fitted_on: pd.DataFrame | None
) -> tuple[pd.DataFrame | None, list[str]]:
    """Join the images that members were trained on, and the names of members without such a list.

    The images on which an ensemble fitted its weights count as validation images. If an image has
    several roles, the strongest counts (train before val). The table is None if no member has a
    list.
    """
    parts: list[pd.DataFrame] = [] if fitted_on is None else [fitted_on]
    unknown: list[str] = []
    for member in members:
        unknown += member.info.seen_unknown
        seen = member.seen
        if seen is not None:
            parts.append(seen)
        elif not member.info.seen_unknown:
            unknown.append(member.name)
    if not parts:
        return None, unknown
    seen_images = pd.concat(parts, ignore_index=True)
    order = seen_images["role"].map({role: rank for rank, role in enumerate(ROLES)})
    seen_images = seen_images.iloc[np.argsort(order.to_numpy(), kind="stable")]
    seen_images = seen_images.drop_duplicates("image_id").sort_values("image_id")
    return seen_images.reset_index(drop=True), unknown


def joined_id(members: Sequence[Predictions], settings: dict[str, Any]) -> str:
    """Return a digest of everything that decides the result: the members in order, and settings."""
    ids = [member.info.inference_id for member in members]
    text = json.dumps([ids, settings], sort_keys=True, default=str)
    return "ensemble-" + hashlib.sha256(text.encode()).hexdigest()[:16]
