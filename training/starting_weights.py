"""What a training starts from: a weights file, or a run of ours with all that it has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data_prep.contracts.folders import read_json
from data_prep.store.preprocess import Preprocess
from networks.public_checkpoints import PublicCheckpoint, recognise
from training.run_folder import ARCHITECTURE_FILE, WEIGHTS_FILE, RunFolder, read_weights

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_Model = TypeVar("_Model")

_PUBLISHED = ("imagenet", "coco")
_USED = ("train", "val")  # to fit, to select


@dataclass(frozen=True)
class Start:
    """Weights from a file or a run.

    Attributes:
        source: As the configuration names it.
        state: Tensors by name.
        run: The run that made them; None for a file from elsewhere.
    """

    source: str
    state: Mapping[str, Tensor]
    run: RunFolder | None

    @classmethod
    def open(cls, weights: str) -> Start | None:
        """Read what a configuration's ``weights`` names.

        A weights file that lies in a run folder counts as that run, so that what it has seen is
        not lost; the run need not have ended, as one that diverges never does.
        """
        if weights in ("none", *_PUBLISHED):
            return None
        path = Path(weights)
        if path.is_dir():
            run = RunFolder.open(path)
            return cls(weights, read_weights(path / WEIGHTS_FILE), run)
        state = read_weights(path)
        home = path.resolve().parent
        home = home.parent if home.name == "checkpoints" else home
        return cls(weights, state, RunFolder.started_in(home))

    @property
    def name(self) -> str:
        """Of its run folder, or of the file."""
        return self.run.folder.name if self.run else Path(self.source).name

    @property
    def findings(self) -> tuple[str, ...] | None:
        """What the run learned to find; None where it is not known."""
        return tuple(self.run.started["findings"]) if self.run else None

    @property
    def preprocess(self) -> Preprocess | None:
        """Size and normalisation of the images that the run learned from."""
        return Preprocess.from_json(self.run.folder / "preprocess.json") if self.run else None

    @property
    def arguments(self) -> dict[str, Any]:
        """What the run's model was built with; empty where that is not known."""
        if self.run is None:
            return {}
        made = read_json(self.run.folder / ARCHITECTURE_FILE, "model")["architecture"]
        return dict(made["arguments"])

    @property
    def network(self) -> str | None:
        """Backbone of the run's model, a classifier's or a detector's; None where not known."""
        return self.arguments.get("name") or self.arguments.get("backbone")

    @property
    def public(self) -> PublicCheckpoint | None:
        """What is known of weights from elsewhere; None of a run's, and of those not known."""
        if self.run is not None:
            return None
        return recognise({key: tuple(value.shape) for key, value in self.state.items()})

    @property
    def normalisation(self) -> dict[str, float]:
        """Mean and standard deviation of the pixels that it learned; empty where not known."""
        learned = self.preprocess or self.public
        return {} if learned is None else {"mean": learned.mean, "std": learned.std}

    def pixel_notes(self, size: int) -> list[str]:
        """How its pixels were, and what of it differs from a training at a size; a line or none."""
        was, public, pixels = self.preprocess, self.public, self.normalisation
        if not pixels:
            return []
        lines = [
            f"{self.source}: pixels are normalised as it learned them, mean {pixels['mean']:g}, "
            f"std {pixels['std']:g}"
        ]
        if public:
            lines.append(
                f"it is of {public.maker}, which learned at {public.size} px from "
                f"{public.trained_on}: test images among those would look better than they are"
            )
        if was and was.size != size:
            lines.append(f"it learned at {was.size} px, this training is at {size} px")
        return ["; ".join(lines)]

    @property
    def seen(self) -> pd.DataFrame | None:
        """Every image that the run used to fit or to select, and those of what it started from."""
        return self.run.seen if self.run else None

    def record(self) -> dict[str, Any]:
        """For `run.json`: which weights, what they learned, on what, from what."""
        if self.run is None:
            return {"weights": self.source, "trained_on": "unknown"}
        started, seen = self.run.started, self.run.seen
        kept = ("name", "model_kind", "target", "findings", "seed", "data_set", "started_from")
        return {
            "weights": self.source,
            **{key: started[key] for key in kept if key in started},
            "n_images": len(seen),
            "n_patients": int(seen["patient_id"].nunique()),
        }


def initialise(
    build: Callable[..., _Model], weights: str, *, seed: int, **arguments: Any
) -> _Model:
    """Build a model from a seed, or from published weights."""
    import torch

    published = weights if weights in _PUBLISHED else None
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return build(weights=published, **arguments)


def merge_seen(own: pd.DataFrame, inherited: pd.DataFrame | None, name: str) -> pd.DataFrame:
    """Add what the starting weights saw to what a training uses.

    An image that either used to fit is fitted on, whatever the other used it for.
    """
    import pandas as pd

    if inherited is None or inherited.empty:
        return own
    patients = own.set_index("image_id")["patient_id"]
    known = inherited["image_id"].isin(patients.index)
    same = known & (inherited["patient_id"] == inherited["image_id"].map(patients))
    fitted = set(inherited.loc[same & (inherited["role"] == "train"), "image_id"])
    own = own.assign(role=own["role"].mask(own["image_id"].isin(fitted), "train"))
    rest = inherited[~same].copy()
    clash = known[~same]
    rest.loc[clash, "image_id"] = name + ":" + rest.loc[clash, "image_id"]
    return pd.concat([own, rest[own.columns]], ignore_index=True)


def leak_lines(
    own: pd.DataFrame, inherited: pd.DataFrame | None, test: pd.DataFrame, source: str
) -> list[str]:
    """Say where the starting weights make a training's figures too good."""
    if inherited is None:
        return []
    used = inherited[inherited["role"].isin(_USED)]
    lines = []
    chosen = own[own["role"] == "val"]
    fitted = set(used.loc[used["role"] == "train", "patient_id"])
    if n := int(chosen["patient_id"].isin(fitted).sum()):
        lines.append(
            f"{source}: learned from patients of {n} of the {len(chosen)} validation images; the "
            "validation figures will look better than they are"
        )
    leaked = test["patient_id"].isin(set(used["patient_id"]))
    leaked |= test["image_id"].isin(set(used["image_id"]))
    if n := int(leaked.sum()):
        lines.append(
            f"{source}: has seen patients of {n} of the {len(test)} test images; cxr compare will "
            "refuse this run on this split: train both on the same split"
        )
    return lines
