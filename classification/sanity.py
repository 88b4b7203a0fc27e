"""Do maps show what was learned? Randomise weights, and see whether the maps change."""

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from classification.model import ImageClassifier
from classification.saliency import MapMethod, explain

SHARES = (0.0, 0.25, 0.5, 1.0)
"""Of the layers, from the output down, that are random; 0 stands for the output layer alone."""
DRAWS = 3
_AT_ONCE = 8


def rounds(draws: int = DRAWS) -> int:
    """How many networks `randomisation_check` asks for maps: the trained one, and random ones.

    Example:
        >>> rounds(draws=1)
        5
    """
    return 1 + draws * len(SHARES)


def randomisation_check(
    model: ImageClassifier,
    images: Tensor,
    method: MapMethod = "cam",
    *,
    mode: Literal["cascading", "independent"] = "cascading",
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Compare a model's maps with those of the same network with random weights.

    Weights are drawn from a normal distribution of the trained layer's spread; scales and biases
    are shuffled, so that signals keep their size. Maps that ignore what was learned (edges of the
    picture, say) come out the same, with a rank correlation near 1.

    Args:
        model: The trained classifier; it is not changed.
        images: uint8 (B, 1, S, S), store pixels, on the model's device.
        method: Which maps.
        mode: ``cascading`` makes all layers random from the output down to each of `SHARES`;
            ``independent`` only those between one share and the next, the others stay trained.
        draws: Random networks for each share; the correlation is their mean.
        seed: Of the random weights.
        progress: Called with 1 after each of `rounds` networks.

    Returns:
        ``method``, ``mode``, ``n_images``, ``draws``, ``seed``, and ``stages``: for each share
        ``share``, ``layers`` (how many are random), ``spearman`` (mean over maps and draws; None
        where no pair of maps has an order), ``spearman_abs`` (of absolute values) and ``n_maps``
        (pairs of maps that have an order: a map of one value has none).

    Source:
        Adebayo et al. 2018, Sanity Checks for Saliency Maps.

    Example:
        >>> from classification.model import build_classifier
        >>> model = build_classifier("resnet18", image_size=64)
        >>> images = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8)
        >>> found = randomisation_check(model, images, draws=1)
        >>> [(stage["share"], stage["layers"]) for stage in found["stages"]]
        [(0.0, 1), (0.25, 10), (0.5, 20), (1.0, 41)]
    """
    twin = copy.deepcopy(model)
    layers = [each for each in twin.modules() if list(each.parameters(recurse=False))][::-1]
    trained = {name: value.clone() for name, value in twin.state_dict().items()}
    maps = _maps(twin, images, method)
    progress(1)
    generator = torch.Generator().manual_seed(seed)
    edges = [0, *(max(1, int(share * len(layers))) for share in SHARES)]
    found: list[list[float]] = [[] for _ in SHARES]
    for _ in range(draws):
        drawn = [list(_random(layer, generator)) for layer in layers]
        for stage, (start, stop) in enumerate(pairwise(edges)):
            twin.load_state_dict(trained)
            chosen = slice(0 if mode == "cascading" else start, stop)
            for layer, values in zip(layers[chosen], drawn[chosen], strict=True):
                for parameter, value in zip(layer.parameters(recurse=False), values, strict=True):
                    parameter.data.copy_(value)
            found[stage] += rank_correlations(maps, _maps(twin, images, method))
            progress(1)
    return {
        "method": method,
        "mode": mode,
        "n_images": len(images),
        "draws": draws,
        "seed": seed,
        "stages": [
            {
                "share": share,
                "layers": stop - (0 if mode == "cascading" else start),
                "spearman": float(np.mean(each)) if each else None,
                "spearman_abs": float(np.mean(np.abs(each))) if each else None,
                "n_maps": len(each),
            }
            for share, (start, stop), each in zip(SHARES, pairwise(edges), found, strict=True)
        ],
    }


def rank_correlations(maps: np.ndarray, others: np.ndarray) -> list[float]:
    """Spearman's rank correlation of pairs of maps, where both have an order.

    Args:
        maps: Shape ``(N, K, h, w)``.
        others: Likewise.

    Returns:
        At most ``N * K`` values in [-1, 1]; a pair with a map of one value is left out.

    Example:
        >>> maps = np.array([[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])
        >>> rank_correlations(maps, -maps)
        [-1.0]
    """
    cells = maps.shape[2] * maps.shape[3]
    ranks = [rankdata(each.reshape(-1, cells), axis=1) for each in (maps, others)]
    centred = [each - each.mean(axis=1, keepdims=True) for each in ranks]
    spread = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    shared = (centred[0] * centred[1]).sum(axis=1)
    return [float(value) for value in shared[spread > 0] / spread[spread > 0]]


def _maps(model: ImageClassifier, images: Tensor, method: MapMethod) -> np.ndarray:
    parts = [explain(model, few, method).maps.cpu().numpy() for few in images.split(_AT_ONCE)]
    return np.concatenate(parts)


def _random(layer: nn.Module, generator: torch.Generator) -> Iterator[Tensor]:
    """A random value for each of a layer's own parameters."""
    for parameter in layer.parameters(recurse=False):
        value = parameter.detach().cpu()
        if value.ndim > 1:
            spread = value.square().mean().sqrt()
            yield torch.randn(value.shape, generator=generator) * spread
        else:
            yield value.flatten()[torch.randperm(value.numel(), generator=generator)].view_as(value)
