"""Figures that others published, each with its data and why ours can or cannot be held beside."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

_PNEUMONIA = ("lung_opacity", "pneumonia")


@dataclass(frozen=True)
class Published:
    """One published figure.

    Args:
        system: Who or what reached it.
        metric: Short name of the metric of ours that comes nearest.
        value: The figure, as a share.
        interval: Its 95 % interval, or None where none was published.
        data: What it was measured on.
        source: Where it stands, or that this is unknown.
        comparable: Why it can or cannot be held against this report's figures.
        sources: Data sets (``source`` of the images table) beside which it is shown.
        findings: Findings beside which it is shown.
    """

    system: str
    metric: str
    value: float
    data: str
    source: str
    comparable: str
    sources: tuple[str, ...]
    findings: tuple[str, ...] = _PNEUMONIA
    interval: tuple[float, float] | None = None


_KERMANY = "Kermany et al., Cell 2018;172:1122-1131"
_KERMANY_DATA = "official test folder: 624 images of children, 390 with pneumonia"
_KERMANY_WHY = (
    "Comparable only where this report's test images are that folder. Here splits are by patient, "
    "and byte-identical copies are found; and all are children of one hospital."
)
_RESNET = (
    "Source unknown: handed down with this project's plan; no publication with these figures was "
    "found by search in November 2026"
)
_RESNET_WHY = (
    "As above. The figures mean 584 of 624 images right and 387 of 390 found, so 197 of 234 normal "
    "images (0.842) were called normal; where its threshold was chosen is not known."
)
PUBLISHED = (
    Published(
        "First place of the RSNA challenge 2018 (ensemble)",
        "rsna_score",
        0.2547,
        "the challenge's hidden test images (Kaggle, private leaderboard)",
        "Pan, Cadrin-Chênevert, Cheng: AJR 2019;213:568-574, doi 10.2214/AJR.19.21512",
        "The same rule of scoring and labels of the same making, but other images: the labels of "
        "the challenge's test images were never published, so no split of its training images is "
        "the leaderboard.",
        ("rsna",),
    ),
    Published(
        "RetinaNet ensemble, the best three",
        "rsna_score",
        0.3272,
        "an own split of the RSNA training images",
        "Rajaraman, Guo, Xue, Antani: Diagnostics 2022;12:1442, doi 10.3390/diagnostics12061442 "
        "(abstract read)",
        "Not comparable: a mean average precision on another split of the same images; its authors "
        "set the challenge's 0.2547 beside it, but whether the rule of scoring is the challenge's "
        "was not checked, and a score on easier images is not a better system.",
        ("rsna",),
        interval=(0.3006, 0.3538),
    ),
    Published(
        "CheXNet",
        "f1",
        0.435,
        "420 NIH test images, each read by four radiologists",
        "Rajpurkar et al. 2017, arXiv:1711.05225",
        "Not comparable where labels differ: there pneumonia as each of four radiologists called "
        "it, averaged over them (the radiologists themselves reached 0.387). F1 also changes with "
        "the share of positives.",
        ("nih", "rsna"),
        interval=(0.387, 0.481),
    ),
    *(
        Published(
            "Inception V3, transfer learning", metric, value, _KERMANY_DATA, _KERMANY,
            _KERMANY_WHY, ("kermany",),
        )
        for metric, value in (("accuracy", 0.928), ("recall", 0.932), ("specificity", 0.901))
    ),
    *(
        Published("ResNet50", metric, value, _KERMANY_DATA, _RESNET, _RESNET_WHY, ("kermany",))
        for metric, value in (("accuracy", 0.9359), ("recall", 0.9923), ("auroc", 0.9765))
    ),
)  # fmt: skip
"""Every figure that a report may show; shown only beside related data."""


def related_figures(sources: Collection[str], findings: Collection[str]) -> list[Published]:
    """Return the published figures on the same data or finding as a report's.

    Args:
        sources: Values of ``source`` of the judged images.
        findings: Members of the target.

    Example:
        >>> [(each.system, each.value) for each in related_figures({"nih"}, {"pneumonia"})]
        [('CheXNet', 0.435)]
        >>> related_figures({"rsna"}, {"cardiomegaly"})
        []
    """
    return [
        figure
        for figure in PUBLISHED
        if set(figure.sources) & set(sources) and set(figure.findings) & set(findings)
    ]
