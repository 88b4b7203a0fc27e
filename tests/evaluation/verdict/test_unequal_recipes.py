"""Training conditions in which systems differ."""

from cxr_compare.evaluation.verdict.unequal_recipes import (
    unequal_conditions,
)


def record(size, n_train=500, epochs=6, weights="none"):
    run = {"n_train": n_train, "epochs": epochs}
    config = {"model": {"weights": weights}}
    return {"recipe": {"config": config, "preprocess": {"size": size}, "run": run}}


def test_only_conditions_that_differ_are_named_with_the_value_of_each_system():
    records = {"A": record(128), "B": record(96, epochs=24), "C": record(96, weights="imagenet")}
    assert unequal_conditions(records) == {
        "input size": {"A": "128 px", "B": "96 px", "C": "96 px"},
        "first weights": {"A": "random", "B": "random", "C": "imagenet"},
        "length of training": {"A": "6 epochs", "B": "24 epochs", "C": "6 epochs"},
    }


def test_equal_trainings_and_systems_without_a_recipe_name_nothing():
    assert unequal_conditions({"A": record(128), "B": record(128), "C": {}}) == {}
    assert unequal_conditions({"A": record(128), "C": {"backend": "onnx"}}) == {}
    assert unequal_conditions({"A": record(128), "B": {"recipe": {"run": {"epochs": 6}}}}) == {}


def trained(**run):
    return {"recipe": {"run": {"n_train": 500, **run}}}


def test_boxes_of_one_side_stand_against_labels_of_the_other():
    unequal = unequal_conditions({"A": trained(n_boxes=1_204), "B": trained(n_labels=500)})
    assert unequal == {"learned annotations": {"A": "1,204 boxes", "B": "500 image labels"}}


def test_times_of_training_are_named_where_they_differ_by_half():
    short, longer = trained(seconds_training=100), trained(seconds_training=149)
    assert unequal_conditions({"A": short, "B": longer}) == {}
    longest = trained(seconds_training=600, device_name="GPU")
    assert unequal_conditions({"A": short, "B": longest}) == {
        "time of training": {"A": "100 s", "B": "10 min on GPU"}
    }


def test_an_epoch_is_of_whole_steps():
    config = {"training": {"batch_size": 8, "accumulate": 2}}
    records = {
        name: {"recipe": {"run": {"n_train": 47, "epochs": epochs}, "config": config}}
        for name, epochs in (("A", 3), ("B", 4))
    }
    assert unequal_conditions(records) == {
        "length of training": {"A": "3 epochs, 6 steps", "B": "4 epochs, 8 steps"}
    }
