"""Arguments from which synthetic images are drawn."""

from dataclasses import dataclass

from cxr_compare.data_prep.contracts.errors import InputError


@dataclass(frozen=True)
class PhantomArguments:
    """Arguments from which synthetic chest X-rays are drawn by ``cxr synth``.

    The same arguments give the same bytes.

    Attributes:
        n_images: Number of labelled images, at least 1.
        seed: Random seed, at least 0.
        size: Side of the square images, 64 to 4,096 px.
        prevalence: Expected share of positive images, in (0, 1).

    Raises:
        InputError: An argument is outside its range.
    """

    n_images: int
    seed: int
    size: int
    prevalence: float

    def __post_init__(self) -> None:
        rules = (
            (self.n_images >= 1, f"n_images must be at least 1, got {self.n_images}"),
            (self.seed >= 0, f"seed must not be negative, got {self.seed}"),
            (64 <= self.size <= 4096, f"size must lie in 64 to 4096 px, got {self.size}"),
            (0 < self.prevalence < 1, f"prevalence must lie in (0, 1), got {self.prevalence}"),
        )
        for holds, message in rules:
            if not holds:
                raise InputError(f"synth: {message}")
