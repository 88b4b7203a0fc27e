"""Public classifiers of chest X-rays, which are recognised by the tensors of their checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cxr_compare.networks.checkpoints import Checkpoint, guess_network
from cxr_compare.networks.tensor_names import name_in_body


@dataclass(frozen=True)
class PublicCheckpoint:
    """A public classifier of chest X-rays: its outputs, its input and its training data.

    Attributes:
        maker: Name of the publisher, such as ``torchxrayvision``, for messages.
        findings: Findings that the outputs are for, in their order; empty if they are not known.
        last: Name of the last layer, such as ``classifier``, with which the names of its tensors
            begin.
        mean: Number that was subtracted from the pixels in training, for pixels scaled to [0, 1].
        std: Number that the pixels were then divided by, on the same scale.
        channels: ``imagenet`` if each of the network's three input channels gets the grey image
            normalised as a colour of ImageNet, ``same`` if all three get the same values.
        size: Side of its training images, px.
        trained_on: Data sets of its training, as a phrase for messages.
    """

    maker: str
    findings: tuple[str, ...]
    last: str
    mean: float
    std: float
    channels: str
    size: int
    trained_on: str


# Outputs in the order of arnoweng/CheXNet, zoogzog/chexnet and jrzech/reproduce-chexnet.
CHEXNET_FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural_thickening",
    "hernia",
)
_CHEXNET = PublicCheckpoint(
    maker="a public CheXNet",
    findings=CHEXNET_FINDINGS,
    last="classifier.0",  # the first layer of a sequence, before its sigmoid
    mean=0.449,
    std=0.226,
    channels="imagenet",
    size=224,
    trained_on="NIH ChestX-ray14, from which RSNA's images come, too",
)
# Outputs in the order of `default_pathologies` of torchxrayvision.
XRAYVISION_FINDINGS = (
    "atelectasis",
    "consolidation",
    "infiltration",
    "pneumothorax",
    "edema",
    "emphysema",
    "fibrosis",
    "effusion",
    "pneumonia",
    "pleural_thickening",
    "cardiomegaly",
    "nodule",
    "mass",
    "hernia",
    "lung_lesion",
    "fracture",
    "lung_opacity",
    "enlarged_cardiomediastinum",
)
_XRAYVISION = PublicCheckpoint(
    maker="torchxrayvision",
    findings=XRAYVISION_FINDINGS,
    last="classifier",
    mean=0.5,
    std=1 / 2048,
    channels="same",
    size=224,
    # From `model_urls` in its models.py; its README explains the short names.
    trained_on="the data set that its file's name tells, or as `all` from NIH, PadChest, "
    "CheXpert, MIMIC-CXR, NIH as Google labelled it, OpenI and RSNA",
)
_PUBLIC = {  # by the network and the number of channels that its first layer reads
    ("densenet121", 3): _CHEXNET,
    ("densenet121", 1): _XRAYVISION,
    ("resnet50", 1): replace(
        _XRAYVISION, last="fc", size=512, trained_on="PadChest, NIH, RSNA, SIIM and VinDr-CXR"
    ),
}


def recognise_public_checkpoint(checkpoint: Checkpoint) -> PublicCheckpoint | None:
    """Return facts about the public chest X-ray classifier that a checkpoint contains, if any.

    The classifier is recognised by names and shapes of its tensors.

    The facts have the name of the last layer in this checkpoint; the findings are left empty if a
    torchxrayvision network has an unusual number of outputs. The result is None for a checkpoint
    whose outputs are named (one of a training by `cxr train`), and for an unknown network.

    Source:
        arnoweng/CheXNet ``model.py``, zoogzog/chexnet ``DensenetModels.py`` and
        ``ChexnetTrainer.py``, jrzech/reproduce-chexnet ``model.py`` and ``cxr_dataset.py``,
        mlmed/torchxrayvision ``models.py``, ``datasets.py`` and ``utils.normalize``, version 1.5.2.
    """
    if checkpoint.findings is not None:
        return None
    shapes = checkpoint.shapes
    network = guess_network(shapes, ("densenet121", "resnet50"))
    keys = {name_in_body(key): key for key in shapes}
    first_layer = keys.get("conv0.weight", keys.get("conv1.weight"))
    if network is None or first_layer is None:
        return None
    public = _PUBLIC.get((network, shapes[first_layer][1]))
    if public is None:
        return None
    last_layer = keys.get(f"{public.last}.weight")
    if last_layer and shapes[last_layer][0] == len(public.findings):
        return replace(public, last=last_layer.removesuffix(".weight"))
    return replace(_XRAYVISION, findings=()) if public is _XRAYVISION else None
