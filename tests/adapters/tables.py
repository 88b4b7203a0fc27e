"""Readings of a comparison from labels, true boxes and systems, as plain values."""

import re
from pathlib import Path

from cxr_compare import InputError
from cxr_compare.commands.compared_systems import Systems, read_systems, split_roles
from cxr_compare.commands.options import roles_of
from cxr_compare.commands.questions import read_questions
from cxr_compare.data_prep.base.errors import on_command_line
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.compare import common_images
from cxr_compare.evaluation.inputs.read_truth import read_truth
from cxr_compare.evaluation.verdict.box_checks import other_reading_notes
from tests.adapters.sources import said

_EDGES = ["x1", "y1", "x2", "y2"]


def read(truth, systems, **options):
    """Everything that a comparison reads, or ("refused", the line).

    The options are those of `cxr_compare.compare`: boxes, patients, columns, target, images,
    allow_shared_patients.
    """
    try:
        with on_command_line():
            return _read(truth, systems, **options)
    except InputError as error:
        return "refused", said(error)


def _read(truth, systems, *, columns=(), target=(), images="all", **options):
    of_truth, of_results = split_roles(roles_of(columns))
    compared = Systems(read_systems([systems]), of_results)
    wanted = [target] if isinstance(target, str) else list(target)
    folder = None if images in ("all", "common") else Path(images)
    questions = read_questions(
        None, truth, columns=of_truth, target=wanted, images=folder, **options
    )
    findings, left_out = {}, []
    for question in questions:
        finding = question.truth.finding
        if len(questions) > 1 and compared.reason_to_leave_out(question, questions):
            left_out.append(finding)
        else:
            findings[finding] = _plain(question, compared.outputs(question, None), images)
    if len(questions) == 1:
        ((finding, plain),) = findings.items()
        return {"finding": finding, **plain}
    if not findings:
        raise InputError(f"no finding can be compared: {left_out}")
    return {"findings": findings, "left_out": sorted(left_out)}


def _plain(question, outputs, images):
    truth = question.truth
    evaluated, _ = common_images(truth, outputs, common=images == "common")
    table = truth.images
    return {
        "labels": {image: None if each != each else each for image, each in table["label"].items()},
        "roles": table["role"].to_dict(),
        "patients": {
            image: None if patient in (image, f"image-{image}") else patient
            for image, patient in table["patient_id"].items()
        },
        "true_boxes": _rows(truth.boxes, _EDGES),
        "boxed": sorted(truth.boxed) if len(truth.boxes) else [],
        "evaluated": sorted(evaluated.ids),
        "systems": {name: _system(output) for name, output in outputs.items()},
    }


def _system(output):
    if output.boxes is None:
        return {"scores": output.scores.to_dict()}
    boxes = output.boxes if output.ranks else output.boxes.assign(score=None)
    return {"boxes": _rows(boxes, [*_EDGES, "score"]), "run": sorted(output.ran)}


def _rows(table, columns):
    rows = table[["image_id", *columns]].astype(object).to_numpy().tolist()
    return sorted(rows, key=str)


def doubts(boxes, true_boxes, sizes, **options):
    """Texts on other readings by which far more predicted boxes match a true box."""
    labels = sizes[["image_id", "width", "height"]].assign(label=1)
    truth = read_truth(labels, boxes=true_boxes)
    texts = [note.text for note in _readings(boxes, truth, **options) if note.caution]
    return [f"{re.search(r'would be ([0-9.]+)', text)[1]} {text}" for text in texts]


def _readings(boxes, truth, **options):
    pairs = pair_boxes(boxes, truth.boxes, truth.ids[truth.is_boxed])
    return other_reading_notes(truth, pairs, "A", **options)


def read_with_doubts(truth, systems, *, columns=(), **options):
    """Return what `read` does, and the systems whose boxes match far better otherwise."""
    of_truth, of_results = split_roles(roles_of(columns))
    try:
        (question,) = read_questions(None, truth, columns=of_truth, **options)
        outputs = Systems(read_systems([systems]), of_results).outputs(question, None)
        plain = _plain(question, outputs, "all")
    except InputError as error:
        return ("refused", said(error)), []
    doubted = [
        name
        for name, output in outputs.items()
        if output.boxes is not None
        and any(note.caution for note in _readings(output.boxes, question.truth))
    ]
    return {"finding": question.truth.finding, **plain}, doubted


def labels(truth, boxes=None, *, columns=(), target=()):
    """Labels and true boxes of each finding that `compare` reads, or the line of a refusal."""
    try:
        questions = read_questions(
            None,
            truth,
            boxes=boxes,
            columns=split_roles(roles_of(columns))[0],
            target=list(target),
        )
    except InputError as error:
        return said(error)
    truths = {each.truth.finding: each.truth for each in questions}
    known = {name: truth.images["label"].dropna() for name, truth in truths.items()}
    return {
        "labels": {name: of.astype(int).to_dict() for name, of in known.items()},
        "boxes": sorted(
            [image, name, *(round(float(edge), 3) for edge in box)]
            for name, truth in truths.items()
            for image, *box in truth.boxes[["image_id", *_EDGES]].itertuples(index=False)
        ),
        "unboxed": sorted(
            [image, name]
            for name, truth in truths.items()
            for image in known[name].index.difference(truth.boxed)
            if len(truth.boxes)
        ),
        "left_out": [],
    }
