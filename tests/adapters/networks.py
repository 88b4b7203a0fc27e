"""Both networks with weights that a seed draws over the names of their tensors, and squares."""

import hashlib

import numpy as np
import torch

from cxr_compare.classification.model import build_classifier
from cxr_compare.detection.model import build_detector

# Settings as in the configurations chexnet_quickstart, chexnet, retinanet_quickstart, retinanet.
_CLASSIFIERS = {
    "chexnet_quickstart": {"backbone": "densenet121", "last_stride": 16},
    "chexnet": {"backbone": "densenet121"},
}
_DETECTORS = {
    "retinanet_quickstart": {
        "backbone": "resnet18",
        "norm": "batch",
        "head": "v2",
        "fpn_channels": 64,
        "head_convs": 2,
        "anchor_sizes": [12.0, 24.0, 48.0, 96.0, 192.0],
    },
    "retinanet": {"backbone": "resnet50", "norm": "frozen", "head": "v2"},
}
SUPPRESSION = 0.6
"""IoU above which the less certain of two boxes leaves; today the only one."""


def network(name, side):
    """The network of a configuration for one finding and squares of a side, in evaluation mode."""
    if name in _CLASSIFIERS:
        return build_classifier(**_CLASSIFIERS[name], image_size=side).eval()
    return build_detector("retinanet", **_DETECTORS[name], image_size=side).eval()


def suppression(model):
    """The IoU above which a detector suppresses, as the product states it."""
    from cxr_compare.detection.frames import NMS_IOU

    del model
    return NMS_IOU


def tensors(model):
    """The tensors of a network by name, sorted; step counters, which count no more, are not."""
    state = model.state_dict()
    return {name: state[name] for name in sorted(state) if "num_batches_tracked" not in name}


def draw_weights(model, seed):
    """Fill each tensor by `numpy.random.default_rng([seed, number of its name])`.

    Weights keep the scale of what goes through (He et al. 2015), so that nothing overflows; all
    norms nearly leave it as it is.
    """
    with torch.no_grad():
        for number, (name, tensor) in enumerate(tensors(model).items()):
            draw = np.random.default_rng([seed, number]).standard_normal(tuple(tensor.shape))
            if tensor.ndim > 1:
                values = draw * np.sqrt(2 / tensor[0].numel())
                # Anchors move a little: most boxes stay inside of the image.
                values *= 0.1 if "bbox_reg" in name else 1.0
            elif name.endswith("running_var"):
                values = 1 + 0.1 * np.abs(draw)
            elif name.endswith("weight"):
                values = 1 + 0.1 * draw
            else:
                values = 0.1 * draw
            tensor.copy_(torch.from_numpy(values.astype(np.float32)))


def names_digest(model):
    """SHA-256 of names and shapes of the tensors."""
    lines = [f"{name} {tuple(tensor.shape)}\n" for name, tensor in tensors(model).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_digest(model):
    """SHA-256 of the values of the tensors in the order of their names."""
    digest = hashlib.sha256()
    for tensor in tensors(model).values():
        digest.update(tensor.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def scores(model, squares):
    """The score of each square, float32 ``(N,)``; squares are uint8 ``(N, S, S)``."""
    with torch.inference_mode():
        logits = [model(torch.from_numpy(square[None, None])) for square in squares]
    return torch.sigmoid(torch.cat(logits))[:, 0].numpy()


def boxes(model, squares):
    """The boxes of each square, float32 rows x1, y1, x2, y2 in px of the square, and score.

    They are those that are stored: at most 100, by falling score, with an area.
    """
    found = []
    for square in squares:
        with torch.inference_mode():
            (boxes,) = model(torch.from_numpy(square[None, None]))
        rows = np.column_stack([boxes.corners, boxes.scores]).astype(np.float32)
        found.append(rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])])
    return found


def stored_squares(dataset, side):
    """The squares of a prepared data set by image id, in the order of the ids."""
    store = dataset.store(side)
    return {str(image): np.array(store.image(image)) for image in sorted(store.ids)}
