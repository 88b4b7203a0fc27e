"""`cxr plan`: how many test patients a study needs."""

from __future__ import annotations

from typing import Annotated

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.options import read_numbers
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import Argument
from cxr_compare.scripts.runner import command


@command
def plan(
    *,
    auroc: Annotated[tuple[float, ...], Argument(read=read_numbers, metavar="A[,B]")],
    prevalence: float,
    difference: float | None = None,
    half_width: float | None = None,
    power: Annotated[float, Argument(minimum=0.05, maximum=0.999)] = 0.8,
    correlation: float = 0.5,
    images: Annotated[int, Argument(minimum=1)] = 1,
    within: float = 0.5,
) -> Outcome:
    """Compute how many test patients a study needs.

    Args:
        auroc: Assumed AUROC of one system, or of the two to compare.
        prevalence: Assumed share of test patients with the disease.
        difference: Smallest difference that would matter; by default that of --auroc A,B.
        half_width: Half-width of a 95 % interval that the study shall have.
        power: Probability that the difference is shown.
        correlation: Assumed correlation of the two systems' scores within a class.
        images: Assumed number of images of each patient.
        within: Assumed correlation of one system's scores of two images of a patient.

    Returns:
        The number of patients for each requirement.

    Example:
        cxr plan --auroc 0.85,0.80 --prevalence 0.3
    """
    from cxr_compare.studies.sample_size import Assumptions, fewest

    for option, value in (("--difference", difference), ("--half-width", half_width)):
        if value is not None and not 0 < value < 0.5:
            raise InputError(f"plan {option} {value:g}: is not between 0 and 0.5")
    assumed = Assumptions(auroc, prevalence, correlation, images, within)
    two = len(auroc) == 2
    if two and difference is None:
        difference = abs(auroc[0] - auroc[1])
    elif difference is not None and not two:
        raise InputError("plan --difference: is for two systems; give --half-width for one")
    if not difference and not half_width:
        raise InputError("plan: give two different AUROCs or --difference; for one, --half-width")
    rows = []
    if difference:
        shown = difference
        study = fewest(assumed, lambda planned: planned.power(shown) >= power)
        rows.append((f"show a difference of {difference:g} in {100 * power:g} % of studies", study))
    if half_width:
        wanted = half_width
        study = fewest(assumed, lambda planned: planned.half_width(of_difference=two) <= wanted)
        interval = "95 % interval of the difference" if two else "95 % interval"
        rows.append((f"give a {interval} with a half-width of {half_width:g}", study))
    lines = [f"{s.patients:,} test patients, {s.positives:,} positive, {aim}" for aim, s in rows]
    found = [{"aim": aim, "patients": s.patients, "positives": s.positives} for aim, s in rows]
    return Outcome("\n".join(lines), found)
