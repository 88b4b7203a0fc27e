"""Public classifiers of chest X-rays, recognised by their tensors: findings and pixels.

No torch: names and shapes are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from networks.checkpoints import body_key, guess_architecture

# The order in which arnoweng/CheXNet, zoogzog/chexnet and jrzech/reproduce-chexnet all give them.
_CHEXNET_FINDINGS = (
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
    "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural_thickening",
    "hernia",
)  # fmt: skip
# `default_pathologies` of torchxrayvision.
_XRAYVISION_FINDINGS = (
    "atelectasis", "consolidation", "infiltration", "pneumothorax", "edema", "emphysema",
    "fibrosis", "effusion", "pneumonia", "pleural_thickening", "cardiomegaly", "nodule", "mass",
    "hernia", "lung_lesion", "fracture", "lung_opacity", "enlarged_cardiomediastinum",
)  # fmt: skip


# `model_urls` in torchxrayvision's models.py says so; its README says what the short names are.
_XRAYVISION_LEARNED = {
    "densenet121": "the data set that its file's name tells, or as `all` from NIH, PadChest, "
    "CheXpert, MIMIC-CXR, NIH as Google labelled it, OpenI and RSNA",
    "resnet50": "PadChest, NIH, RSNA, SIIM and VinDr-CXR",
}


@dataclass(frozen=True)
class PublicCheckpoint:
    """What is known of a public checkpoint."""

    maker: str  # who published it
    findings: tuple[str, ...]  # what its last layer finds, in order; empty where not known
    weight: str  # name of the last layer's weights, float (findings, features)
    bias: str  # name of its biases
    mean: float  # of the pixels that it wants, in [0, 1]
    std: float
    channels: str  # ``imagenet`` where the three are normalised as ImageNet's colours
    size: int  # side of the images that it learned from, px
    trained_on: str


def recognise(shapes: Mapping[str, Sequence[int]]) -> PublicCheckpoint | None:
    """Tell which public checkpoint a file holds.

    Args:
        shapes: Shape of each tensor by its name in the file.

    Returns:
        What is known of it; None where it is none of those known here.

    Source:
        arnoweng/CheXNet ``model.py``, zoogzog/chexnet ``DensenetModels.py`` and
        ``ChexnetTrainer.py``, jrzech/reproduce-chexnet ``model.py`` and ``cxr_dataset.py``,
        mlmed/torchxrayvision ``models.py``, ``datasets.py`` and ``utils.normalize``, version 1.5.2.

    Example:
        >>> shapes = {f"features.denseblock{b}.denselayer{n}.conv1.weight": (128, 64, 1, 1)
        ...           for b, n in ((1, 6), (2, 12), (3, 24), (4, 16))}
        >>> shapes |= {"features.conv0.weight": (64, 1, 7, 7), "classifier.weight": (18, 1024)}
        >>> found = recognise(shapes)
        >>> found.maker, found.mean, 1 / found.std  # from -1024 to 1024
        ('torchxrayvision', 0.5, 2048.0)
    """
    what = guess_architecture(shapes)
    if what not in _XRAYVISION_LEARNED:
        return None
    names = {body_key(key): key for key in shapes}
    first, plain = (
        names.get(f"{layer}.weight", "")
        for layer in (("conv0", "classifier") if what == "densenet121" else ("conv1", "fc"))
    )
    known = bool(plain) and shapes[plain][0] == len(_XRAYVISION_FINDINGS)
    stem = shapes.get(first, ())
    if len(stem) == 4 and stem[1] == 1 and (known or what == "densenet121"):
        return PublicCheckpoint(
            maker="torchxrayvision",
            findings=_XRAYVISION_FINDINGS if known else (),
            weight=plain,
            bias=plain.removesuffix("weight") + "bias",
            mean=0.5,
            std=1 / 2048,
            channels="same",
            size=224 if what == "densenet121" else 512,
            trained_on=_XRAYVISION_LEARNED[what],
        )
    # A linear layer and a sigmoid in a row, as all three CheXNets of 14 findings have it.
    last = names.get("classifier.0.weight", "")
    if what != "densenet121" or not last or shapes[last][0] != len(_CHEXNET_FINDINGS):
        return None
    return PublicCheckpoint(
        maker="a public CheXNet",
        findings=_CHEXNET_FINDINGS,
        weight=last,
        bias=last.removesuffix("weight") + "bias",
        mean=0.449,
        std=0.226,
        channels="imagenet",
        size=224,
        trained_on="NIH ChestX-ray14, from which RSNA's images come, too",
    )
