"""The trainings of `cxr curve`: what each learns from, and its configuration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from cxr_compare.configs.load import (
    dump_config,
    find_config,
    first_difference,
    parse_config,
    read_config,
)
from cxr_compare.configs.settings import KINDS
from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.output_folders import read_matching_record
from cxr_compare.data_prep.duplicates.patient_groups import patient_groups
from cxr_compare.data_prep.splits.nested_parts import add_nested_parts, draw_nested_parts
from cxr_compare.data_prep.store.dataset import DataSet, Target

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.configs.settings import ClassifierConfig, DetectorConfig

Kind = Literal["detector", "classifier", "mixed"]
ARMS: tuple[Kind, ...] = ("classifier", "detector", "mixed")
"""The mixed arm is the detector that starts from the classifier of all labels."""

_STATED = {
    "detector": "--detector or its settings",
    "classifier": "--classifier or its settings",
    "sizes": "--sizes",
    "splits": "--split",
    "target": "--target",
    "equal": "--equal",
    "data_set": "data set",
}  # fmt: skip
"""What a curve was started with, in messages."""


@dataclass(frozen=True)
class CurveRun:
    """One training."""

    arm: Kind  # detector, classifier or mixed
    split: str  # the split whose test images evaluate it
    part: str  # the split that it learns from, which holds a share of the other
    share: float  # of the patients
    seed: int  # of the part and of the weights
    folder: Path  # its run folder; what its process says lies beside it

    @property
    def predictions(self) -> Path:
        """Where its predictions of validation and test images lie."""
        return self.folder.with_name(f"{self.folder.name}.predictions")

    @property
    def words(self) -> str:
        """How it is called in messages."""
        return f"{self.arm}, {self.share:.4g} of {self.split}, seed {self.seed}"

    @property
    def has_ended(self) -> bool:
        """Whether its training is complete."""
        return (self.folder / "run.json").is_file()


@dataclass(frozen=True)
class CurvePlan:
    """All trainings of a curve."""

    folder: Path  # the curve's
    data: Path  # the data set
    detector: DetectorConfig  # its configuration
    classifier: ClassifierConfig  # its configuration
    shares: Sequence[float]  # of the annotated patients, ascending
    seeds: Sequence[int]  # from 0
    parts: Mapping[tuple[str, float, int], str]  # name of the split of each split, share and seed
    mixed: bool  # whether there is the third arm
    equal: Literal["steps", "epochs"]  # of which all shares learn for as many

    def started(self, dataset: DataSet, splits: Sequence[str]) -> dict[str, Any]:
        """What another call must find unchanged to go on."""
        ids = dataset.ids
        return {
            "detector": dump_config(self.detector),
            "classifier": dump_config(self.classifier),
            "sizes": list(self.shares),
            "splits": {split: ids["split_ids"][split] for split in splits},
            "target": self.detector.data.target,
            "equal": self.equal,
            "data_set": {key: ids[key] for key in ("content_id", "labels_id")},
        }

    def record(self, started: Mapping[str, Any], file: str) -> dict[str, Any] | None:
        """What this curve was started with before; refuses a folder of another one.

        Seeds and the third arm may be added.
        """

        def question(facts: Mapping[str, Any]) -> dict[str, Any]:
            arms = {arm: parse_config(facts[arm], f"{self.folder}: its {arm}") for arm in KINDS}
            return {key: facts[key] for key in started} | arms

        def refusal(key: str, was: Any, now: Any) -> str:
            differs = f": {first_difference(was, now)}" if key in KINDS else ""
            return (
                f"holds a curve of another {_STATED[key]}{differs}; give the old one, or choose "
                "another --out"
            )

        files = {file: "curve_started"}
        return read_matching_record(
            self.folder, files, question(started), stored_settings=question, refusal=refusal
        )

    @property
    def splits(self) -> list[str]:
        """The splits, each with test images of its own."""
        return list(dict.fromkeys(split for split, _, _ in self.parts))

    @property
    def arms(self) -> list[Kind]:
        """The arms that have trainings."""
        return [arm for arm in ARMS if self.runs(arm)]

    def runs(self, arm: Kind) -> list[CurveRun]:
        """The trainings of an arm; with all images boxed nothing is mixed."""
        return [
            self._run(arm, split, share, seed)
            for (split, share, seed) in self.parts
            if not (arm == "mixed" and (not self.mixed or share == max(self.shares)))
        ]

    def _run(self, arm: Kind, split: str, share: float, seed: int) -> CurveRun:
        folder = self.folder / "runs" / split / f"{arm}-{share:g}-seed-{seed}"
        return CurveRun(arm, split, self.parts[split, share, seed], share, seed, folder)

    def config(self, run: CurveRun) -> DetectorConfig | ClassifierConfig:
        """What a training is given."""
        base = self.classifier if run.arm == "classifier" else self.detector
        training = base.training
        longer = max(self.shares) / run.share if self.equal == "steps" else 1.0
        changed: dict[str, Any] = {
            "name": f"{base.name[:40]}, {run.share:.4g}, seed {run.seed}",
            "data": base.data.model_copy(update={"split": run.part}),
            "training": training.model_copy(
                update={
                    "seed": run.seed,
                    "epochs": math.ceil(training.epochs * longer),
                    "warmup_epochs": training.warmup_epochs * longer,
                    "patience": math.ceil(training.patience * longer),
                }
            ),
        }
        if run.arm == "mixed":
            whole = self._run("classifier", run.split, max(self.shares), run.seed).folder
            changed["model"] = self.detector.model.model_copy(update={"weights": str(whole)})
        return base.model_copy(update=changed)

    def write_config(self, run: CurveRun) -> Path:
        """Write what a training is given beside its folder."""
        file = make_folder(run.folder.parent) / f"{run.folder.name}.toml"
        write_text(file, dump_config(self.config(run)))
        return file


def read_arms(
    dataset: DataSet,
    detector: str,
    of_detector: Sequence[str] | Mapping[str, Any],
    classifier: str,
    of_classifier: Sequence[str] | Mapping[str, Any],
    *,
    target: str | None,
    mixed: bool,
    equal: str,
) -> tuple[DetectorConfig, ClassifierConfig]:
    """Read both configurations, each with the keys to replace, and give both the same target."""
    first = _read_arm(detector, of_detector, "detector")
    second = _read_arm(classifier, of_classifier, "classifier")
    name = dataset.target(target or first.data.target or second.data.target).name
    own, other = (
        config.model_copy(update={"data": config.data.model_copy(update={"target": name})})
        for config in (first, second)
    )
    both = cast("DetectorConfig", own), cast("ClassifierConfig", other)
    if mixed and first.model.backbone != second.model.backbone:
        raise InputError(
            f"--mixed: the detector's backbone is {first.model.backbone}, the classifier's network "
            f"is {second.model.backbone}; a detector starts from a classifier of the same network: "
            "--detector-set model.backbone=NAME, or leave out --mixed"
        )
    for config in both:
        if equal == "steps" and config.training.schedule == "plateau":
            raise InputError(
                f"curve: {config.name} has training.schedule = 'plateau', which waits for epochs, "
                "and a small share has more of them; give --equal epochs, or another schedule"
            )
    return both


def _read_arm(
    config: str, overrides: Sequence[str] | Mapping[str, Any], kind: str
) -> DetectorConfig | ClassifierConfig:
    settings = read_config(find_config(str(config)), overrides)
    if settings.kind != kind:
        raise InputError(f"curve --{kind} {config}: is the configuration of a {settings.kind}")
    return settings


def add_parts(
    dataset: DataSet,
    target: Target,
    splits: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
) -> dict[tuple[str, float, int], str]:
    """Draw the parts, check that each can be learned from and evaluated, and only then add them.

    Gives the name of the split of each split, share and seed.
    """
    labels = dataset.labels(target).dropna() == 1
    boxed = labels[labels.index.isin(dataset.boxes_trusted(target))]
    if not boxed.any():
        raise InputError(
            f"curve: target '{target.name}' has no positive image whose lesions are all boxed; a "
            "detector cannot learn it"
        )
    drawn = draw_nested_parts(dataset, target, splits, shares, seeds)
    for split, parts in drawn.items():
        if lacking := _lacking_a_class(labels, dataset.image_ids("test", split)):
            raise InputError(
                f"curve: split '{split}' tests {lacking}, and needs both; make another split with "
                "cxr split"
            )
        for (share, _), part in parts.items():
            _require_learnable(boxed, part, split, share)
        for seed in seeds:
            _require_growing(boxed, {share: parts[share, seed] for share in shares}, split)
    return {
        (split, share, seed): name
        for split, parts in drawn.items()
        for (share, seed), name in add_nested_parts(dataset, split, parts).items()
    }


def require_different_tests(dataset: DataSet, splits: Sequence[str]) -> None:
    """Refuse splits that test the same patients: they are no folds of one study."""
    seen: dict[str, set[str]] = {}
    patients = patient_groups(dataset.images)
    for split in splits:
        tested = set(patients.reindex(dataset.image_ids("test", split)))
        for other, known in seen.items():
            if split == other or not known.isdisjoint(tested):
                raise InputError(
                    f"curve: splits '{other}' and '{split}' test images of the same patients; give "
                    "one split, or folds (cxr split --folds K --test-folds)"
                )
        seen[split] = tested


def _require_learnable(boxed: pd.Series, part: pd.DataFrame, split: str, share: float) -> None:
    """Refuse a part of which a role lacks positive or negative images that are wholly boxed."""
    for role in ("train", "val"):
        if lacking := _lacking_a_class(boxed, part.loc[part["role"] == role, "image_id"]):
            advice = "give larger --sizes" if share < 1 else "make another split with cxr split"
            raise InputError(
                f"curve: a share of {share:g} of split '{split}' leaves role '{role}' {lacking} "
                f"with all boxes; {advice}"
            )


def _lacking_a_class(labels: pd.Series, ids: pd.Index | pd.Series) -> str:
    """How many of these images are of either class, if one has none; else nothing."""
    of_ids = labels[labels.index.isin(ids)]
    n_positive = int(of_ids.sum())
    if 0 < n_positive < len(of_ids):
        return ""
    negative = counted(len(of_ids) - n_positive, "negative image")
    return f"{counted(n_positive, 'positive')} and {negative}"


def _require_growing(boxed: pd.Series, parts: Mapping[float, pd.DataFrame], split: str) -> None:
    """Refuse shares so near to one another that they keep the same patients."""
    counts = {}
    for share, part in parts.items():
        kept = part.loc[part["role"].isin(["train", "val"]), "image_id"]
        counts[share] = int(boxed.index.isin(kept).sum())
    for fewer, more in itertools.pairwise(sorted(counts)):
        if counts[fewer] == counts[more]:
            raise InputError(
                f"curve --sizes: {fewer:g} and {more:g} keep the same patients of split '{split}'; "
                "give sizes further apart"
            )
