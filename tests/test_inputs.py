"""Labels and predictions in the forms that people have: the figures of each, or its refusal.

A case of ``cases/inputs.json`` has recipes of `tests/built_inputs.py` for what `compare` takes. All
are made of one base of 24 images, so that most give the figures of the base.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

from cxr_compare import metrics
from tests.adapters import tables
from tests.built_inputs import EDGES, Inputs

CASES = json.loads((Path(__file__).parent / "cases" / "inputs.json").read_text(encoding="utf-8"))
TRUTHS = CASES["truths"]
GIVEN = ("boxes", "patients")


def figures(read):
    """AUROC and AP50 of the one system, of the images that are evaluated; None where undefined."""
    system, images = read["systems"]["A"], read["evaluated"]
    labels = [read["labels"][image] for image in images]
    if "scores" in system:
        return metrics.auroc(labels, [system["scores"][image] for image in images]), None
    boxes = pd.DataFrame(system["boxes"], columns=["image_id", *EDGES, "score"])
    if boxes["score"].isna().all():
        return None, None
    scores = boxes.groupby("image_id")["score"].max().reindex(images).fillna(0)
    true = pd.DataFrame(read["true_boxes"], columns=["image_id", *EDGES])
    boxed = [image for image in read["boxed"] if image in images]
    boxes, true = (table[table["image_id"].isin(boxed)] for table in (boxes, true))
    ap50 = metrics.box_average_precision(boxes, true, boxed)["ap50"] if len(true) else None
    return metrics.auroc(labels, scores.to_numpy()), ap50


@pytest.mark.filterwarnings("ignore::UserWarning")  # what is left out is said
@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in CASES["cases"]])
def test_an_input_gives_the_figures_of_its_case_or_is_refused(case, tmp_path):
    inputs = Inputs(CASES, tmp_path)
    truth = inputs.build(TRUTHS.get(str(case["truth"]), case["truth"]))
    system = inputs.build(case["system"])
    options = {name: inputs.build(case[name]) for name in GIVEN if name in case}
    options["columns"] = case.get("columns", ())
    read = tables.read(truth, {"A": system}, **options)
    if "refused" in case:
        assert isinstance(read, tuple), figures(read)
        assert "\n" not in read[1]
        assert [part for part in case["refused"] if part not in read[1]] == []
        return
    assert isinstance(read, dict), read
    expected = CASES["figures"].get(case.get("same"), case)
    found = dict(zip(("auroc", "ap50"), figures(read), strict=True))
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-9)
    doubted = tables.doubted(truth, {"A": system}, **options)
    assert doubted == (["A"] if case.get("doubted") else [])
