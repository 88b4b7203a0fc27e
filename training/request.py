"""What a training is asked to do; read and checked without torch, so that errors come at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.configs.load import find_config, parse_config, read_config
from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.audit.audit import require_sound
from cxr_compare.data_prep.contracts.errors import InputError, counted, require_packages
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.data_prep.work.progress import Progress

_ROLES_TO_LEARN = 2  # training and validation


@dataclass(frozen=True)
class Request:
    """A training that is asked for: its configuration, its data set and its folder."""

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
        """Read and check the configuration and the data set."""
        settings = read_config(find_config(str(config)), overrides or ())
        _require_loggers(settings.training.loggers)
        require_shares(settings.training.batch_size, devices)
        _require_same_kind(settings, out)
        request = cls(settings, DataSet.open(data), out, **options)
        request._require_both_kinds()
        return request

    @property
    def split(self) -> str:
        """Name of the split to learn from."""
        return self.settings.data.split

    @property
    def target(self) -> Target:
        """What is learned."""
        return self.dataset.target(self.settings.data.target, option="--set data.target=NAME")

    def origin(self) -> dict[str, Any]:
        """What one that goes on must find unchanged."""
        target, ids = self.target, self.dataset.ids
        self.dataset.split(self.split)  # refuses a name that it does not have
        return {
            "name": self.settings.name,
            "model_kind": self.settings.kind,
            "target": target.name,
            "findings": list(target.any_of),
            "seed": self.settings.training.seed,
            "data_set": {
                "name": self.dataset.name,
                "content_id": ids["content_id"],
                "labels_id": ids["labels_id"],
                "split": self.split,
                "split_id": ids["split_ids"][self.split],
            },
        }

    def _require_both_kinds(self) -> None:
        """Check that each role has images with and without a finding."""
        dataset, target, is_detector = self.dataset, self.target, self.settings.kind == "detector"
        if is_detector and not dataset.boxes["finding"].isin(target.any_of).any():
            raise InputError(
                f"{dataset.folder}: has no boxes of '{target.name}', and a detector learns from "
                f"boxes; train a classifier (cxr train chexnet_small --data {dataset.folder} --out "
                "RUN), or add boxes to the source and prepare it again"
            )
        if is_detector:
            what, ids = (
                "images with all lesions boxed, or without a lesion",
                dataset.boxes_trusted(target),
            )
            positive = pd.Series(ids.isin(dataset.target_boxes(target)["image_id"]), index=ids)
        else:
            what, rows = "images with a label", dataset.findings
            rows = rows[rows["finding"].isin(target.any_of) & rows["state"].ne("uncertain")]
            positive = rows["state"].eq("present").groupby(rows["image_id"]).any()
        patients = dataset.images.set_index("image_id")["patient_id"]
        for kind, chosen in (("positive", positive), ("negative", ~positive)):
            if (n := patients.reindex(positive.index[chosen]).nunique()) < _ROLES_TO_LEARN:
                raise InputError(
                    f"{dataset.folder}: target '{target.name}' has {counted(n, kind + ' patient')} "
                    f"({what}), and training and validation need one each: add {kind} images to "
                    "the source and prepare it again"
                )
        for role in ("train", "val"):
            of_role = positive[positive.index.isin(dataset.image_ids(role, self.split))]
            if of_role.any() and not of_role.all():
                continue
            lack = f"only {'positive' if of_role.any() else 'negative'} images"
            raise InputError(
                f"split: role '{role}' has {'no images' if of_role.empty else lack} ({what}); make "
                "another split with cxr split"
            )

    def errors_of_audit(self, terminal: Progress) -> list[str]:
        """Errors that the training goes on in spite of; refuses them where nobody said to go on."""
        audited, errors = require_sound(self.dataset, self.split, despite_errors=self.despite_audit)
        if not audited:
            terminal.say(
                f"note: no audit has looked at split '{self.split}' (cxr check "
                f"{self.dataset.folder}); only patients and equal images were compared"
            )
        for error in errors:
            terminal.say(f"warning: trained despite an error of the audit: {error}")
        return list(errors)


def require_shares(batch_size: int | str, devices: int) -> None:
    """Check that a batch can be shared equally, so that figures stay comparable."""
    if batch_size != "auto" and int(batch_size) % devices:
        near = max(devices, int(batch_size) // devices * devices)
        raise InputError(
            f"--devices {devices}: training.batch_size = {batch_size} is the whole batch, and "
            f"does not divide by {devices} processes; add --set training.batch_size={near}"
        )


def _require_same_kind(settings: Config, out: Path) -> None:
    """Refuse the folder of a run of the other kind of model, with which nothing can go on."""
    config = out / "config.toml"
    if config.is_file():
        before = parse_config(config.read_text(encoding="utf-8", errors="replace"), str(config))
        if before.kind != settings.kind:
            raise InputError(f"{out}: holds a {before.kind} ({before.name}); choose another --out")


_PACKAGES = {  # what each imports, of its pip extra
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}


def _require_loggers(names: Sequence[str]) -> None:
    """Refuse a logger whose package is not installed, before anything is trained."""
    for name in names:
        require_packages(f"training.loggers: {name}", name, _PACKAGES[name])
