"""Trainings of a few seconds on the data set of the small world."""

import cxr_compare

KINDS = ("detector", "classifier")
FILES = ("model.safetensors", "metrics.csv", "decision.json")
# All that draws at random: augmentation, dropout, the order of images; and averaged weights.
KEYS = {
    "detector": (
        "retinanet_quickstart",
        {
            "model.fpn_channels": 16,
            "model.head_convs": 1,
            "augmentation.rotate_degrees": 10,
            "augmentation.scale": 0.1,
        },
    ),
    "classifier": (
        "chexnet_quickstart",
        {
            "model.backbone": "small_cnn",
            "model.dropout": 0.3,
            "augmentation.noise": 0.1,
            "augmentation.cutout": 0.3,
            "training.positive_weight": "balanced",
        },
    ),
}
USUAL = {
    "data.image_size": 96,
    "training.epochs": 2,
    "training.workers": 0,
    "training.ema_decay": 0.9,
}
SMALL = {**USUAL, "training.ema_decay": 0.0, "model.backbone": "small_cnn"}


def train(kind, data, out, keys=None, **own):
    """Train a small model of a kind; other keys of its configuration, own parts from Python."""
    config, small = KEYS[kind]
    keys = {**USUAL, **small, **(keys or {})}
    return cxr_compare.train(config, data=data, out=out, set_=keys, device="cpu", **own)


def small(data, out, keys=None, config="chexnet_quickstart", **own):
    """Train a small network on grey values as they are."""
    given = {**SMALL, **(keys or {})}
    return cxr_compare.train(config, data=data, out=out, set_=given, device="cpu", **own)


def contents(folder):
    """The bytes of what a training makes."""
    return {name: (folder / name).read_bytes() for name in FILES}
