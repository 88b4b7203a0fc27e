"""The protocol file of the full-size answer: its keys, their checks, and its rehearsal."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from cxr_compare.configs.load import find_config, first_problem, read_config
from cxr_compare.configs.model_settings import Section
from cxr_compare.configs.protocol_file import ProtocolFile
from cxr_compare.configs.settings import Config, ProbeConfig
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text_files import read_toml_file

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 .-]*$", max_length=30)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=20)]
Share = Annotated[float, Field(gt=0, lt=1)]
Side = Annotated[int, Field(ge=32, le=2048, multiple_of=32)]
Positive = Annotated[float, Field(gt=0)]


class DataKeys(Section):
    """Keys of ``[data]``: folders of the images, the size at which they are read, and their counts.

    Attributes:
        training: Folder in Kaggle's layout, whose images are divided into folds.
        challenge: Folder of RSNA's own release, with the challenge's test images; empty for none.
        image_size: Side of the square images that every system reads, px.
        n_training: Least number of images in ``training``.
        n_challenge: Least number of test images of the challenge.
    """

    training: str = Field(min_length=1)
    challenge: str = ""
    image_size: Side
    n_training: int = Field(ge=1)
    n_challenge: int = Field(default=3000, ge=1)


class FoldKeys(Section):
    """Keys of ``[folds]``: how the patients are divided.

    Attributes:
        number: Number of folds.
        used: Number of folds that are trained and tested, from the first one on.
        validation: Share of the patients outside the test fold who validate.
        seed: Random seed of the draw.
    """

    number: int = Field(ge=3, le=20)
    used: int = Field(ge=2)
    validation: Share
    seed: Seed = 0

    @model_validator(mode="after")
    def _uses_folds_that_exist(self) -> Self:
        if self.used > self.number:
            raise ValueError(f"used = {self.used} exceeds number = {self.number}; lower it")
        return self


class TrainingKeys(Section):
    """Keys of ``[training]``: the budget, which is the same for all trained systems.

    Attributes:
        seeds: Random seeds of the trainings, one training for each.
        epochs: Number of epochs of every training; none stops early.
        replicates: Number of bootstrap replicates of each comparison.
    """

    seeds: Seeds
    epochs: int = Field(ge=1)
    replicates: int = Field(default=2000, ge=100)


class SystemKeys(Section):
    """Keys of a ``[[system]]``: a model that is trained in every fold.

    Attributes:
        name: Name of the system in reports and folders.
        config: Name or path of its training configuration (`cxr configs`).
        set: Keys of the configuration that are replaced, as with ``cxr train --set``.
        seeds: Random seeds of this system, if they are not those of ``[training]``.
    """

    name: Name
    config: str = Field(min_length=1)
    set: dict[str, Any] = Field(default={})
    seeds: Seeds | None = None


class LeakKeys(Section):
    """Keys of ``[leak]``: the trainings on images that were split without regard to patients.

    Attributes:
        used: Number of folds; 0 leaves these trainings out.
        seeds: Random seeds of the trainings.
    """

    used: int = Field(ge=0)
    seeds: Seeds

    @model_validator(mode="after")
    def _has_none_or_two_folds(self) -> Self:
        if self.used == 1:
            raise ValueError("used = 1: a mean over folds needs two; 0 leaves the leak out")
        return self


class GoalKeys(Section):
    """Keys of a ``[[goal]]``: a figure, and what was demanded of it beforehand.

    Attributes:
        metric: Short name of the metric.
        on: Which figure is meant: over all images of all folds (``pooled``), the mean over folds
            (``folds``), or on the images of the challenge (``challenge``).
        systems: Names of the systems of which the goal is demanded.
        at_least: Smallest figure that meets the goal; None demands none.
        half_width: Largest half-width of the 95 % interval that meets the goal; None demands none.
    """

    metric: Literal["auroc", "average_precision", "ap50", "froc_mean", "rsna_score"]
    on: Literal["pooled", "folds", "challenge"]
    systems: list[Name] = Field(min_length=1)
    at_least: Share | None = None
    half_width: Share | None = None

    @model_validator(mode="after")
    def _pools_image_scores_only(self) -> Self:
        if self.on == "pooled" and self.metric not in ("auroc", "average_precision"):
            raise ValueError(
                f'metric = "{self.metric}" is one of boxes, whose scores are not calibrated over '
                'folds; take on = "folds"'
            )
        return self


class MachineKeys(Section):
    """Keys of ``[machine]``: what the prediction of the hours assumes.

    Attributes:
        name: Name of the machine.
        tflops_training: Peak speed in the number format of a training, TFLOP/s.
        tflops_prediction: Peak speed with fp32, in which predictions are computed, TFLOP/s.
        share: Shares of these peaks that are reached, the pessimistic one first.
        processors: Number of processors that read images.
    """

    name: str = Field(min_length=1)
    tflops_training: Positive
    tflops_prediction: Positive
    share: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=2, max_length=2)
    processors: int = Field(ge=1)


class RehearsedSystem(Section):
    """Keys of a ``[[rehearsal.system]]``: the small configuration that stands in for a system.

    Attributes:
        name: Name of a ``[[system]]``.
        config: Name or path of the small configuration.
        set: Keys of the small configuration that are replaced.
    """

    name: Name
    config: str = Field(min_length=1)
    set: dict[str, Any] = Field(default={})


class RehearsalKeys(Section):
    """Keys of ``[rehearsal]``: what replaces the values of the protocol in a rehearsal.

    Attributes:
        folds: Number of folds.
        used: Number of folds that are trained.
        seeds: Random seeds of the trainings.
        leak_seeds: Random seeds of the trainings on the leaky split.
        epochs: Number of epochs.
        replicates: Number of bootstrap replicates of each comparison.
        image_size: Side of the images, px.
        challenge_share: Share of the images that stand in for those of the challenge.
        challenge_seed: Random seed of their draw.
        system: Small configurations, by the names of the systems.
    """

    folds: int = Field(ge=3, le=20)
    used: int = Field(ge=2)
    seeds: Seeds
    leak_seeds: Seeds
    epochs: int = Field(ge=1)
    replicates: int = Field(default=2000, ge=100)
    image_size: Side
    challenge_share: Share
    challenge_seed: Seed = 0
    system: list[RehearsedSystem] = Field(default=[])


class Protocol(Section):
    """All keys of the protocol of the full-size answer.

    Attributes:
        name: Name of the study.
        data: Folders and counts of images.
        folds: Division of the patients.
        training: Budget of every training.
        system: Systems that are compared.
        leak: Trainings on a leaky split.
        question: Question of each comparison, with the keys of ``cxr compare --protocol``.
        goal: Figures that were demanded beforehand.
        machine: Assumptions of the prediction of the hours.
        rehearsal: Values that a rehearsal replaces.
    """

    name: str = Field(min_length=1)
    data: DataKeys
    folds: FoldKeys
    training: TrainingKeys
    system: list[SystemKeys] = Field(min_length=2)
    leak: LeakKeys
    question: ProtocolFile
    goal: list[GoalKeys] = Field(default=[])
    machine: MachineKeys
    rehearsal: RehearsalKeys

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [system.name for system in self.system]
        if len(set(names)) < len(names):
            raise ValueError(f"system: two have one name ({', '.join(names)}); rename one")
        if self.leak.used > self.folds.used:
            raise ValueError(f"leak.used = {self.leak.used} exceeds folds.used; lower it")
        meant = [name for goal in self.goal for name in goal.systems]
        meant += [stand_in.name for stand_in in self.rehearsal.system]
        meant += [self.question.reference] if self.question.reference else []
        for name in meant:
            if name not in names:
                raise ValueError(f"no system is called '{name}'; there are {', '.join(names)}")
        return self

    def rehearsed(self) -> Protocol:
        """Return the protocol with the small values of its rehearsal."""
        small = self.rehearsal
        stand_ins = {stand_in.name: stand_in for stand_in in small.system}
        systems = [
            system.model_copy(
                update={
                    "config": stand_ins[system.name].config,
                    "set": stand_ins[system.name].set,
                }
            )
            if system.name in stand_ins
            else system
            for system in self.system
        ]
        return self.model_copy(
            update={
                "data": self.data.model_copy(update={"image_size": small.image_size}),
                "folds": self.folds.model_copy(update={"number": small.folds, "used": small.used}),
                "training": TrainingKeys(
                    seeds=small.seeds, epochs=small.epochs, replicates=small.replicates
                ),
                "system": systems,
                "leak": self.leak.model_copy(
                    update={"used": min(self.leak.used, small.used), "seeds": small.leak_seeds}
                ),
            }
        )

    def seeds_of(self, system: SystemKeys, *, leaky: bool = False) -> list[int]:
        """Return the seeds of a system: its own, or those of all trainings."""
        return system.seeds or (self.leak.seeds if leaky else self.training.seeds)

    def overrides(self, system: SystemKeys, seed: int, split: str) -> dict[str, Any]:
        """Return the keys of a training's configuration that this protocol fixes.

        Args:
            system: The system.
            seed: Random seed of the training.
            split: Name of the split.

        Returns:
            Values by ``section.key``; a system's own keys come last.
        """
        fixed: dict[str, Any] = {"data.split": split, "data.image_size": self.data.image_size}
        fixed["training.seed"] = seed
        if not isinstance(read_config(find_config(system.config)), ProbeConfig):
            fixed |= {"training.epochs": self.training.epochs, "training.patience": 0}
        return fixed | system.set

    def config_of(self, system: SystemKeys) -> Config:
        """Return the complete training configuration of a system.

        Raises:
            InputError: There is no such configuration, or a key of ``set`` does not fit.
        """
        seed = self.seeds_of(system)[0]
        return read_config(find_config(system.config), self.overrides(system, seed, "fold-0"))


class ReadProtocol(NamedTuple):
    """A checked protocol and the digest of its file.

    Attributes:
        protocol: The protocol, or its rehearsal.
        sha256: SHA-256 digest of the file.
    """

    protocol: Protocol
    sha256: str


def read_protocol(path: Path, *, rehearsal: bool = False) -> ReadProtocol:
    """Read and check the protocol of the full-size answer.

    Args:
        path: TOML file, such as ``scripts/full_size.toml``.
        rehearsal: True returns the small values of the rehearsal.

    Returns:
        The protocol and the digest of its file.

    Raises:
        InputError: The file cannot be read, a key is missing or unknown (the message suggests the
            most similar key), a value is not allowed, or a system's configuration does not fit.

    Example:
        >>> read_protocol(Path("scripts/full_size.toml")).protocol.folds.number
        5
    """
    content = read_toml_file(path)
    try:
        protocol = Protocol(**content)
    except ValidationError as error:
        problem = first_problem(error, Protocol)
        position = f"{path}: {problem.key}" if problem.key else str(path)
        raise InputError(f"{position}: {problem.message}") from None
    for checked in (protocol, protocol.rehearsed()):
        for system in checked.system:
            try:
                checked.config_of(system)
            except InputError as error:
                raise InputError(f"{path}: system {system.name}: {error}") from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ReadProtocol(protocol.rehearsed() if rehearsal else protocol, digest)
