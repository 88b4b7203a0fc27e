"""`cxr ensemble`: several systems as one, to be tuned and compared like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from data_prep.contracts.errors import InputError
from data_prep.work.object_store import recorded_path
from scripts import console
from scripts.options import DataFolder, read_numbers
from scripts.runner import AnyPath, Argument, verb

if TYPE_CHECKING:
    from pathlib import Path

    from data_prep.store.dataset import DataSet
    from data_prep.store.predictions import Predictions
    from evaluation.systems.ensemble import Joined

_PART_SIZE = 1024  # images in one file of a predictions folder, as `cxr predict` writes them


@verb
def ensemble(
    predictions: list[AnyPath],
    *,
    data: DataFolder,
    out: AnyPath,
    name: str | None = None,
    weights: Annotated[tuple[float, ...], Argument(read=read_numbers, metavar="N[,N...]")] = (),
    fusion: Literal["best", "wbf"] | None = None,
    iou: Annotated[float | None, Argument(least=0.0, most=1.0)] = None,
    gate: Literal["multiply"] | None = None,
) -> Predictions:
    """Join systems: detectors by fusion of their boxes, classifiers by mean probability.

    The result is a predictions folder that names its members, sums their cost and remembers every
    patient that any of them has seen. An image that failed in one member failed.

    Args:
        predictions: Predictions folders of folds, seeds or rivals.
        data: Data set that cxr prepare made.
        out: Predictions folder to make.
        name: Name of the system in the report; the members' if absent.
        weights: A weight per member, with commas; all 1 by default.
        fusion: How boxes join: each detector's best box of a lesion, the default, or all (WBF).
        iou: Boxes that overlap more belong together; 0.5, with wbf 0.55, if absent.
        gate: One detector and one classifier: its score multiplies those of the boxes.

    Returns:
        The predictions folder.

    Raises:
        InputError: The members do not fit each other or the options.

    Example:
        cxr ensemble out/fold0-predictions out/fold1-predictions --data out/data
        --out out/ensemble-predictions --name "RetinaNet x 2"
    """
    from data_prep.store.dataset import DataSet
    from data_prep.store.predictions import Predictions
    from evaluation.systems.ensemble import check_members, gate_boxes, sort_members

    dataset = DataSet.open(data)
    members = [Predictions.open(folder) for folder in predictions]
    check_members(members, dataset)
    facts: dict[str, Any] = {}
    if gate is None:
        joined = _join(members, dataset, list(weights) or None, fusion, iou)
    else:
        options = {"--weights": weights, "--fusion": fusion, "--iou": iou}
        if unused := [option for option, value in options.items() if value not in (None, ())]:
            raise InputError(f"ensemble: {unused[0]} is not for --gate; leave it out")
        joined, facts = gate_boxes(*sort_members(members)), {"gate": {"rule": gate}}
    _write(members, joined, out, name or _default_name(members, gate), facts)
    for note in joined.notes:
        console.say(note)
    return Predictions.open(out)


def _default_name(members: list[Predictions], gate: str | None) -> str:
    names = list(dict.fromkeys(member.name for member in members))
    if gate is not None:
        return f"{' + '.join(names)} (gate: {gate})"
    return f"{names[0]} x {len(members)}" if len(names) == 1 else " + ".join(names)


def _join(
    members: list[Predictions],
    dataset: DataSet,
    weights: list[float] | None,
    fusion: Literal["best", "wbf"] | None,
    iou: float | None,
) -> Joined:
    from evaluation.systems.ensemble import join_classifiers, join_detectors

    kinds = {member.kind for member in members}
    if len(kinds) > 1:
        raise InputError(
            "ensemble: some members give boxes and some scores; join a detector and a classifier "
            "with --gate multiply"
        )
    if kinds == {"boxes"}:
        how = fusion or "best"
        return join_detectors(members, dataset, weights=weights, fusion=how, iou_threshold=iou)
    return join_classifiers(members, weights=weights)


def _write(
    members: list[Predictions],
    joined: Joined,
    out: Path,
    name: str,
    facts: dict[str, Any],
) -> None:
    """Write the predictions folder."""
    from data_prep.contracts.folders import provenance
    from data_prep.contracts.tables import write_table
    from data_prep.store.predictions import PredictionWriter
    from evaluation.systems.eligibility import SEEN_FILE, training_sets
    from evaluation.systems.ensemble import findings_of, joined_cost, joined_id, joined_seen

    learned = dict.fromkeys(each for member in members for each in training_sets(member))
    seen, unknown = joined_seen(members)
    detectors = [member for member in members if member.kind == joined.kind]
    info: dict[str, Any] = {
        "system": name,
        "seed": None,
        "kind": joined.kind,
        "findings": sorted(findings_of(detectors[0])),
        "inference_id": joined_id(members, joined.settings),
        "data_set": members[0].info["data_set"],
        "cost": joined_cost(members, joined.made_of),
        "members": [
            {
                "system": member.name,
                "folder": recorded_path(member.folder),
                "inference_id": member.info.get("inference_id"),
                "cost": member.info.get("cost"),
            }
            for member in members
        ],
        "ensemble": joined.settings,
        "seen_unknown": unknown,
        "trained_on": [{"name": title, "content_id": digest} for title, digest in learned],
        **facts,
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
            writer.add(
                part,
                scores=of_part.get("scores"),
                boxes=of_part.get("boxes"),
                maps=of_part.get("maps"),
            )
        if seen is not None:
            write_table(seen, out / SEEN_FILE, "seen")
