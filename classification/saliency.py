"""Where a classifier looks: five methods, each a grid of values placed in the store image.

Gradients are taken with respect to tensors that were cut out of the graph, not caught by module
hooks: a rectifier that works in place breaks those, and cannot touch these.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from classification.model import ImageClassifier, evaluating
from data_prep.contracts.errors import InputError

MapMethod = Literal["cam", "gradcam", "gradcam++", "occlusion", "gradient"]
AT_ONCE = 64
"""Pictures in one forward of `occlusion_map`."""
_NOISE = 0.1
_DRAWS = 8
_GRADIENTS_AT_ONCE = 8
_MOST_LOGIT = 60.0

Frame = tuple[float, float, float, float]


class Explanation(NamedTuple):
    """What a model says about a batch, and where it looks.

    Attributes:
        logits: float32 (B, K), the same for every method.
        maps: float32 (B, K, h, w), raw: one scale for all images.
        frame: Outer frame of the grid, ``x1, y1, x2, y2`` in store px.
    """

    logits: Tensor
    maps: Tensor
    frame: Frame


def explain(model: ImageClassifier, images: Tensor, method: MapMethod = "cam") -> Explanation:
    """Score a batch and show where each finding's evidence lies.

    =============  ================================================================================
    ``cam``        what each place adds to the logit
    ``gradcam``    the same for any head, by gradients; only what speaks for the finding
    ``gradcam++``  likewise, and kinder to several lesions in one picture
    ``occlusion``  by how much the logit falls where a grey square hides the place
    ``gradient``   how strongly the logit answers to each place's pixels, whatever the direction
    =============  ================================================================================

    Args:
        model: The classifier; its mode stays as it is, it computes in evaluation mode.
        images: uint8 (B, 1, S, S), store pixels, on the model's device.
        method: One of the table.

    Returns:
        Logits, maps and the maps' frame. The grid is that of the last feature maps for the first
        three, twice as fine for ``occlusion``, four times as fine for ``gradient``.

    Raises:
        InputError: The method is unknown.

    Example:
        >>> from classification.model import build_classifier
        >>> model = build_classifier("resnet18", image_size=64).eval()
        >>> found = explain(model, torch.zeros(1, 1, 64, 64, dtype=torch.uint8), "occlusion")
        >>> found.maps.shape, found.frame
        (torch.Size([1, 1, 4, 4]), (0.0, 0.0, 64.0, 64.0))
    """
    if method not in get_args(MapMethod):
        raise InputError(
            f"maps: expected one of {', '.join(get_args(MapMethod))}, but got {method!r}"
        )
    with evaluating(model):
        if method == "cam":
            with torch.inference_mode():
                features = model.features(images)
                logits, maps = model.logits(features), model.maps(features)
        elif method == "occlusion":
            with torch.inference_mode():
                logits = model(images)
                return Explanation(logits, *occlusion_map(model, images, logits))
        elif method == "gradient":
            with torch.inference_mode():
                logits = model(images)
            return Explanation(logits, *input_gradient(model, images))
        else:
            with torch.no_grad():
                features = model.features(images)
            logits, gradients = head_gradients(model, features)
            if method == "gradcam":
                maps = grad_cam(features, gradients)
            else:
                maps = grad_cam_plus_plus(features, gradients, logits)
    return Explanation(logits, maps, model.map_frame(maps.shape[2], maps.shape[3]))


def head_gradients(model: ImageClassifier, features: Tensor) -> tuple[Tensor, Tensor]:
    """How each logit answers to each place and channel of the last feature maps.

    Args:
        model: In evaluation mode, so that images of a batch do not touch each other.
        features: float32 (B, C, h, w), from `ImageClassifier.features` under `torch.no_grad`.

    Returns:
        Logits (B, K) and gradients (B, K, C, h, w), float32.
    """
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        # A copy goes in: a head may begin with a layer that works in place.
        logits = model.logits(leaf.clone())
        gradients = [
            torch.autograd.grad(one.sum(), leaf, retain_graph=True)[0] for one in logits.unbind(1)
        ]
    return logits.detach(), torch.stack(gradients, dim=1)


def grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Feature maps weighed by their mean gradient, negative sums put at 0.

    Where the head is a mean and one linear layer, this is the class activation map's positive
    part divided by the number of cells.

    Args:
        features: (B, C, h, w).
        gradients: (B, K, C, h, w), of each logit with respect to the features.

    Returns:
        (B, K, h, w), at least 0.

    Source:
        Selvaraju et al. 2017, Grad-CAM.

    Example:
        >>> ones = torch.ones(1, 2, 2, 2)
        >>> grad_cam(ones, torch.tensor([3.0, -1.0]).reshape(1, 1, 2, 1, 1).expand(1, 1, 2, 2, 2))
        tensor([[[[2., 2.],
                  [2., 2.]]]])
    """
    weights = gradients.mean(dim=(3, 4))  # (B, K, C)
    return F.relu(torch.einsum("bkc,bchw->bkhw", weights, features))


def grad_cam_plus_plus(features: Tensor, gradients: Tensor, logits: Tensor) -> Tensor:
    """Grad-CAM whose weights count each place by how much it matters there.

    The score is ``exp(logit)``, whose second and third derivatives are powers of the logit's
    gradient where the head is piecewise linear.

    Args:
        features: (B, C, h, w).
        gradients: (B, K, C, h, w), of each logit with respect to the features.
        logits: (B, K).

    Returns:
        (B, K, h, w), at least 0.

    Source:
        Chattopadhay et al. 2018, Grad-CAM++.
    """
    square = gradients.square()
    total = features.sum(dim=(2, 3))[:, None, :, None, None]  # (B, 1, C, 1, 1)
    below = 2 * square + total * square * gradients
    share = torch.where(below == 0, 0.0, square / torch.where(below == 0, 1.0, below))
    # Beyond this, float32 would overflow; the order of places within a map stays.
    slope = F.relu(logits.clamp(max=_MOST_LOGIT).exp()[:, :, None, None, None] * gradients)
    weights = (share * slope).sum(dim=(3, 4))  # (B, K, C)
    return F.relu(torch.einsum("bkc,bchw->bkhw", weights, features))


def occlusion_map(model: ImageClassifier, images: Tensor, whole: Tensor) -> tuple[Tensor, Frame]:
    """By how much each logit falls where a grey square hides a place.

    The square has the side of one cell of the last feature maps, its grey is the mean that pixels
    are normalised by, and it moves by half its side.

    Args:
        model: In evaluation mode; needs no gradients.
        images: uint8 (B, 1, S, S), store pixels.
        whole: Logits of the whole pictures, float32 (B, K).

    Returns:
        float32 (B, K, h, w), with cells of half a square's side, each in the middle of its
        square; and the grid's frame in store px.

    Source:
        Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks.
    """
    size, side = images.shape[-1], _cell(model)
    step = max(1, side // 2)
    cells = math.ceil(size / step)
    place = torch.arange(size, device=images.device)
    start = torch.arange(cells, device=images.device)[:, None] * step - (side - step) // 2
    along = (place >= start) & (place < start + side)  # (cells, S)
    hidden = (along[:, None, :, None] & along[None, :, None, :]).reshape(-1, 1, size, size)
    grey = torch.tensor(round(255 * model.preprocess.mean), dtype=torch.uint8).to(images.device)
    pairs = torch.arange(len(images) * len(hidden), device=images.device)
    logits = [
        model.logits(
            model.features(
                torch.where(hidden[chunk % len(hidden)], grey, images[chunk // len(hidden)])
            )
        )
        for chunk in pairs.split(AT_ONCE)
    ]
    without = torch.cat(logits).reshape(len(images), cells, cells, -1)
    maps = whole[:, None, None, :] - without
    return maps.permute(0, 3, 1, 2).contiguous(), _frame(cells, step)


def input_gradient(
    model: ImageClassifier, images: Tensor, *, draws: int = _DRAWS, noise: float = _NOISE
) -> tuple[Tensor, Frame]:
    """How strongly each logit answers to each place's pixels: SmoothGrad, averaged over cells.

    Args:
        model: In evaluation mode.
        images: uint8 (B, 1, S, S), store pixels.
        draws: Noisy looks at each picture; the same noise for every picture.
        noise: Standard deviation of the noise as a share of the range of grey; 0 gives the plain
            gradient.

    Returns:
        float32 (B, K, h, w), logit per unit of normalised grey, at least 0, in cells of a quarter
        of the feature maps' stride; and the grid's frame in store px.

    Source:
        Simonyan et al. 2014, Deep Inside Convolutional Networks; Smilkov et al. 2017, SmoothGrad.
    """
    cell = max(1, _cell(model) // 4)
    seeded = torch.Generator().manual_seed(0)
    size = images.shape[-1]
    disturbances = torch.randn(draws, size, size, generator=seeded).to(images.device)
    disturbances *= noise / model.preprocess.std
    parts = []
    for few in images.split(_GRADIENTS_AT_ONCE):
        slopes = [_pixel_gradients(model, few, each) for each in disturbances]
        strength = torch.stack(slopes).mean(dim=0).abs()  # (B, K, S, S)
        parts.append(F.avg_pool2d(strength, cell, ceil_mode=True))
    maps = torch.cat(parts)
    return maps, _frame(maps.shape[2], cell)


def _pixel_gradients(model: ImageClassifier, images: Tensor, disturbance: Tensor) -> Tensor:
    """Gradient of each logit with respect to the grey of each pixel, float32 (B, K, S, S)."""
    leaves: list[Tensor] = []

    def cut(_: nn.Module, arguments: tuple[Tensor]) -> Tensor:
        leaves.append(arguments[0].detach().requires_grad_())
        return leaves[0] + disturbance

    hook = model.trunk.register_forward_pre_hook(cut)
    try:
        with torch.enable_grad():
            logits = model.logits(model.features(images))
            # Channels hold the same grey, so a pixel's gradient is their sum.
            gradients = [
                torch.autograd.grad(one.sum(), leaves[0], retain_graph=True)[0].sum(dim=1)
                for one in logits.unbind(1)
            ]
    finally:
        hook.remove()
    return torch.stack(gradients, dim=1).float()


def _cell(model: ImageClassifier) -> int:
    """Side of one cell of the last feature maps, store px."""
    x1, _, x2, _ = model.map_frame(1, 1)
    return max(1, round(x2 - x1))


def _frame(cells: int, side: int) -> Frame:
    """Frame of a square grid that begins at the image's corner; the last cell may reach beyond."""
    return 0.0, 0.0, float(cells * side), float(cells * side)
