"""Both networks with weights that a seed draws over the names of their tensors, and squares."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import torch

from cxr_compare.classification.chexnet import ChestClassifier
from cxr_compare.classification.inference import score_tables
from cxr_compare.data_prep.base.files import file_digest
from cxr_compare.data_prep.preprocess import Placement, Preprocess, letterbox
from cxr_compare.detection.inference import MAX_PER_FINDING, box_tables, predict_views
from cxr_compare.detection.retinanet import MIN_SCORE, LesionRetinaNet
from cxr_compare.networks.trunks import NETWORKS, PooledNorm, freeze
from cxr_compare.serving.network import open_network
from cxr_compare.training import model_files
from cxr_compare.training.data import ChestImages, collate
from cxr_compare.training.model_files import (
    count_flops,
    read_weights,
    save_architecture,
    write_weights,
)
from cxr_compare.training.start_weights import CHEXNET_FINDINGS, start_from
from tests.adapters.folders import edit_record

__all__ = [
    "CHEXNET_FINDINGS",
    "MAX_PER_FINDING",
    "MIN_SCORE",
    "Placement",
    "PooledNorm",
    "box_tables",
    "count_flops",
    "freeze",
    "letterbox",
    "load_model",
    "lower_margin",
    "open_network",
    "predict_views",
    "read_weights",
    "score_tables",
    "start_from",
    "write_weights",
]


def lower_margin(monkeypatch, margin):
    """Let reading of weights take fewer bytes beside four times the size of their file."""
    monkeypatch.setattr(model_files, "_MARGIN", margin)


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
"""IoU above which the less certain of two boxes left when the boxes were stored."""


def preprocess(side, mean=0.449, std=0.226):
    """Squares of a side, and the normalisation of ImageNet's networks."""
    return Preprocess(size=side, mean=mean, std=std)


CELLS = [(name, stride) for name, facts in NETWORKS.items() for stride in facts.centre]
"""Each network of a classifier, with each size of its cells, px."""


def classifier(name, side, n_findings=1, **keys):
    """A classifier on a network, with random weights, in training mode."""
    facts = NETWORKS[name]
    pixels = preprocess(side, facts.mean, facts.std)
    return ChestClassifier(pixels, n_findings, backbone=name, **keys)


def detector(name, side, n_findings=1, nms_iou=SUPPRESSION, **keys):
    """A RetinaNet on a network, with random weights, in training mode."""
    facts = NETWORKS[name]
    pixels = preprocess(side, facts.mean, facts.std)
    return LesionRetinaNet(pixels, n_findings, backbone=name, nms_iou=nms_iou, **keys)


def usual(name, key):
    """A fact on a network: its smallest image (px), or the mean or deviation of its pixels."""
    return getattr(NETWORKS[name], key)


def save_model(model, folder):
    """Write a network as a run has it."""
    folder.mkdir(exist_ok=True)
    save_architecture(model, folder)
    write_weights(model.state_dict(), folder / "model.safetensors")


def load_model(folder):
    """Build the network of a folder whose files are as its record would name them."""
    names = ("model.json", "preprocess.json", "model.safetensors")
    return model_files.load_model(folder, {name: file_digest(folder / name) for name in names})


def run_with(run, model, folder, findings=None):
    """Copy a finished run to a folder with another network, as if that had been trained."""
    shutil.copytree(run, folder)
    save_model(model, folder)
    for name in ("started.json", "run.json"):
        record = json.loads((folder / name).read_text())
        edit_record(folder / name, findings=findings or record["findings"])
    return folder


def box_part(found, findings, placements, sizes):
    """Status and boxes of images as stored; the lists of all images are in the same order.

    `found` are rows of edges in px of the square, score and number of the finding.
    """
    ids = [f"image{number}" for number in range(len(found))]
    by_id = dict(zip(ids, placements, strict=True))
    table = pd.DataFrame(sizes, columns=["width", "height"], index=ids)
    part = box_tables(ids, found, findings, by_id.__getitem__, table)
    return part.images, part.tables["boxes"]


class _Squares:
    """Images resized to squares of one side, in place of those of a data set."""

    def __init__(self, originals, side):
        self._squares = {name: letterbox(pixels, side) for name, pixels in originals.items()}

    def image(self, image_id):
        return self._squares[image_id][0]

    def placement(self, image_id):
        return self._squares[image_id][1]


def batch_of(originals, boxes, findings, side):
    """A training batch of images with boxes in px of them, and the place of each in its square."""
    store = _Squares(originals, side)
    images = ChestImages(store, pd.Index(originals), boxes, findings)
    batch = collate([images[row] for row in range(len(images))])
    return batch, [store.placement(name) for name in originals]


def network(name, side):
    """The network of a configuration for one finding and squares of a side, in evaluation mode."""
    if name in _CLASSIFIERS:
        return ChestClassifier(preprocess(side), 1, **_CLASSIFIERS[name]).eval()
    return LesionRetinaNet(preprocess(side), 1, nms_iou=SUPPRESSION, **_DETECTORS[name]).eval()


def suppression(model):
    """The IoU above which a detector suppresses."""
    return model.nms_thresh


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
        logits = [model(torch.from_numpy(square[None, None]))[0] for square in squares]
    return torch.sigmoid(torch.cat(logits))[:, 0].numpy()


def boxes(model, squares):
    """The boxes of each square, float32 rows x1, y1, x2, y2 in px of the square, and score.

    They are those that are stored: at most 100, by falling score, with an area.
    """
    found = []
    for square in squares:
        with torch.inference_mode():
            _, (boxes,) = model(torch.from_numpy(square[None, None]))
        rows = torch.column_stack([boxes["boxes"], boxes["scores"]]).numpy()
        found.append(rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])])
    return found


def stored_squares(dataset, side):
    """The squares of a prepared data set by image id, in the order of the ids."""
    store = dataset.store(side)
    return {str(image): np.array(store.image(image)) for image in sorted(store.ids)}
