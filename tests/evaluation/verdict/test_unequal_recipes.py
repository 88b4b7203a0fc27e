"""Training conditions in which systems differ."""

from cxr_compare.evaluation.verdict.unequal_recipes import unequal_conditions


def record(size, n_train=500, epochs=6, weights="none"):
    run = {"n_train": n_train, "epochs": epochs}
    config = {"model": {"weights": weights}}
    return {"recipe": {"config": config, "preprocess": {"size": size}, "run": run}}


def test_only_conditions_that_differ_are_named_with_the_value_of_each_system():
    records = {"A": record(128), "B": record(96, epochs=24), "C": record(96, weights="imagenet")}
    assert unequal_conditions(records) == {
        "input size": {"A": "128 px", "B": "96 px", "C": "96 px"},
        "length of training": {"A": "6 epochs", "B": "24 epochs", "C": "6 epochs"},
        "first weights": {"A": "random", "B": "random", "C": "imagenet"},
    }


def test_equal_trainings_and_systems_without_a_recipe_name_nothing():
    assert unequal_conditions({"A": record(128), "B": record(128), "C": {}}) == {}
    assert unequal_conditions({"A": record(128), "C": {"backend": "onnx"}}) == {}
    assert unequal_conditions({"A": record(128), "B": {"recipe": {"run": {"epochs": 6}}}}) == {}
