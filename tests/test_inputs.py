"""Labels and predictions in the forms that people have: the figures of each, or its refusal.

A case of ``cases/inputs.json`` has recipes of `tests/built_inputs.py` for what `compare` takes. All
are made of one base of 24 images, so that most give the figures of the base.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

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


def test_the_size_of_an_image_is_read_from_its_header_alone(tmp_path):
    """Shares become px although the pixels of the files are cut off."""
    for image, size in (("a", (200, 100)), ("b", (80, 400))):
        file = tmp_path / f"{image}.png"
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(file)
        file.write_bytes(file.read_bytes()[:60])
    labels = tmp_path / "labels"
    labels.mkdir()
    for image in ("a", "b"):
        (labels / f"{image}.txt").write_text("0 0.5 0.5 0.5 0.25 0.9\n")
    truth = pd.DataFrame({"image_id": ["a", "b"], "label": [1, 0]})
    read = tables.read(truth, {"A": labels}, images=str(tmp_path))
    assert read["systems"]["A"]["boxes"] == [
        ["a", 50, 37.5, 150, 62.5, 0.9],
        ["b", 20, 150, 60, 250, 0.9],
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_usual_order_of_yolo_lines_is_kept_if_boxes_leave_their_images(seed, tmp_path):
    """Detectors that do not clip let up to a third of their boxes leave the image."""
    generator = np.random.default_rng(seed)
    sides = generator.uniform(0.05, 0.4, (30, 2))
    centres = generator.uniform(sides / 2, 1 - sides / 2)
    centres[:10, 0] = 1 - sides[:10, 0] / 4
    scores = generator.uniform(0.01, 1, 30)
    lines = [
        f"0 {x} {y} {w} {h} {score}"
        for (x, y), (w, h), score in zip(centres, sides, scores, strict=True)
    ]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    truth = pd.DataFrame({"image_id": ["a"], "label": [1], "width": [100], "height": [100]})
    read = tables.read(truth, {"A": tmp_path})
    found = sorted(row[-1] for row in read["systems"]["A"]["boxes"])
    assert found == pytest.approx(sorted(scores))
