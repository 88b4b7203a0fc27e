"""The core that evaluates takes tables: it opens no file, and gives the figures of folders."""

import builtins
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.common_images import common_test_images
from cxr_compare.evaluation.compare import (
    EligibleSystems,
    compare_systems,
    models_by_label,
    name_models,
)
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.sources.stored_predictions import (
    read_system_of_split,
)
from tests.compared import compare_predictions


@pytest.fixture
def no_files(monkeypatch):
    """Refuse to open any file."""

    def refuse(*args, **options):
        raise AssertionError(f"the core opened a file: {args}")

    def start():
        for owner, name in ((builtins, "open"), (Path, "open"), (Path, "read_text")):
            monkeypatch.setattr(owner, name, refuse)

    yield start
    monkeypatch.undo()


def frames():
    rng = np.random.default_rng(1)
    ids = pd.Index([f"i{number:03d}" for number in range(200)], name="image_id")
    positive = rng.random(200) < 0.4
    labels = pd.Series(positive.astype(float), index=ids)
    roles = pd.Series(np.where(np.arange(200) < 80, "val", "test"), index=ids)
    images = pd.DataFrame({"image_id": ids, "patient_id": [f"p{n // 2}" for n in range(200)]})
    boxed = ids[positive]
    boxes = pd.DataFrame({"image_id": boxed, "x1": 10.0, "y1": 10.0, "x2": 50.0, "y2": 60.0})
    labels = labels.to_frame("label")
    truth = LabelledImages(images, labels, roles, true_boxes=boxes, boxes_trusted=ids)
    status = pd.DataFrame({"image_id": ids, "status": "ok"})
    score = 1 / (1 + np.exp(-(1.5 * positive + rng.normal(size=200))))
    scores = pd.DataFrame({"image_id": ids, "finding": "label", "score": score})
    drawn = boxes.assign(finding="label", score=rng.uniform(0.2, 1, len(boxes)))
    return truth, {
        "classifier": [System("classifier", "scores", status, scores=scores)],
        "detector": [System("detector", "boxes", status, boxes=drawn)],
    }


def compared(systems, truth, images="all", **options):
    named = name_models(systems)
    selected, notes = common_test_images(models_by_label(named), truth, images=images)
    return compare_systems(EligibleSystems(named, selected, notes), **options)


def test_the_core_opens_no_file(no_files):
    truth, systems = frames()
    compared(systems, truth, replicates=20)  # what is imported late is imported here
    no_files()
    comparison = compared(systems, truth, replicates=20, unit="patient", prevalence=0.1)
    assert comparison.answer.headline
    assert comparison.figures.get("detector", "ap50").known
    assert comparison.systems["classifier"].thresholds["max_f1"] is not None


def test_frames_give_the_figures_of_folders(predict, test_set):
    systems = {
        "RetinaNet": predict("RetinaNet", "boxes", seed=1),
        "CheXNet": predict("CheXNet", "scores", seed=2, maps=True),
    }
    of_folders = compare_predictions(systems, test_set, replicates=50)
    tables = {name: [read_system_of_split(one, test_set)] for name, one in systems.items()}
    of_frames = compared(tables, test_set.truth_with_facts, replicates=50)
    pd.testing.assert_frame_equal(of_frames.metrics, of_folders.metrics)
    pd.testing.assert_frame_equal(of_frames.tests, of_folders.tests)
    pd.testing.assert_frame_equal(of_frames.groups, of_folders.groups)
    pd.testing.assert_frame_equal(of_frames.decisions, of_folders.decisions)


def test_a_system_that_failed_on_an_image_is_refused_or_counted(no_files):
    truth, systems = frames()
    images = systems["classifier"][0].images.copy()
    images.loc[150, "status"] = "failed"
    part = replace(systems["classifier"][0], images=images)
    one = {"classifier": part, "detector": systems["detector"][0]}
    comparison = compared(one, truth, images="common", replicates=20)
    assert "i150" not in set(comparison.decisions["image_id"])
