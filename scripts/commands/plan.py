"""`cxr plan`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import as_given

_Aurocs = Annotated[Any, Parameter(converter=as_given)]


def plan(
    *,
    auroc: _Aurocs,
    prevalence: float,
    difference: float | None = None,
    half_width: float | None = None,
    margin: float | None = None,
    power: float = 0.8,
    correlation: float = 0.5,
    images: int = 1,
    within: float = 0.5,
) -> Shown:
    """Say how many test patients a comparison needs.

    Args:
        auroc: Assumed AUROC of one system, or of the two to compare, as 0.85,0.80.
        prevalence: Assumed share of the test patients with the disease.
        difference: Smallest difference that would matter; without it that of the two AUROCs.
        half_width: Half-width of a 95 % interval that the study shall have.
        margin: Difference by which the second system shall be shown not to be worse; of one AUROC,
            both have it.
        power: Probability that the difference, or that of the margin, is shown.
        correlation: Assumed correlation of the two systems' scores within a class.
        images: Assumed number of images of each patient.
        within: Assumed correlation of one system's scores of two images of a patient.
    """
    from cxr_compare.evaluation.sample_size import Assumptions, fewest

    widths = {"difference": difference, "half-width": half_width, "margin": margin}
    for argument, value in widths.items():
        if value is not None and not 0 < value < 0.5:
            raise InputError(f"{argument}: {value:g} is not between 0 and 0.5")
    if not 0.05 <= power <= 0.999:
        raise InputError(f"power: {power:g} is not from 0.05 to 0.999")
    if images < 1:
        raise InputError(f"images: {images} is not 1 or more")
    aurocs = _aurocs(auroc, margin)
    assumed = Assumptions(aurocs, prevalence, correlation, images, within)
    are_two = len(aurocs) == 2
    if are_two and difference is None and not margin:
        difference = abs(aurocs[0] - aurocs[1])
    elif difference is not None and not are_two:
        raise InputError("difference: is for two systems; give half-width for one")
    if not difference and not half_width and not margin:
        raise InputError(
            "plan: give two different values of auroc, difference or margin; for one system "
            "half-width"
        )
    studies = []
    if difference:
        least = difference
        study = fewest(assumed, lambda planned: planned.power(least) >= power)
        studies.append((f"show a difference of {least:g} in {100 * power:g} % of studies", study))
    if margin:
        most = margin
        study = fewest(assumed, lambda planned: planned.power_within(most) >= power)
        aim = f"show that the second system is not worse by more than {most:g}"
        studies.append((f"{aim} in {100 * power:g} % of studies", study))
    if half_width:
        most_width = half_width
        study = fewest(
            assumed, lambda planned: planned.half_width(of_difference=are_two) <= most_width
        )
        interval = "95 % interval of the difference" if are_two else "95 % interval"
        studies.append((f"give a {interval} with a half-width of {most_width:g}", study))
    lines = [f"{s.patients:,} test patients, {s.positives:,} positive, {aim}" for aim, s in studies]
    rows = [{"aim": aim, "patients": s.patients, "positives": s.positives} for aim, s in studies]
    return Shown("\n".join(lines), rows)


def _aurocs(auroc: Any, margin: float | None) -> tuple[float, ...]:
    """Return the assumed AUROCs; with a margin, one alone is that of both systems."""
    aurocs = _numbers(auroc)
    if margin is None:
        return aurocs
    if len(aurocs) == 1:
        return aurocs * 2
    if aurocs[0] - aurocs[1] >= margin:
        raise InputError(f"margin: the second AUROC is assumed to be lower by {margin:g} or more")
    return aurocs


def _numbers(auroc: str | float | Iterable[float]) -> tuple[float, ...]:
    """Return numbers that are given alone, in a row, or as a text with commas."""
    parts = auroc.split(",") if isinstance(auroc, str) else auroc
    try:
        return tuple(map(float, parts if isinstance(parts, Iterable) else [parts]))
    except ValueError:
        raise InputError(f"auroc: {auroc} is no number, nor two with a comma") from None
