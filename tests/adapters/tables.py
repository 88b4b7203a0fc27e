"""Readings of a comparison from labels, true boxes and systems, as plain values."""

from pathlib import Path

from cxr_compare import InputError
from cxr_compare.evaluation.boxes.other_readings import other_readings
from cxr_compare.scripts.commands.compare import GivenTables, _from_truth
from cxr_compare.scripts.compare_inputs import read_scales
from cxr_compare.scripts.given_systems import names_path, read_compared
from cxr_compare.scripts.options import read_roles
from cxr_compare.scripts.result_columns import split_column_roles

_EDGES = ["x1", "y1", "x2", "y2"]


def read(truth, systems, **options):
    """Everything that a comparison reads, or ("refused", the line).

    The options are those of `cxr_compare.compare`: boxes, patients, columns, scale, target, images,
    allow_shared_patients.
    """
    try:
        return _read(truth, systems, **options)
    except InputError as error:
        return "refused", str(error)


def _read(
    truth,
    systems,
    *,
    boxes=None,
    patients=None,
    columns=(),
    scale=None,
    target=None,
    images="all",
    allow_shared_patients=False,
):
    of_results, of_truth = split_column_roles(read_roles(columns))
    given = GivenTables(_table(truth), _table(boxes), _table(patients), of_truth, None)
    inputs, left_out = _from_truth(
        read_compared(systems),
        given,
        target,
        of_results,
        read_scales(scale or {}),
        None,
        allow_shared_patients=allow_shared_patients,
    )
    findings = {each.truth.finding: _plain(each, images) for each in inputs}
    if len(findings) == 1 and not left_out:
        ((finding, plain),) = findings.items()
        return {"finding": finding, **plain}
    return {"findings": findings, "left_out": sorted(left_out)}


def _table(value):
    return Path(value) if isinstance(value, str) and names_path(value) else value


def _plain(inputs, images):
    truth = inputs.truth
    owners = truth.images.set_index("image_id")
    unknown = owners["patient_id_source"] == "assumed_image"
    labels = truth.label.reindex(owners.index)
    selected = inputs.read(Path(), images=images).images
    return {
        "labels": {image: None if label != label else label for image, label in labels.items()},
        "roles": truth.roles.reindex(owners.index).to_dict(),
        "patients": {
            image: None if unknown[image] else patient.removeprefix(f"{truth.title}.csv:")
            for image, patient in owners["patient_id"].items()
        },
        "true_boxes": _rows(truth.true_boxes, _EDGES),
        "boxed": sorted(truth.boxes_trusted) if len(truth.true_boxes) else [],
        "evaluated": sorted(selected.test.image_ids),
        "systems": {
            name: _system(members[0].of_target(truth)) for name, members in inputs.systems.items()
        },
    }


def _system(system):
    if not system.gives_boxes:
        return {"scores": dict(zip(system.scores["image_id"], system.scores["score"], strict=True))}
    boxes = system.boxes if system.has_scores else system.boxes.assign(score=None)
    return {"boxes": _rows(boxes, [*_EDGES, "score"]), "run": sorted(system.images_run)}


def _rows(table, columns):
    rows = table[["image_id", *columns]].astype(object).to_numpy().tolist()
    return sorted(rows, key=str)


def doubts(boxes, true_boxes, sizes):
    """Texts on other readings by which far more predicted boxes match a true box."""
    return [f"{each.ap50:.2f} {each.text()}" for each in other_readings(boxes, true_boxes, sizes)]
