"""The trainings of `cxr curve`: the images that each learns from, and its configuration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from cxr_compare import DataSet
from cxr_compare.configs.load import (
    dump_config,
    find_config,
    first_difference,
    parse_config,
    read_config,
)
from cxr_compare.configs.settings import KINDS, ProbeConfig
from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.provenance import MadeRecord
from cxr_compare.data_prep.splits.nested_parts import add_nested_parts, draw_nested_parts

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.configs.settings import ClassifierConfig, DetectorConfig

ModelKind = Literal["detector", "classifier", "mixed"]
MODELS: tuple[ModelKind, ...] = ("classifier", "detector", "mixed")
"""Kinds of models of a learning curve, in the order of their training.

A mixed model is a detector that starts from the weights of the classifier of all labels.
"""

_SETTING_NAMES = {
    "detector": "--detector or its settings",
    "classifier": "--classifier or its settings",
    "sizes": "--sizes",
    "splits": "--split",
    "target": "data.target of --set",
    "equal": "--equal",
    "data_set": "data set",
}
"""Names in messages of the settings that a curve was started with."""


@dataclass(frozen=True)
class CurveRun:
    """One training of a learning curve: one kind of model, on a share of the training patients.

    Attributes:
        split: Name of the whole split, whose test images evaluate the model.
        part: Name of the smaller split that is trained on. It has the share of the training and of
            the validation patients of `split`.
        share: Share of these patients, in (0, 1].
        seed: Random seed of the draw of the patients and of the weights.
        folder: Run folder of the training; its log lies beside it.
    """

    model: ModelKind
    split: str
    part: str
    share: float
    seed: int
    folder: Path

    @property
    def predictions(self) -> Path:
        """Folder for the predictions of the trained model for validation and test images."""
        return self.folder.with_name(f"{self.folder.name}.predictions")

    @property
    def title(self) -> str:
        """Name of the training for messages, such as kind of model, share of patients and seed."""
        return f"{self.model}, {self.share:.4g} of {self.split}, seed {self.seed}"

    @property
    def has_ended(self) -> bool:
        """True if the training is complete.

        The weights are complete with ``run.json``. After that, as its last step, ``cxr train``
        chooses the decision rule (threshold and calibration), and it may be killed in between.
        """
        decisions = (self.folder / "validation/decisions").glob("*.json")
        return (self.folder / "run.json").is_file() and any(decisions)


class CurveStarted(MadeRecord, kind="curve_started"):
    """Settings that a later call must not change when it continues a learning curve.

    Attributes:
        detector: Configuration of the detector in TOML.
        classifier: Configuration of the classifier in TOML.
        sizes: Shares of the training patients.
        splits: Digest of each split by its name.
        target: Name of the target; None for the only target of the data set.
        equal: Quantity that is the same for all shares.
        data_set: Digests of the images and of the labels.
    """

    detector: str
    classifier: str
    sizes: list[float]
    splits: dict[str, str]
    target: str | None
    equal: Literal["steps", "epochs"]
    data_set: dict[str, str]


@dataclass(frozen=True)
class CurvePlan:
    """All trainings of a learning curve: detector and classifier on growing shares of the patients.

    A split says which images of the data set are for training, validation and test. For each share,
    a smaller split has only that share of the training and validation patients.

    Attributes:
        folder: Folder of the curve.
        data: Folder of the data set.
        shares: Shares of the training and validation patients, ascending, each in (0, 1].
        seeds: Random seeds, from 0. Each gives a draw of the patients and initial weights.
        parts: Name of each smaller split, by ``(name of the whole split, share, seed)``.
        mixed: True also trains the mixed model: a detector that starts from the weights of the
            classifier.
        equal: Quantity that is the same for all shares: the number of optimiser ``steps`` or of
            ``epochs``.
    """

    folder: Path
    data: Path
    detector: DetectorConfig
    classifier: ClassifierConfig
    shares: Sequence[float]
    seeds: Sequence[int]
    parts: Mapping[tuple[str, float, int], str]
    mixed: bool
    equal: Literal["steps", "epochs"]

    def started(self, dataset: DataSet, splits: Sequence[str]) -> dict[str, Any]:
        """Return the settings that a later call must not change when it continues the curve.

        `splits` are the names of the whole splits. The settings are values for JSON: both
        configurations, the shares of the patients, the digest of each split, and others.
        """
        ids = dataset.ids
        return {
            "detector": dump_config(self.detector),
            "classifier": dump_config(self.classifier),
            "sizes": list(self.shares),
            "splits": {split: ids.split_ids[split] for split in splits},
            "target": self.detector.data.target,
            "equal": self.equal,
            "data_set": {"content_id": ids.content_id, "labels_id": ids.labels_id},
        }

    def record(self, started: Mapping[str, Any], file: str) -> CurveStarted | None:
        """Return the settings of an earlier call if this call may continue its curve.

        A later call may add seeds and the mixed model (a detector that starts from the weights of
        the classifier), but must not change other settings.

        `started` are the settings of the present call, and `file` is the JSON file in the curve's
        folder that stores them; None if there is no such file. Raises InputError if the folder
        holds a curve with other settings.
        """

        def settings_of(facts: Mapping[str, Any]) -> dict[str, Any]:
            configs = {
                kind: parse_config(facts[kind], f"{self.folder}: its {kind}") for kind in KINDS
            }
            return {key: facts[key] for key in started} | configs

        if not (self.folder / file).is_file():
            return None
        record = CurveStarted.read(self.folder / file)
        stored = settings_of(record.to_json())
        for key, value in settings_of(started).items():
            if stored[key] != value:
                difference = f": {first_difference(stored[key], value)}" if key in KINDS else ""
                raise InputError(
                    f"{self.folder}: holds a curve of another {_SETTING_NAMES[key]}{difference}; "
                    "give the old one, or choose another --out"
                )
        return record

    @property
    def splits(self) -> list[str]:
        """Names of the whole splits, such as folds, whose test images evaluate the models."""
        return list(dict.fromkeys(split for split, _, _ in self.parts))

    @property
    def models(self) -> list[ModelKind]:
        """Kinds of the models that are trained: detector, classifier and perhaps mixed."""
        return [model for model in MODELS if self.runs(model)]

    def runs(self, model: ModelKind) -> list[CurveRun]:
        """Return the trainings of one kind of model: one for each whole split, share and seed.

        There is no training of the mixed model (a detector that starts from the classifier's
        weights) for the largest share.
        """
        runs = []
        for split, share, seed in self.parts:
            if model == "mixed" and (not self.mixed or share == max(self.shares)):
                continue
            runs.append(self._run(model, split, share, seed))
        return runs

    def _run(self, model: ModelKind, split: str, share: float, seed: int) -> CurveRun:
        folder = self.folder / "runs" / split / f"{model}-{share:g}-seed-{seed}"
        return CurveRun(model, split, self.parts[split, share, seed], share, seed, folder)

    def config(self, run: CurveRun) -> DetectorConfig | ClassifierConfig:
        """Return the configuration of a training.

        If all shares have equal numbers of steps, a training on a smaller share has more epochs.
        """
        base = self.classifier if run.model == "classifier" else self.detector
        training = base.training
        factor = max(self.shares) / run.share if self.equal == "steps" else 1.0
        changes: dict[str, Any] = {
            "name": f"{base.name[:40]}, {run.share:.4g}, seed {run.seed}",
            "data": base.data.model_copy(update={"split": run.part}),
            "training": training.model_copy(
                update={
                    "seed": run.seed,
                    "epochs": math.ceil(training.epochs * factor),
                    "warmup_epochs": training.warmup_epochs * factor,
                    "patience": math.ceil(training.patience * factor),
                }
            ),
        }
        if run.model == "mixed":
            classifier = self._run("classifier", run.split, max(self.shares), run.seed).folder
            changes["model"] = self.detector.model.model_copy(update={"weights": str(classifier)})
        return base.model_copy(update=changes)

    def write_config(self, run: CurveRun) -> Path:
        """Write the configuration of a training beside its run folder; return the path."""
        file = make_folder(run.folder.parent) / f"{run.folder.name}.toml"
        write_text(file, dump_config(self.config(run)))
        return file


def read_configs(
    dataset: DataSet,
    detector: str,
    detector_overrides: Sequence[str] | Mapping[str, Any],
    classifier: str,
    classifier_overrides: Sequence[str] | Mapping[str, Any],
    *,
    mixed: bool,
    equal: str,
) -> tuple[DetectorConfig, ClassifierConfig]:
    """Read the configurations of both models, and give both the same target.

    The overrides are texts ``section.key=value``, or a mapping from ``section.key`` to value.
    `mixed` also checks that the detector can start from the weights of the classifier. `equal` is
    the quantity that is equal for all shares, ``steps`` or ``epochs``. Raises InputError if a
    configuration cannot be read, belongs to the other kind of model, or does not fit the options.
    """
    detector_config = cast("DetectorConfig", _read_config(detector, detector_overrides, "detector"))
    classifier_config = cast(
        "ClassifierConfig", _read_config(classifier, classifier_overrides, "classifier")
    )
    target = detector_config.data.target or classifier_config.data.target
    name = dataset.target(target).name
    if mixed and detector_config.model.backbone != classifier_config.model.backbone:
        raise InputError(
            f"--mixed: the detector's backbone is {detector_config.model.backbone}, the "
            f"classifier's network is {classifier_config.model.backbone}; a detector starts from a "
            "classifier of the same network: --detector-set model.backbone=NAME, or leave out "
            "--mixed"
        )
    for config in (detector_config, classifier_config):
        if equal == "steps" and config.training.schedule == "plateau":
            raise InputError(
                f"curve: {config.name} has training.schedule = 'plateau', which waits for epochs, "
                "and a small share has more of them; give --equal epochs, or another schedule"
            )
    return _with_target(detector_config, name), _with_target(classifier_config, name)


_AnyConfig = TypeVar("_AnyConfig", "DetectorConfig", "ClassifierConfig")


def _with_target(config: _AnyConfig, target: str) -> _AnyConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"target": target})})


def _read_config(
    config: str, overrides: Sequence[str] | Mapping[str, Any], kind: str
) -> DetectorConfig | ClassifierConfig:
    settings = read_config(find_config(str(config)), overrides)
    if isinstance(settings, ProbeConfig):
        raise InputError(
            f"curve --{kind} {config}: is the configuration of a probe, which has no steps to make "
            "equal; draw its shares with cxr split and fit each with cxr train"
        )
    if settings.kind != kind:
        raise InputError(f"curve --{kind} {config}: is the configuration of a {settings.kind}")
    return settings


def add_parts(
    dataset: DataSet,
    target: str,
    splits: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
) -> dict[tuple[str, float, int], str]:
    """Add smaller splits to a data set, for training on a share of the patients of its splits.

    A split gives each image a role: train, val, test or unused. A smaller split keeps all test
    images, and a share of the training and of the validation patients with all their images. The
    images of the other patients get the role ``unused``. For one seed, a smaller share lies within
    each larger one. Nothing is added unless all smaller splits can be learned from.

    The draw balances the positive and negative patients of the target. A share of 1 is the whole
    split, and has its name. The names are by whole split, share and seed. Raises InputError if no
    positive image has boxes of all its lesions; the images for training, validation or test are all
    positive or all negative (for training and validation, images with unboxed lesions do not
    count); or two shares keep the same patients.
    """
    learned = dataset.target(target)
    labels = dataset.labels(learned).dropna() == 1
    boxed = labels[labels.index.isin(dataset.boxes_trusted(learned))]
    if not boxed.any():
        raise InputError(
            f"curve: target '{target}' has no positive image whose lesions are all boxed; a "
            "detector cannot learn it"
        )
    drawn = draw_nested_parts(dataset, learned, splits, shares, seeds)
    for split, parts in drawn.items():
        test_counts = _counts_if_one_class(labels, dataset.image_ids("test", split))
        if test_counts:
            raise InputError(
                f"curve: split '{split}' tests {test_counts}, and needs both; make another split "
                "with cxr split"
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
    """Refuse splits of which two test the same patient, or that are named twice."""
    patients_by_split: dict[str, set[str]] = {}
    patients = dataset.images.set_index("image_id")["patient_id"]
    for split in splits:
        test_patients = set(patients.reindex(dataset.image_ids("test", split)))
        for other, other_patients in patients_by_split.items():
            if split == other or not other_patients.isdisjoint(test_patients):
                raise InputError(
                    f"curve: splits '{other}' and '{split}' test images of the same patients; give "
                    "one split, or folds (cxr split --folds K --test-folds)"
                )
        patients_by_split[split] = test_patients


def _require_learnable(boxed: pd.Series, part: pd.DataFrame, split: str, share: float) -> None:
    """Refuse a part in which a role lacks positive or negative images that are wholly boxed."""
    for role in ("train", "val"):
        counts = _counts_if_one_class(boxed, part.loc[part["role"] == role, "image_id"])
        if counts:
            advice = "give larger --sizes" if share < 1 else "make another split with cxr split"
            raise InputError(
                f"curve: a share of {share:g} of split '{split}' leaves role '{role}' {counts} "
                f"with all boxes; {advice}"
            )


def _counts_if_one_class(labels: pd.Series, ids: pd.Index | pd.Series) -> str:
    """Return the numbers of positive and negative images if one of them is 0; else nothing."""
    chosen = labels[labels.index.isin(ids)]
    n_positive = int(chosen.sum())
    if 0 < n_positive < len(chosen):
        return ""
    negative = counted(len(chosen) - n_positive, "negative image")
    return f"{counted(n_positive, 'positive')} and {negative}"


def _require_growing(boxed: pd.Series, parts: Mapping[float, pd.DataFrame], split: str) -> None:
    """Refuse shares so near to one another that they keep the same patients."""
    counts = {}
    for share, part in parts.items():
        learning = part.loc[part["role"].isin(["train", "val"]), "image_id"]
        counts[share] = int(boxed.index.isin(learning).sum())
    for fewer, more in itertools.pairwise(sorted(counts)):
        if counts[fewer] == counts[more]:
            raise InputError(
                f"curve --sizes: {fewer:g} and {more:g} keep the same patients of split '{split}'; "
                "give sizes further apart"
            )
