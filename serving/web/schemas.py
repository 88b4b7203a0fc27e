"""Answers of the routes other than those for an image."""

from __future__ import annotations

from pydantic import BaseModel

from cxr_compare.serving.answer import RESEARCH_USE


class SystemFacts(BaseModel):
    """A system that is served.

    Attributes:
        colour: Its colour in overlays, ``#RRGGBB``.
        symbol: Its symbol in overlays, a ``clip-path`` of CSS.
        policy: Rule as it is written; empty where the highest class is called.
        policy_text: Rule that chose the threshold, in words.
        threshold_probability: Calibrated probability of the threshold; None without calibration.
        validation_auroc: AUROC on the validation images, which also chose the threshold.
        ci_low: Lower end of its 95 % interval by patient.
    """

    name: str
    kind: str
    colour: str
    symbol: str
    finding: str
    policy: str
    policy_text: str
    threshold: float | None
    threshold_probability: float | None
    undecided_because: str | None
    trained_on: list[str]
    n_train: int
    synthetic: bool
    validation_auroc: float | None
    ci_low: float | None
    ci_high: float | None
    cautions: list[str]


class Limits(BaseModel):
    """Largest upload."""

    bytes: int
    pixels: int


class ModelsAnswer(BaseModel):
    """The systems that are served."""

    systems: list[SystemFacts]
    limits: Limits
    research_use: str = RESEARCH_USE


class StateAnswer(BaseModel):
    """The server answers."""

    status: str = "ok"
