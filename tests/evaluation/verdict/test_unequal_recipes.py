"""Training conditions in which systems differ."""

from cxr_compare.configs.load import find_config, read_config
from cxr_compare.evaluation.verdict.unequal_recipes import (
    is_boxes_against_labels,
    training_conditions,
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


def published(name, parameters, decision, *, keys=(), **training):
    """Return the record of a run of a configuration of this program."""
    config = read_config(find_config(name), keys).model_dump()
    config["training"] |= training
    run = {"n_train": 20_000, "epochs": config["training"]["epochs"], "parameters": parameters}
    preprocess = {"size": config["data"]["image_size"]}
    network = config["model"]["backbone"]
    recipe = {"config": config, "preprocess": preprocess, "run": run, "network": network}
    return {"recipe": recipe, "decision": decision}


RETINANET = {"tried": [{}] * 8, "boxes_tried": [{}] * 7}
CHEXNET = {"tried": [], "boxes_tried": [{}] * 21}


def test_the_two_full_recipes_differ_in_all_conditions_that_their_files_name():
    records = {
        "RetinaNet": published("retinanet", 34_000_000, RETINANET),
        "CheXNet": published("chexnet", 7_000_000, CHEXNET),
    }
    unequal = unequal_conditions(records)
    texts = {name: tuple(values.values()) for name, values in unequal.items()}
    assert texts == {
        "network": ("resnet50", "densenet121"),
        "architecture": ("retinanet", "classifier of whole images"),
        "parameters": ("34.0 million", "7.0 million"),
        "input size": ("512 px", "224 px"),
        "first weights": ("coco", "imagenet"),
        "trained part": (
            "the deepest 3 stages of the backbone without its batch norms",
            "all of the backbone",
        ),
        "length of training": ("15 epochs, 37,500 steps", "15 epochs, 9,375 steps"),
        "batch": ("8 images", "32 images"),
        "sampling of positives": ("50 % of the drawn images", "as they come"),
        "loss": ("focal loss", "cross-entropy, positives by the ratio of negatives to positives"),
        "figure that chose the epoch": ("AP50", "AUROC"),
        "settings tried on validation": ("8 image scores and 7 box rules", "21 box rules"),
    }


def test_a_loss_of_the_users_own_is_not_called_that_of_the_program():
    facts = published("chexnet", 7_000_000, CHEXNET)
    own = published("chexnet", 7_000_000, CHEXNET, module="myparts:Focal")
    unequal = unequal_conditions({"A": facts, "B": own})
    assert unequal["loss"]["B"] == "that of myparts:Focal"


def test_any_setting_of_the_same_recipe_that_differs_is_named():
    one = published("chexnet", 7_000_000, CHEXNET)
    other = published("chexnet", 7_000_000, CHEXNET, keys=["model.dropout=0.4"])
    assert "settings of the network" in unequal_conditions({"A": one, "B": other})
    for setting, value, condition in (
        ("learning_rate", 1e-3, "optimiser"),
        ("ema_decay", 0.99, "averaged weights"),
        ("patience", 0, "early stopping"),
        ("label_smoothing", 0.1, "label smoothing"),
        ("accumulate", 2, "batch"),
        ("callbacks", ["mine:Rescale"], "callbacks"),
    ):
        other = published("chexnet", 7_000_000, CHEXNET, **{setting: value})
        assert condition in unequal_conditions({"A": one, "B": other})


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


def matched_pair(seconds=(500, 505), **detector):
    """Return the records of the matched pair, with the command that its configuration names."""
    keys = ["augmentation.mosaic=0"]
    boxes = published("retinanet_lite", 4_500_000, RETINANET, keys=keys, **detector)
    labels = published("efficientnet_matched", 3_400_000, CHEXNET)
    boxes["recipe"]["run"] |= {"n_boxes": 900, "seconds_training": seconds[0]}
    labels["recipe"]["run"] |= {"n_labels": 20_000, "seconds_training": seconds[1]}
    return {"boxes": boxes, "labels": labels}


def test_the_matched_pair_compares_boxes_against_labels():
    unequal = unequal_conditions(matched_pair())
    assert set(unequal) == {
        "architecture", "parameters", "learned annotations", "loss", "settings tried on validation",
    }  # fmt: skip
    assert is_boxes_against_labels(unequal)


def test_equal_steps_may_take_another_time_and_equal_times_have_other_steps():
    assert is_boxes_against_labels(unequal_conditions(matched_pair(seconds=(500, 120))))
    longer = matched_pair()
    longer["labels"]["recipe"]["run"]["epochs"] = 90
    assert is_boxes_against_labels(unequal_conditions(longer))
    longer["labels"]["recipe"]["run"]["seconds_training"] = 1_900
    assert not is_boxes_against_labels(unequal_conditions(longer))


def test_any_other_difference_makes_it_recipe_against_recipe():
    assert not is_boxes_against_labels(unequal_conditions(matched_pair(learning_rate=1e-3)))
    with_views = matched_pair()
    with_views["boxes"]["tta"] = {"views": ["plain", "flip"]}
    with_views["labels"]["tta"] = None
    unequal = unequal_conditions(with_views)
    assert unequal["test-time views"] == {"boxes": "flip", "labels": "none"}
    assert not is_boxes_against_labels(unequal)


def test_as_many_images_of_another_data_set_or_split_are_another_condition():
    pair = matched_pair()
    of_pair = {"name": "rsna", "content_id": "1e63033e0a", "split": "a", "split_id": "e5bbdf729a"}
    for record in pair.values():
        record["recipe"]["run"]["data_set"] = of_pair
    assert is_boxes_against_labels(unequal_conditions(pair))
    for change in ({"content_id": "77ab12cd"}, {"split": "b", "split_id": "77ab12cd"}):
        pair["labels"]["recipe"]["run"]["data_set"] = of_pair | change
        unequal = unequal_conditions(pair)
        assert len(set(unequal["training data"].values())) == 2
        assert not is_boxes_against_labels(unequal)


def test_two_detectors_do_not_compare_boxes_against_labels():
    detectors = {
        "RetinaNet": published("retinanet_small", 4_500_000, RETINANET),
        "FCOS": published("fcos_small", 4_400_000, RETINANET, learning_rate=1e-3),
    }
    unequal = unequal_conditions(detectors)
    assert set(unequal) == {"architecture", "parameters"}  # both learn by the focal loss
    assert not is_boxes_against_labels(unequal)


def test_conditions_name_what_each_training_had_equal_or_not():
    conditions = training_conditions(matched_pair())
    assert conditions["input size"] == {"boxes": "160 px", "labels": "160 px"}
    assert conditions["learned annotations"] == {
        "boxes": "900 boxes",
        "labels": "20,000 image labels",
    }
    assert conditions["time of training"] == {"boxes": "8 min", "labels": "8 min"}
    assert training_conditions({"C": {"backend": "onnx"}}) == {}
