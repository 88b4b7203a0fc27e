"""Whether every system has the figure that a protocol named, asked before anything is told."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_prep.contracts.tables import InputError
from evaluation.compare.protocol import Protocol
from evaluation.compare.scorecard import Scorecard, why_undefined
from evaluation.metrics.evaluation_set import ALL, Figure


def require_primary(protocol: Protocol, cards: Mapping[str, Scorecard]) -> None:
    """Refuse a line-up whose primary figure is undefined for a system.

    An exploratory comparison is not refused: it says in its answer that there is none.

    Args:
        protocol: What was fixed beforehand.
        cards: One per trained model.

    Raises:
        InputError: A model cannot have the figure, or it is undefined on these images.
    """
    if not protocol.declared:
        return
    figure = Figure(ALL, protocol.policy, protocol.metric)
    for name, card in cards.items():
        weights = np.ones((1, card.judged.n_patients), dtype=np.int16)
        found = card(weights).get(figure)  # without pycocotools, which is slow and agrees
        if found is not None and not np.isnan(found[0]):
            continue
        lacking = card.missing().get(figure)
        reason = lacking or (_NEVER if found is None else why_undefined(figure.metric))
        raise InputError(
            f"protocol: the primary figure '{protocol.metric}' is undefined for {name}: {reason}; "
            "compare systems that have it, or fix another metric; nothing was told and no look "
            "was counted"
        )


_NEVER = "nothing on validation gives it (a score cut comes from boxes, cxr tune --search)"
