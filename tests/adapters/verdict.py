"""Verdicts on figures that are given as plain values, and the rows that they rest on."""

from types import SimpleNamespace

import pandas as pd
from scipy.stats import norm

from cxr_compare.evaluation.compare import UNITS, compare_outputs
from cxr_compare.evaluation.figures import AP50, AUROC, corrected, holm
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.inputs.folders import learned_from
from cxr_compare.evaluation.inputs.read_output import read_output
from cxr_compare.evaluation.inputs.read_truth import read_truth
from cxr_compare.evaluation.notes import worst_first
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.truth import Truth
from cxr_compare.evaluation.verdict.cautions import cautions, unequal_training
from cxr_compare.evaluation.verdict.claims import Lookup
from cxr_compare.evaluation.verdict.verdict import state_verdict

KEYS = ("first", "second", "metric", "policy")
__all__ = ["cautions_of", "decided", "holm", "image_blind_name", "verdict_of"]


def verdict_of(
    systems,
    rows,
    *,
    joint=(),
    protocol=None,
    policy="",
    unit="image",
    synthetic=False,
    n_findings=1,
    with_boxes=(),
):
    """State the verdict of rows ``first, second, metric, policy, estimate, low, high, note``.

    The p-value of a difference is that of a normal distribution with the interval's end that is
    nearer to 0, unless a row ends with it, and with the one that is corrected over findings.
    """
    table = _figures(rows)
    given = table["p_holm"]
    joint, *members = joint or [""]
    fixed = Protocol(**protocol or {})
    single = [name for name in systems if name != joint]
    all_boxes = protocol is None and len(single) > 1 and set(single) <= set(with_boxes)
    primary = (AUROC, AP50) if all_boxes else (fixed.key,)
    (table,) = corrected([table], joint, primary=primary, with_boxes=with_boxes)
    made = SimpleNamespace(
        figures=table.assign(p_holm=given.fillna(table["p_holm"])),
        truth=Truth(pd.DataFrame({"synthetic": [synthetic]}), finding="opacity"),
        systems=systems,
        single=single,
        joint=joint,
        members=members,
        protocol=fixed,
        primary_title=fixed.title,
        main_policy=policy,
        units=UNITS.get(unit, unit),
        n_findings=n_findings,
        primary=primary,
        with_boxes=with_boxes,
    )
    found = state_verdict(made)
    return {
        "headline": found.headline,
        "kind": found.kind,
        "findings": list(found.findings),
        "claims": [claim.to_dict() for claim in found.claims],
    }


def cautions_of(systems, truth, policies=(), **options):
    """Kind and text of each caution of a comparison, the most harmful first."""
    read = read_truth(truth, **options)
    outputs = {name: read_output(value, read, name) for name, value in systems.items()}
    made = compare_outputs(outputs, read, policies=policies, n_replicates=100)
    notes = worst_first([*read.notes, *made.notes, *cautions(made)])
    return [(note.caution, note.text) for note in notes]


def _figures(rows):
    names = [*KEYS, "estimate", "ci_low", "ci_high", "note"]
    table = pd.DataFrame([row[: len(names)] for row in rows], columns=names)
    table = table.assign(n_images=12, p_holm=float("nan"))
    numbers = table[["estimate", "ci_low", "ci_high"]].astype(float)
    nearer = (numbers["estimate"] - numbers["ci_low"]).where(
        numbers["estimate"] > 0, numbers["ci_high"] - numbers["estimate"]
    )
    p_values = 2 * norm.sf(numbers["estimate"].abs() / nearer * norm.isf(0.025))
    table["p_value"] = pd.Series(p_values).where(table["second"] != "")
    for number, row in enumerate(rows):
        for name, value in zip(("p_value", "p_holm"), row[len(names) :], strict=False):
            table.loc[number, name] = value
    return table


def decided(gaps, error):
    """Decide normal differences with this standard error together: which are shown."""
    reach = norm.isf(0.025) * error
    names = [f"B{place}" for place in range(len(gaps))]
    rows = [
        ("A", name, "auroc", "", gap, gap - reach, gap + reach, "")
        for name, gap in zip(names, gaps, strict=True)
    ]
    (table,) = corrected([_figures(rows)])
    figures = Lookup(table)
    return [bool(figures.claim("answer", "A", name, "auroc").higher) for name in names]


def training_notes(images_by_name, labels):
    """Notes on systems that learned from these images, on a truth of labels by image."""
    truth = SimpleNamespace(images=pd.DataFrame({"label": labels}))
    outputs = {}
    for name, ids in images_by_name.items():
        seen = pd.DataFrame({"image_id": ids, "role": "train"})
        learned = learned_from(SimpleNamespace(seen=seen), truth)
        outputs[name] = SimpleNamespace(record={"learned_from": learned})
    return [note.text for note in unequal_training(outputs)]
