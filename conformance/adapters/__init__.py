"""One file a program: its name at PyPI, options that were chosen for it, functions of a case."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from conformance.cases import Case


def of_arrays(
    figures: Mapping[str, Callable[[Case], float | None]],
) -> dict[str, Callable[[Case], float | None]]:
    """Return functions of a case whose labels, scores and patients are arrays as those of lists."""

    def with_arrays(figure: Callable[[Case], float | None]) -> Callable[[Case], float | None]:
        return lambda case: figure(_arrays(case))

    return {name: with_arrays(figure) for name, figure in figures.items()}


def _arrays(case: Case) -> Case:
    return replace(
        case,
        labels=np.array(case.labels),
        scores=np.array(case.scores),
        others=None if case.others is None else np.array(case.others),
        patients=None if case.patients is None else np.array(case.patients),
    )
