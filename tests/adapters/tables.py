"""Readings of a comparison from labels, true boxes and systems, as plain values."""

from pathlib import Path

from cxr_compare import InputError
from cxr_compare.evaluation.boxes.other_readings import other_readings
from cxr_compare.scripts import comparison
from cxr_compare.scripts.compared_systems import Systems, read_systems, split_roles
from cxr_compare.scripts.options import roles_of

_EDGES = ["x1", "y1", "x2", "y2"]


def read(truth, systems, **options):
    """Everything that a comparison reads, or ("refused", the line).

    The options are those of `cxr_compare.compare`: boxes, patients, columns, target, images,
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
    target=(),
    images="all",
    allow_shared_patients=False,
):
    of_truth, of_results = split_roles(roles_of(columns))
    named = read_systems([systems])
    questions = comparison.read_questions(
        None, truth, boxes=boxes, patients=patients, columns=of_truth, target=_list(target)
    )
    comparison._refuse_shared_patients(questions[0].truth, allowed=allow_shared_patients)
    several = len(questions) > 1
    compared = Systems(named, of_results, Path(), several=several)
    findings, left_out = {}, []
    for question in questions:
        if several and compared.reason_to_leave_out(question):
            left_out.append(question.truth.finding)
        else:
            findings[question.truth.finding] = _plain(compared, question, images)
    if not several:
        ((finding, plain),) = findings.items()
        return {"finding": finding, **plain}
    if not findings:
        raise InputError(f"no finding can be compared: {left_out}")
    return {"findings": findings, "left_out": sorted(left_out)}


def _list(value):
    return [value] if isinstance(value, str) else list(value)


def _plain(compared, question, images):
    truth = question.truth
    owners = truth.images.set_index("image_id")
    unknown = owners["patient_id_source"] == "assumed_image"
    labels = truth.label.reindex(owners.index)
    eligible = compared.eligible(question, images)
    return {
        "labels": {image: None if label != label else label for image, label in labels.items()},
        "roles": truth.roles.reindex(owners.index).to_dict(),
        "patients": {
            image: None if unknown[image] else patient.removeprefix(f"{truth.title}.csv:")
            for image, patient in owners["patient_id"].items()
        },
        "true_boxes": _rows(truth.true_boxes, _EDGES),
        "boxed": sorted(truth.boxes_trusted) if len(truth.true_boxes) else [],
        "evaluated": sorted(eligible.images.test.image_ids),
        "systems": {name: _system(of_name[name]) for name, of_name in eligible.named.items()},
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
