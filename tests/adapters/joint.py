"""The rule of a joint system, fitted on the validation images of plain tables."""

import pandas as pd

from cxr_compare.evaluation.joint import JointRule, gated
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.truth import Truth

__all__ = ["fitted"]


def fitted(images, boxes, systems):
    """Fit a joint system; `systems` are scores by image id, or boxes of a detector.

    Return the rule as plain values, the scores of validation images that the choices rest on, the
    scores of all images, and the boxes of the detector under each gate, by these scores.
    """
    truth = Truth(images.sort_index(), boxes, images.index)
    outputs = {
        name: Output(given)
        if isinstance(given, pd.Series)
        else Output.of_detector(given, truth.ids)
        for name, given in systems.items()
    }
    rule, held_out = JointRule.fit(outputs, truth)
    made = rule.apply(outputs)
    detector = next((each.boxes for each in outputs.values() if each.boxes is not None), None)
    by_gate = {}
    if detector is not None:
        own = detector[detector["image_id"].isin(held_out.index)]
        gates = ("rescaled", "multiplied", "untouched")
        by_gate = {gate: gated(own, held_out, gate) for gate in gates}
    return {
        "gate": rule.gate,
        "gates_tried": dict(rule.gates_tried),
        "held_out": held_out,
        "scores": made.scores,
        "boxes": made.boxes,
        "by_gate": by_gate,
    }
