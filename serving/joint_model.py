"""A joint system whose members are runs or exports: all of them in one folder, as one model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.output_folders import atomic_folder
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.pixel_store import PixelSource
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import Part, concat_parts
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.serving.export_spec import JOINT_MEMBERS
from cxr_compare.serving.predictor import Predictor
from cxr_compare.training.run_info import RunInfo

if TYPE_CHECKING:  # joining imports SciPy, which a run of one network does not need
    from cxr_compare.data_prep.contracts.finding_names import Target
    from cxr_compare.evaluation.sources.joint import JointRule


class ResizingSource(PixelSource, Protocol):
    """A source of square images that also gives them at another size."""

    def resized(self, size: int) -> PixelSource:
        """Return the source of the same images as squares of another side."""


def member_folders(folder: Path) -> list[Path]:
    """Return the folders of the members of a joint system, in the order of their weights."""
    return sorted((folder / JOINT_MEMBERS).iterdir())


def copy_members(members: Sequence[Path], names: Sequence[str], out: Path) -> None:
    """Copy runs or exports into the folder of a joint system, without what only training needs."""
    unneeded = shutil.ignore_patterns("checkpoints", "exports", "*.log")
    with atomic_folder(out / JOINT_MEMBERS) as folder:
        for number, (member, name) in enumerate(zip(members, names, strict=True), start=1):
            plain = "".join(letter if letter.isalnum() else "-" for letter in name)
            shutil.copytree(member, folder / f"{number}-{plain}", ignore=unneeded)


@dataclass
class StoresBySize:
    """Pixels of a data set at the sizes that the members of a joint system read."""

    dataset: DataSet
    progress: Progress
    size: int

    @cached_property
    def _store(self) -> PixelSource:
        return self.dataset.make_store(self.size, self.progress)

    @property
    def ids(self) -> pd.Index:
        """Ids of the images."""
        return self._store.ids

    def image(self, image_id: str) -> np.ndarray:
        """Return the square of an image as the first member reads it."""
        return self._store.image(image_id)

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in this square."""
        return self._store.placement(image_id)

    def resized(self, size: int) -> PixelSource:
        """Return the pixel store of another size; it is made if the data set has none."""
        return self._store if size == self.size else self.dataset.make_store(size, self.progress)


@dataclass(frozen=True)
class JointModel:
    """The networks of all members with the rule that joins them; it predicts as one network does.

    `folder` is that of the joint system, and `record` the content of its ``predictions.json``.
    """

    kind: ClassVar[Literal["both"]] = "both"
    tta: ClassVar[None] = None
    names: ClassVar[None] = None

    folder: Path
    record: PredictionsInfo
    members: tuple[Predictor, ...]

    @classmethod
    def open(cls, folder: Path, open_model: Callable[..., Predictor], **options: Any) -> JointModel:
        """Load the networks of all members by the function that opens one, with its options."""
        record = PredictionsInfo.read(folder / "predictions.json")
        members = [open_model(member, **options) for member in member_folders(folder)]
        return cls(folder, record, tuple(members))

    @cached_property
    def rule(self) -> JointRule:
        """Weights of the members, and how the joint score gates the boxes."""
        from cxr_compare.evaluation.sources.joint import JointRule

        return JointRule.from_content(self.record.ensemble, self.folder / "predictions.json")

    @property
    def backend(self) -> str:
        """Program that computes, such as ``torch``; of several, their names."""
        return " + ".join(dict.fromkeys(member.backend for member in self.members))

    @property
    def precision(self) -> str:
        """Number format of the computation; of several, their names."""
        return " + ".join(dict.fromkeys(member.precision for member in self.members))

    @property
    def device(self) -> str:
        """Device that computes."""
        return self.members[0].device

    @property
    def maps(self) -> str:
        """Method of the activation maps of the classifier."""
        return next((member.maps for member in self.members if member.kind == "scores"), "none")

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of the first member; each member reads images of its own size."""
        return self.members[0].preprocess

    @property
    def batch_size(self) -> int:
        """Number of images to predict at a time."""
        return min(member.batch_size for member in self.members)

    @property
    def learnt(self) -> tuple[str, ...]:
        """Findings that the joint system predicts."""
        return tuple(self.rule.findings)

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings that the joint system predicts."""
        return self.learnt

    @property
    def target(self) -> Target:
        """Finding, or group of findings, that decides whether an image is positive."""
        return self.members[0].target

    @property
    def run_folder(self) -> Path:
        """Folder of the joint system, which lists the training images of its members."""
        return self.folder

    @property
    def synthetic(self) -> bool:
        """True if all members are known to have learned from synthetic images only."""
        return all(member.synthetic for member in self.members)

    @property
    def info(self) -> RunInfo:
        """Facts about the joint system, as about a training."""
        origins = (member.info.started_from for member in self.members)
        started = [origin for origin in origins if origin]
        return RunInfo(
            name=self.record.system,
            folder=str(self.folder),
            data_set=self.record.data_set,
            inference_id=self.record.inference_id,
            synthetic=self.synthetic,
            started_from=started[0] if started else None,
        )

    def inference_id(self) -> str:
        """Return the id of the rule with the ids of the networks that compute."""
        own = str(self.record.inference_id)
        if all(member.backend == "torch" and member.precision == "fp32" for member in self.members):
            return own
        return "-".join([own, *(member.inference_id() for member in self.members)])

    def chose(self, inference_id: str | None) -> bool:
        """Return True if thresholds chosen on predictions with this digest are for this system.

        Runs were joined in float32; exports were checked against their runs.
        """
        as_joined = all(
            member.backend != "torch" or member.precision == "fp32" for member in self.members
        )
        return as_joined and inference_id == self.training_id()

    def training_id(self) -> str:
        """Return the id of the joint system, for every device and number format."""
        return str(self.record.inference_id)

    def with_names(self, names: Mapping[str, str]) -> JointModel:
        """Refuse other names of findings, for which no weights were fitted."""
        raise InputError(
            f"{self.folder}: joins its members for {', '.join(self.learnt)}; leave out --finding"
        )

    def cost(self, sample_images: np.ndarray | None = None) -> dict[str, Any]:
        """Return the sum of the costs of the members, as they were measured when it was made."""
        from cxr_compare.evaluation.sources.ensemble import joined_cost

        return joined_cost([dict(each.cost or {}) for each in self.record.members or ()], "")

    def predict(
        self,
        source: PixelSource,
        image_ids: pd.Index,
        sizes: pd.DataFrame,
        batch_size: int,
        *,
        many: bool | None = None,  # a member is given one batch at a time
    ) -> Iterator[Part]:
        """Predict images batch by batch: each member reads them at its own size.

        `Predictor.predict` describes the arguments; the source gives its images at other sizes,
        too.
        """
        from cxr_compare.evaluation.sources.ensemble import joined_output

        sizing = cast(ResizingSource, source)
        sources = [sizing.resized(member.preprocess.size) for member in self.members]
        for start in range(0, len(image_ids), batch_size):
            ids = image_ids[start : start + batch_size]
            parts = [
                concat_parts(list(member.predict(own, ids, sizes, len(ids))))
                for member, own in zip(self.members, sources, strict=True)
            ]
            predicted = [
                Predictions.from_part(
                    PredictionsInfo(system=f"member {number}", kind=member.kind), part
                )
                for number, (member, part) in enumerate(
                    zip(self.members, parts, strict=True), start=1
                )
            ]
            images, tables = joined_output(predicted, self.rule, sizes)
            yield Part(images, tables)
