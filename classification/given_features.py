"""A classifier of given features, which another program computed: it has only a last layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cxr_compare.classification.backbones import Trunk
from cxr_compare.classification.feature_grid import Grid
from cxr_compare.classification.model import NO_MAPS, ImageClassifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import MIN_SIZE, Preprocess

GIVEN_FEATURES = "given_features"
"""Name of the architecture in ``model.json``."""


class FeatureClassifier(ImageClassifier):
    """A linear layer on the mean over the features that another program computed for each image.

    The function `build_feature_classifier` builds it. In place of pixels it reads features, float32
    (B, 1, C, h, w), as `data_prep.store.features` gives them. It can make activation maps if the
    features form a grid of more than one cell.

    Args:
        channels: Number C of features of each cell of the grid.
        n_findings: Number of findings (disease signs) to predict.
        has_maps: True if the features form a grid of more than one cell.
    """

    def __init__(self, channels: int, n_findings: int, has_maps: bool) -> None:
        # The normalisation of pixels has no effect, because no pixel is read.
        preprocess = Preprocess(size=MIN_SIZE, mean=0.0, std=1.0)
        super().__init__(
            Trunk(nn.Identity(), channels, Grid()), n_findings, preprocess, 0.0, "same"
        )
        self._channels = channels
        self._has_maps = has_maps

    def features(self, images: Tensor) -> Tensor:
        """Return given features in the form of maps, float32 (B, C, h, w).

        Args:
            images: Features of B images in a grid of h x w cells, float32 (B, 1, C, h, w).

        Returns:
            The features, float32 (B, C, h, w).

        Raises:
            InputError: The features have another number of channels.
        """
        if images.ndim != 5 or images.shape[2] != self._channels:
            raise InputError(
                f"probe: expected features of {self._channels} channels, but got "
                f"{tuple(images.shape)}; use the features folder that it was fitted to"
            )
        return images[:, 0].float()

    @property
    def stages(self) -> list[list[nn.Module]]:
        """An empty list, because the network that computed the features is not in this model."""
        return []

    def map_method(self, requested: str) -> str:
        """Return the method by which activation maps are made.

        Args:
            requested: Name of the requested method, such as ``cam``.

        Returns:
            The name of the method, or ``none`` if the features form no grid and there are no maps.
        """
        return requested if self._has_maps else NO_MAPS

    def map_frame(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the outer edges of an activation map: always a square of side 1.

        The size of the image from which the features were computed is unknown.

        Args:
            height: Height of the map, in cells; not used.
            width: Width of the map, in cells; not used.

        Returns:
            The edges x1, y1, x2, y2: ``(0.0, 0.0, 1.0, 1.0)``.
        """
        return (0.0, 0.0, 1.0, 1.0)


def build_feature_classifier(
    channels: int, grid: Sequence[int] = (1, 1), n_findings: int = 1
) -> FeatureClassifier:
    """Build a classifier of features that another program computed.

    Args:
        channels: Number C of features of each cell.
        grid: Rows and columns of cells; (1, 1) for features of the whole image.
        n_findings: Number of findings (disease signs) to predict.

    Returns:
        The classifier, whose weights are random until `classification.probe.fit_layer` fits them.

    Raises:
        InputError: `channels`, a number of `grid` or `n_findings` is below 1.

    Example:
        >>> import torch
        >>> model = build_feature_classifier(8, (2, 2))
        >>> model(torch.zeros(3, 1, 8, 2, 2)).shape
        torch.Size([3, 1])
    """
    if min(channels, n_findings, *grid) < 1:
        raise InputError(
            f"{GIVEN_FEATURES}: expected numbers of at least 1, but got channels={channels}, "
            f"grid={tuple(grid)}, n_findings={n_findings}"
        )
    model = FeatureClassifier(channels, n_findings, max(grid) > 1)
    arguments = {"channels": channels, "grid": list(grid), "n_findings": n_findings}
    model.architecture = {"kind": "classifier", "name": GIVEN_FEATURES, "arguments": arguments}
    return model
