"""A request for a training. It is read and checked without torch, so that errors come at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.configs.load import find_config, parse_config, read_config
from cxr_compare.configs.settings import Config, ProbeConfig
from cxr_compare.data_prep.audit.audit import require_no_errors
from cxr_compare.data_prep.contracts.errors import InputError, counted, require_packages
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.training.run_info import StartedRun

_N_LEARNING_ROLES = 2  # training and validation


@dataclass(frozen=True)
class Request:
    """A training that the user requested: its configuration, its data set and its folder.

    Attributes:
        settings: Complete configuration.
        dataset: Data set to train on.
        out: Folder of the training (run folder).
        resume: True continues a training that was interrupted.
        despite_audit: True trains even if the audit (check of the data set) found an error.
    """

    settings: Config
    dataset: DataSet
    out: Path
    resume: bool = True
    despite_audit: bool = False

    @classmethod
    def read(
        cls,
        config: str | Path,
        overrides: Sequence[str] | Mapping[str, Any] | None,
        data: Path,
        out: Path,
        *,
        devices: int,
        **options: bool,
    ) -> Request:
        """Read and check the configuration and the data set of a training.

        Args:
            config: Name of a configuration that comes with the program, or a TOML file.
            overrides: New values of keys in the configuration: texts ``section.key=value``, or a
                mapping from ``section.key`` to value.
            data: Folder of the data set.
            out: Folder of the training (run folder).
            devices: Number of processes that share each batch.
            options: Values of the attributes ``resume`` and ``despite_audit``.

        Returns:
            The training, which can begin.

        Raises:
            InputError: The configuration or the data set cannot be read, or the data set lacks what
                this training needs, such as boxes or positive images.
        """
        settings = read_config(find_config(str(config)), overrides or ())
        require_loggers(settings.training.loggers)
        if isinstance(settings, ProbeConfig) and devices > 1:
            raise InputError("--devices: one process fits a probe; leave it out")
        require_shares(settings.training.batch_size, devices)
        _require_same_kind(settings, out)
        request = cls(settings, DataSet.open(data), out, **options)
        request._require_both_classes()
        return request

    @property
    def split(self) -> str:
        """Name of the split that says which images are for training and which for validation."""
        return self.settings.data.split

    @property
    def target(self) -> Target:
        """Finding, or group of findings, that the model learns."""
        return self.dataset.target(self.settings.data.target, option="--set data.target=NAME")

    def origin(self) -> StartedRun:
        """Return the training's name, and facts that must be unchanged when it is resumed.

        Returns:
            Facts such as the seed and digests of the data set.
        """
        target = self.target
        ids = self.dataset.ids
        self.dataset.split(self.split)  # refuses a name that it does not have
        return StartedRun(
            name=self.settings.name,
            model_kind=self.settings.kind,
            target=target.name,
            findings=target.any_of,
            seed=self.settings.training.seed,
            data_set=MadeOn(
                name=self.dataset.name,
                content_id=ids.content_id,
                labels_id=ids.labels_id,
                split=self.split,
                split_id=ids.split_ids[self.split],
            ),
        )

    def _require_both_classes(self) -> None:
        """Check that each role has images with and without a finding."""
        dataset = self.dataset
        target = self.target
        is_detector = self.settings.kind == "detector"
        if is_detector and not dataset.boxes["finding"].isin(target.any_of).any():
            raise InputError(
                f"{dataset.folder}: has no boxes of '{target.name}', and a detector learns from "
                f"boxes; train a classifier (cxr train chexnet_small --data {dataset.folder} --out "
                "RUN), or add boxes to the source and prepare it again"
            )
        if is_detector:
            usable = "images with all lesions boxed, or without a lesion"
            ids = dataset.boxes_trusted(target)
            positive = pd.Series(ids.isin(dataset.target_boxes(target)["image_id"]), index=ids)
        else:
            usable = "images with a label"
            rows = dataset.findings
            rows = rows[rows["finding"].isin(target.any_of) & rows["state"].ne("uncertain")]
            positive = rows["state"].eq("present").groupby(rows["image_id"]).any()
        patients = dataset.images.set_index("image_id")["patient_id"]
        for label, is_label in (("positive", positive), ("negative", ~positive)):
            n_patients = patients.reindex(positive.index[is_label]).nunique()
            if n_patients < _N_LEARNING_ROLES:
                raise InputError(
                    f"{dataset.folder}: target '{target.name}' has "
                    f"{counted(n_patients, label + ' patient')} ({usable}), and training and "
                    f"validation need one each: add {label} images to the source and prepare it "
                    "again"
                )
        for role in ("train", "val"):
            in_role = positive[positive.index.isin(dataset.image_ids(role, self.split))]
            if in_role.any() and not in_role.all():
                continue
            images = "no images"
            if not in_role.empty:
                images = f"only {'positive' if in_role.any() else 'negative'} images"
            raise InputError(
                f"split: role '{role}' has {images} ({usable}); make another split with cxr split"
            )

    def audit_errors(self, progress: Progress) -> list[str]:
        """Return the errors of the data set that this training ignores, and show them to the user.

        The errors come from the audit (``cxr check``), which looks for faults that would make
        results wrong. If it has not been run, the function compares only the patients and the equal
        images of the split's roles, and shows a note.

        Args:
            progress: Shows messages.

        Returns:
            One sentence for each error; empty if there are none.

        Raises:
            InputError: There are errors, and `despite_audit` is False.
        """
        audited, errors = require_no_errors(
            self.dataset, self.split, despite_errors=self.despite_audit
        )
        if not audited:
            progress.say(
                f"note: no audit has looked at split '{self.split}' (cxr check "
                f"{self.dataset.folder}); only patients and equal images were compared"
            )
        for error in errors:
            progress.say(f"warning: trained despite an error of the audit: {error}")
        return list(errors)


def require_shares(batch_size: int, devices: int) -> None:
    """Check that the batch size is a multiple of the number of devices.

    If every device gets equally many images of a batch, the metrics do not depend on the number of
    devices.

    Args:
        batch_size: Number of images of the whole batch.
        devices: Number of processes that share each batch.

    Raises:
        InputError: The batch size is not a multiple of the number of devices.

    Example:
        >>> require_shares(8, 2)
    """
    if batch_size % devices:
        nearest = max(devices, batch_size // devices * devices)
        raise InputError(
            f"--devices {devices}: training.batch_size = {batch_size} is the whole batch, and "
            f"does not divide by {devices} processes; add --set training.batch_size={nearest}"
        )


def _require_same_kind(settings: Config, out: Path) -> None:
    """Refuse the folder of a run of the other kind of model, which cannot be resumed."""
    config = out / "config.toml"
    if config.is_file():
        before = parse_config(config.read_text(encoding="utf-8", errors="replace"), str(config))
        if before.kind != settings.kind:
            raise InputError(f"{out}: holds a {before.kind} ({before.name}); choose another --out")


_PACKAGES = {  # packages that each logger imports, from its pip extra
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}


def require_loggers(names: Sequence[str]) -> None:
    """Check that the packages of the loggers are installed, before the training starts.

    Args:
        names: Names of the loggers, such as ``tensorboard``.

    Raises:
        InputError: A package is missing; the message names the pip extra.
    """
    for name in names:
        require_packages(f"training.loggers: {name}", name, _PACKAGES[name])
