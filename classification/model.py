"""The image classifier: a convolutional backbone, average pooling and one logit a finding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor, nn

from cxr_compare.classification.backbones import TimmTrunk, Trunk, build_trunk, trunk_stages
from cxr_compare.classification.feature_grid import Grid, trace_grid
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.networks.builders import find_network
from cxr_compare.networks.checkpoints import Checkpoint, fit_layers, require_finite
from cxr_compare.networks.layer_shapes import measure_layers
from cxr_compare.networks.public_checkpoints import recognise_public_checkpoint
from cxr_compare.networks.registry import NETWORKS
from cxr_compare.networks.store_model import StoreModel
from cxr_compare.networks.weight_files import fetch_imagenet

# Mean of each colour in ImageNet, in [0, 1], with which published networks were trained.
COLOUR_MEAN = (0.485, 0.456, 0.406)
COLOUR_STD = (0.229, 0.224, 0.225)
# The norm of pooled features in published networks: torchvision's ConvNeXt, and timm.
_POOLED_NORM = re.compile(r"^(?:classifier\.0|head\.norm|fc_norm)\.")


class ImageClassifier(StoreModel):
    """An image classifier with one logit for each finding (disease sign).

    The function `build_classifier` builds it. The network without its last layer (the trunk)
    computes feature maps; their means over the image (pooled features) go into one linear layer.

    `dropout` is the share of the pooled features that is set to zero in training, in [0, 1).
    `channels` ``same`` repeats the grey image in three channels; ``imagenet`` normalises each
    channel as a colour of ImageNet, so that they differ and `by_colour` is True.
    """

    by_colour: bool
    _gain: Tensor
    _shift: Tensor

    def __init__(
        self,
        trunk: Trunk,
        n_findings: int,
        preprocess: Preprocess,
        dropout: float,
        channels: Literal["same", "imagenet"],
    ) -> None:
        super().__init__()
        self.trunk = trunk.layers
        self._grid = trunk.grid
        self.by_colour = channels == "imagenet"
        # From the grey normalisation to that of each colour. These are no weights, so no file
        # contains them.
        mean = torch.tensor(COLOUR_MEAN)
        std = torch.tensor(COLOUR_STD)
        gain = preprocess.std / std
        shift = (preprocess.mean - mean) / std
        self.register_buffer("_gain", gain.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", shift.reshape(1, 3, 1, 1), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(trunk.channels, n_findings)
        self.preprocess = preprocess
        self.n_findings = n_findings

    def features(self, images: Tensor) -> Tensor:
        """Compute the last feature maps, from which logits and activation maps are made.

        Images are square and grey, uint8 (B, 1, S, S). Maps are those after any activation
        function, float32 (B, C, h, w).
        """
        maps: Tensor = self.trunk(self.pixels(images))
        return maps.float()

    def pixels(self, images: Tensor) -> Tensor:
        """Normalise grey images, and make the three channels that the network reads.

        Images are square and grey, uint8 (B, 1, S, S), or InputError is raised. The pixels are
        float32 (B, 3, S, S); the channels differ if `by_colour` is True.
        """
        pixels = super().pixels(images)
        return pixels * self._gain + self._shift if self.by_colour else pixels

    @property
    def stages(self) -> list[list[nn.Module]]:
        """Layers of the backbone in stages; at each new stage the feature maps are smaller."""
        if isinstance(self.trunk, TimmTrunk):
            return self.trunk.stages
        backbone = self.architecture["arguments"]["backbone"]
        if backbone not in NETWORKS:  # the user's own, of which nothing is known
            return [[self.trunk]]
        names = trunk_stages(backbone)
        return [[self.trunk.get_submodule(name) for name in stage] for stage in names]

    @cached_property
    def before_halving(self) -> tuple[nn.Module, Grid]:
        """Last layer of the backbone that halves its feature maps, and the grid of its input.

        The grid has the positions, in the image, of the cells of the feature maps that the layer
        reads. The method ``layercam`` makes activation maps from them, because they are finer than
        the last maps.

        Raises InputError if the backbone is not a sequence of layers.
        """
        if not isinstance(self.trunk, nn.Sequential):
            raise InputError(
                "maps: layercam needs a network that is a sequence of layers; take cam or gradcam"
            )
        size = self.preprocess.size
        strides = [layer.stride for layer in measure_layers(self.trunk, size)]
        n_before = max(n for n, stride in enumerate(strides, 1) if stride < strides[-1])
        grid = trace_grid(self.trunk[:n_before], size).grid
        cells_tile_image = self._grid == self._grid.tiling()
        return self.trunk[n_before], grid.tiling() if cells_tile_image else grid

    def logits(self, features: Tensor) -> Tensor:
        """Compute logits (B, K) from maps (B, C, h, w), in float32 also under autocast."""
        return self.head(features.mean(dim=(2, 3)))

    def head(self, pooled: Tensor) -> Tensor:
        """Compute logits (B, K) from pooled features (B, C), in float32 also under autocast."""
        with torch.autocast(pooled.device.type, enabled=False):
            logits: Tensor = self.classifier(self.dropout(pooled))
        return logits

    def map_method(self, requested: str) -> str:
        """Return the method by which activation maps are made if a user requests a method.

        It is the requested method, except for a network whose last layer reads a class token: it
        has only maps by ``token_gradcam``.
        """
        if not isinstance(self.trunk, TimmTrunk) or not self.trunk.reads_token:
            return requested
        return "token_gradcam"

    def maps(self, features: Tensor) -> Tensor:
        """Compute class activation maps: the contribution of each cell to each logit.

        The mean of a map plus the bias of its finding is the logit of the finding. Nothing is
        rescaled, so maps of different images can be compared (Zhou et al. 2016).

        `features` are those of the method `features`; maps are float32 (B, K, h, w).
        """
        with torch.autocast(features.device.type, enabled=False):
            return torch.einsum("kc,bchw->bkhw", self.classifier.weight, features)

    def map_frame(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the outer edges of an activation map, in px of the square input image.

        The middle of a cell is the middle of its receptive field, the area of the image that the
        cell depends on (Araujo et al. 2019). Strided layers shift the receptive fields up and to
        the left, in ResNet-18 by half a cell. The first edges may therefore be negative.

        `height` and `width` are in cells. The edges are x1, y1, x2, y2 in px; the upper left corner
        of the image is (0, 0).
        """
        return self._grid.frame(height, width)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits, float32 (B, K), of square grey images, uint8 (B, 1, S, S)."""
        return self.logits(self.features(images))


def build_classifier(
    backbone: str = "densenet121",
    *,
    n_findings: int = 1,
    image_size: int = 224,
    last_stride: int | None = None,
    dropout: float = 0.0,
    weights: Literal["imagenet"] | None = None,
    mean: float | None = None,
    std: float | None = None,
    channels: Literal["same", "imagenet"] = "same",
) -> ImageClassifier:
    """Build an image classifier with one logit (for a sigmoid) for each finding, a disease sign.

    The model is in training mode and reads square grey images, uint8 (B, 1, S, S). Every network
    gets the same head: the mean over its last maps and one linear layer. With this head class
    activation maps are exact.

    `backbone` is of `networks.registry.NETWORKS`, ``timm:NAME`` or ``MODULE:NAME``. `last_stride`
    is that of `build_trunk`: 16 gives more cells with the same parameters. `dropout` is the share
    of the pooled features that is set to zero in training, in [0, 1). `weights` None are random;
    `start_from` loads those of a file. `mean` and `std` normalise pixels that are scaled to [0, 1];
    None takes those that belong to the published weights. `channels` ``same`` repeats the grey
    image three times; ``imagenet`` normalises it by ImageNet's mean and standard deviation of each
    colour, as public CheXNets were trained. Raises InputError if an argument is outside its range,
    or the weights are not available.
    """
    if n_findings < 1:
        raise InputError(f"n_findings: expected at least 1, but got {n_findings}")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout: expected a share from 0 to below 1, but got {dropout}")
    if weights not in (None, "imagenet"):
        raise InputError(f"weights: expected none or imagenet, but got {weights!r}")
    if channels not in ("same", "imagenet"):
        raise InputError(f"channels: expected same or imagenet, but got {channels!r}")
    network = find_network(backbone, "classifier")
    mean = network.mean if mean is None else mean
    std = network.std if std is None else std
    trunk = build_trunk(backbone, last_stride, image_size)
    if weights:
        state = fetch_imagenet(backbone, **getattr(trunk.layers, "size_arguments", {}))
        published = Checkpoint(f"weights of {backbone}", state)
        _load_features(trunk.layers, published, backbone)
    preprocess = Preprocess(size=image_size, mean=mean, std=std)
    model = ImageClassifier(trunk, n_findings, preprocess, dropout, channels)
    nn.init.zeros_(model.classifier.bias)
    arguments = {
        "backbone": backbone,
        "n_findings": n_findings,
        "image_size": image_size,
        "last_stride": trunk.grid.stride,
        "dropout": dropout,
        "mean": mean,
        "std": std,
        "channels": channels,
    }
    model.architecture = {"kind": "classifier", "name": "classifier", "arguments": arguments}
    return model


def _load_features(layers: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Load a network's trunk from a checkpoint of any network that contains it."""
    own_norm = "norm."
    if isinstance(layers, TimmTrunk):
        own_norm = "pooled_norm."
        state = layers.resize_position_embedding(checkpoint.state)
        checkpoint = replace(checkpoint, state=state)
    rename = partial(_POOLED_NORM.sub, own_norm)
    fitted = fit_layers(layers, checkpoint, name, "classifier", rename)
    layers.load_state_dict(fitted, strict=False)


def start_from(model: ImageClassifier, checkpoint: Checkpoint, findings: Sequence[str] = ()) -> str:
    """Load into a classifier those weights of a checkpoint that fit it.

    The backbone's weights may come from any network with the same backbone: a classifier with any
    number of findings, or a detector. If the findings of the checkpoint are known (it belongs to a
    training by `cxr train` or to a public model), the rows of the last layer for shared findings
    are loaded as well.

    `findings` are those that the model is to learn, in the order of its outputs; without them no
    row of the last layer is loaded. The sentence says which part was loaded and which was not.
    Raises InputError if the weights belong to another network, or contain a value that is not
    finite; the model then stays unchanged.
    """
    name = model.architecture["arguments"]["backbone"]
    rows = _shared_rows(model, checkpoint, findings)
    _load_features(model.trunk, checkpoint, name)
    with torch.no_grad():
        for row, finding in enumerate(findings):
            if finding in rows:
                weight, bias = rows[finding]
                model.classifier.weight[row] = weight
                model.classifier.bias[row] = bias
    taken = f"{checkpoint.source}: takes the features of {name}"
    if not rows:
        return f"{taken}; the last layer starts anew"
    new = [finding for finding in findings if finding not in rows]
    if not new:
        return f"{taken} and its last layer"
    return f"{taken} and its last layer for {', '.join(rows)}; it starts anew for {', '.join(new)}"


def _shared_rows(
    model: ImageClassifier, checkpoint: Checkpoint, findings: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return weight (C,) and bias () of a checkpoint's last layer for each finding of the model."""
    public = recognise_public_checkpoint(checkpoint)
    state = checkpoint.state
    last_layer = public.last if public else "classifier"
    learned = list(public.findings if public else checkpoint.findings or ())
    keys = (f"{last_layer}.weight", f"{last_layer}.bias")
    if any(key not in state for key in keys):
        return {}
    weight, bias = (state[key] for key in keys)
    if weight.shape != (len(learned), model.classifier.in_features) or len(bias) != len(learned):
        return {}
    for key in keys:
        require_finite(state[key], key, checkpoint.source)
    rows = {finding: learned.index(finding) for finding in findings if finding in learned}
    return {finding: (weight[row], bias[row]) for finding, row in rows.items()}
