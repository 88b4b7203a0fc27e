"""Anchors of the five pyramid levels."""

from collections.abc import Sequence

from torchvision.models.detection.anchor_utils import AnchorGenerator

from data_prep.contracts.errors import InputError

LEVELS = 5  # P3 to P7
FINEST_STRIDE = 8  # px, of P3; each level doubles it
OCTAVE_STEPS = 3  # sizes on each level, a third of an octave apart
DEFAULT_RATIOS = (0.5, 1.0, 2.0)
MIN_IMAGE = 32  # px: P5 is then one pixel


def default_anchor_sizes(image_size: int) -> tuple[int, ...]:
    """Smallest anchor of each level: torchvision's at 512 px, the same share of other images.

    On small images they stop at two strides: anchors lie one stride apart, and a lesion between
    two smaller ones overlaps neither by the half that makes a match.

    Args:
        image_size: Side of the pixel store's images, px.

    Returns:
        Five sides, px.

    Example:
        >>> default_anchor_sizes(512), default_anchor_sizes(128)
        ((32, 64, 128, 256, 512), (16, 32, 64, 128, 256))
    """
    finest = max(2 * FINEST_STRIDE, round(image_size / 16))
    return tuple(finest * 2**level for level in range(LEVELS))


def build_anchors(
    image_size: int, sizes: Sequence[float], ratios: Sequence[float]
) -> AnchorGenerator:
    """Make the anchors of P3 to P7: three sizes an octave, each at every ratio.

    Args:
        image_size: Side of the pixel store's images, px.
        sizes: Smallest side on each level, px; for instance `default_anchor_sizes`.
        ratios: Height over width.

    Returns:
        torchvision's generator.

    Raises:
        InputError: Not five sizes, a size below 1 px, or a ratio that is not positive.
    """
    if image_size < MIN_IMAGE:
        raise InputError(f"image_size: expected at least {MIN_IMAGE} px, but got {image_size}")
    if len(sizes) != LEVELS or not all(1 <= size < float("inf") for size in sizes):
        raise InputError(
            f"anchor_sizes: expected {LEVELS} sides of at least 1 px, but got {list(sizes)}"
        )
    if not ratios or not all(0 < ratio < float("inf") for ratio in ratios):
        raise InputError(f"anchor_ratios: expected ratios above 0, but got {list(ratios)}")
    octaves = tuple(_octave_sizes(size) for size in sizes)
    return AnchorGenerator(octaves, (tuple(ratios),) * LEVELS)


def _octave_sizes(smallest: float) -> tuple[int, ...]:
    """The three sizes of one level, in whole px as torchvision's COCO weights were trained."""
    return tuple(int(smallest * 2 ** (step / OCTAVE_STEPS)) for step in range(OCTAVE_STEPS))
