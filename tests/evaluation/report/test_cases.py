import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.report.cases import read_systems
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions, tune_predictions
from cxr_compare.scripts.commands.overlay import _choose_images, _file_name, _open_systems, overlay
from cxr_compare.scripts.systems import System


@pytest.fixture
def systems(predict):
    return {
        "Detector": predict("Detector", "boxes", seed=1),
        "Classifier": predict("Classifier", "scores", seed=2, maps=True),
    }


@pytest.fixture
def tuned(systems, test_set, target):
    for system in systems.values():
        decision = tune_predictions(system, test_set)
        system.write_decision(target.name, decision.to_dict())
    return systems


@pytest.fixture
def pixels(monkeypatch):
    monkeypatch.setattr(DataSet, "has_pixels", True)
    image = np.full((90, 90), 100, np.uint8)
    monkeypatch.setattr(DataSet, "read_original", lambda self, image_id: image)


def test_untuned_system_stays_undecided(systems, test_set, evaluation_set):
    ids = evaluation_set.image_ids("test")[:5]
    reader = read_systems(systems, test_set, list(ids), policy="max_f1")
    for image_id in ids:
        detector, classifier = reader.predictions(image_id)
        assert detector.decision is None
        assert detector.box_cut == 0.5
        assert classifier.grid is not None


def test_contours_do_not_depend_on_the_images_asked_for(systems, test_set, evaluation_set):
    ids = list(evaluation_set.image_ids("test")[:4])
    one = read_systems(systems, test_set, ids[:1], policy="max_f1")
    all_ = read_systems(systems, test_set, ids, policy="max_f1")
    assert one.systems[1].levels == all_.systems[1].levels != {}


def test_tuned_system_is_read_as_compare_judges_it(tuned, test_set, evaluation_set):
    comparison = compare_predictions(tuned, test_set, replicates=100)
    ids = list(evaluation_set.image_ids("test"))
    reader = read_systems(tuned, test_set, ids, policy="max_f1")
    table = comparison.decisions.set_index(["system", "image_id"])
    for image_id in ids:
        for prediction in reader.predictions(image_id):
            row = table.loc[(prediction.system, image_id)]
            assert prediction.score == row["score"]
            assert prediction.decision == row["decision_max_f1"]
            for mine, name in (
                (prediction.localised, "localised"),
                (prediction.within_cell, "localised_tolerant"),
            ):
                assert mine == (None if pd.isna(row[name]) else bool(row[name]))


def test_policy_that_was_not_tuned_is_refused(tuned, test_set, evaluation_set):
    ids = list(evaluation_set.image_ids("test")[:1])
    with pytest.raises(InputError, match="not tuned for the policy 'youden'; it has max_f1"):
        read_systems(tuned, test_set, ids, policy="youden")


def test_system_that_ran_on_none_of_the_images_is_refused(predict, test_set, evaluation_set):
    system = predict("Val only", roles=("val",))
    ids = list(evaluation_set.image_ids("test")[:2])
    with pytest.raises(InputError, match="ran on none of the images asked for"):
        read_systems({"Val only": system}, test_set, ids, policy="max_f1")


def test_verb_draws_one_png_an_image(tuned, evaluation_set, tmp_path, pixels):
    named = [f"{name}={system.folder}" for name, system in tuned.items()]
    out = tmp_path / "overlays"
    drawn = overlay(named, data=evaluation_set, out=out, limit=3, panel=64)
    assert drawn.to_dict() == sorted(map(str, out.iterdir()))
    names = sorted(path.stem for path in out.iterdir())
    assert len(names) == 3
    assert set(names) <= set(evaluation_set.image_ids("test"))


def test_verb_refuses_a_set_without_pixels(tuned, evaluation_set, tmp_path):
    with pytest.raises(InputError, match="has no pixels"):
        overlay({"A": tuned["Detector"]}, data=evaluation_set, out=tmp_path / "o", limit=1)
    assert not (tmp_path / "o").exists()


def test_the_same_seed_draws_the_same_images(evaluation_set):
    first, second = (
        _choose_images(evaluation_set, None, "test", "default", 5, 7) for _ in range(2)
    )
    assert first == second
    assert len(first) == 5


def test_unknown_image_is_named(evaluation_set):
    with pytest.raises(InputError, match="has no image 'nobody'"):
        _choose_images(evaluation_set, ["nobody"], "test", "default", 5, 0)


def test_two_systems_of_one_name_are_refused(systems, test_set, tmp_path):
    twice = [System(None, [systems["Detector"].folder])] * 2
    with pytest.raises(InputError, match="two systems are called 'Detector'"):
        _open_systems(twice, test_set, [], tmp_path)


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "a/b", "a b.dcm"])
def test_image_id_cannot_leave_the_folder(image_id):
    assert "/" not in _file_name(image_id)
