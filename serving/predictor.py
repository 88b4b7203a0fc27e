"""Protocol of a loaded network that predicts: of a run, of an export, or of a joint system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cxr_compare.data_prep.contracts.finding_names import Target
    from cxr_compare.data_prep.store.pixel_store import PixelSource
    from cxr_compare.data_prep.store.prediction_writer import Part
    from cxr_compare.data_prep.store.preprocess import Preprocess
    from cxr_compare.training.run_info import RunInfo


class Predictor(Protocol):
    """A loaded network that predicts; `serving.backends.open_model` opens it from a folder.

    `TrainedModel` computes with torch, `ExportedModel` with ONNX Runtime or OpenVINO, and
    `JointModel` joins the predictions of several.
    """

    @property
    def kind(self) -> Literal["boxes", "scores", "both"]:
        """``boxes`` for a detector, ``scores`` for a classifier, ``both`` for a joint system."""

    @property
    def folder(self) -> Path:
        """Folder of the run, the export or the joint system."""

    @property
    def run_folder(self) -> Path | None:
        """Folder that holds the list of the training images; None if it is not at hand."""

    @property
    def info(self) -> RunInfo:
        """Facts about the training."""

    @property
    def target(self) -> Target:
        """Finding, or group of findings, that decides whether an image is positive."""

    @property
    def learnt(self) -> tuple[str, ...]:
        """Findings that the model learned, in the order of its outputs."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings that it predicts, under the names of `names` if it is given."""

    @property
    def names(self) -> Mapping[str, str] | None:
        """Name of a finding in the predictions, by the name that the network learned.

        None keeps all findings, under their learned names.
        """

    @property
    def synthetic(self) -> bool:
        """True if the network is known to have learned from synthetic images only."""

    @property
    def preprocess(self) -> Preprocess:
        """Side and normalisation of the square input."""

    @property
    def batch_size(self) -> int:
        """Number of images to predict at a time."""

    @property
    def backend(self) -> str:
        """Program that computes, such as ``torch``."""

    @property
    def precision(self) -> str:
        """Number format of the computation, such as ``fp32``."""

    @property
    def device(self) -> str:
        """Device that computes, ``cpu`` or ``cuda``."""

    @property
    def maps(self) -> str:
        """Method of a classifier's activation maps, such as ``cam``."""

    @property
    def tta(self) -> dict[str, Any] | None:
        """Description of the test-time augmentation; None without it."""

    def inference_id(self) -> str:
        """Return a digest of all on which the predictions depend, besides the image."""

    def training_id(self) -> str:
        """Return the digest that identifies the training, for every device and number format."""

    def chose(self, inference_id: str | None) -> bool:
        """Return True if thresholds chosen on predictions with this digest are for this model."""

    def with_names(self, names: Mapping[str, str]) -> Self:
        """Return this model restricted to some findings, which get the names of a data set."""

    def cost(self, sample_images: np.ndarray | None = None) -> dict[str, Any]:
        """Measure the time for one image; return it with the model's size and training facts."""

    def predict(
        self,
        source: PixelSource,
        image_ids: pd.Index,
        sizes: pd.DataFrame,
        batch_size: int,
        *,
        many: bool | None = None,
    ) -> Iterator[Part]:
        """Predict images batch by batch, so that memory does not grow with their number.

        `source` gives the square image of an image id; `sizes` are those of the original images,
        with columns ``image_id, width, height`` in px. `many` lets an export compute several
        batches at the same time; by default it does for more than one batch. A part has boxes of a
        detector, or scores and activation maps of a classifier.
        """
