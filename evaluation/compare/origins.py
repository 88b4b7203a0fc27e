"""Where a comparison comes from: data, systems, what they learned from, how it was resampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.contracts.folders import provenance
from data_prep.store.dataset import DataSet
from data_prep.store.predictions import Predictions
from evaluation.decisions.tuning import Decision
from evaluation.statistics.bca import n_groups
from evaluation.statistics.bootstrap import Resamples
from evaluation.systems.exposure import trained_on

_RECORDED = (
    "system", "seed", "kind", "inference_id", "maps", "command", "created", "revision", "versions",
)  # fmt: skip


def comparison_provenance(
    members: Mapping[str, Predictions],
    teams: Mapping[str, list[str]],
    dataset: DataSet,
    decisions: Mapping[str, Decision],
    split: str,
    resamples: Resamples,
) -> dict[str, Any]:
    """Ids, seeds, versions and what each system was trained on.

    Args:
        members: Predictions by model.
        teams: The models of each system.
        dataset: The data set judged on.
        decisions: By model.
        split: Name of the split.
        resamples: Of the bootstrap.

    Returns:
        As `Comparison.provenance`.
    """
    facts = {
        name: {
            "folder": str(system.folder),
            **{key: system.info.get(key) for key in _RECORDED},
            "trained_on": trained_on(system),
            "decision": decisions[name].to_json(),
        }
        for name, system in members.items()
    }
    seeds = {
        name: facts[models[0]]["seed"] if len(models) == 1 else [facts[m]["seed"] for m in models]
        for name, models in teams.items()
    }
    return provenance() | {
        "data_set": {"name": dataset.name, **dataset.ids, "split": split},
        "bootstrap": how_resampled(resamples),
        "seeds": seeds,
        "systems": {
            name: facts[models[0]]
            | {"seed": seeds[name]}
            | ({"models": [facts[m] for m in models]} if len(models) > 1 else {})
            for name, models in teams.items()
        },
    }


def how_resampled(resamples: Resamples) -> dict[str, Any]:
    """What gives the same intervals again, and for BCa what the jackknife left out.

    Example:
        >>> how_resampled(Resamples(5000, interval="bca"))["left_out"]
        '1,000 groups of patients'
    """
    told = {"replicates": resamples.n_replicates, "seed": resamples.seed}
    if resamples.interval == "percentile":
        return told | {"interval": "percentile"}
    groups = n_groups(resamples.n_clusters)
    alone = groups == resamples.n_clusters
    left_out = f"each of {groups:,} patients" if alone else f"{groups:,} groups of patients"
    return told | {"interval": "bca", "left_out": left_out}
