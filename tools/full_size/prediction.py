"""The time and the disk that the full-size study will take, by the roofline of docs/gpu.md.

    python -m tools.full_size.prediction scripts/full_size.toml

Nothing is measured on the machine that is predicted. The time of a training is

    images x epochs x operations of a step / (peak x share)  +  validation images x epochs x
    operations of a prediction / (peak x share)

or, if that is longer, the time in which the processors augment the images,

    images x epochs x processor seconds of an image / processors.

The time of predictions is their operations by the peak of fp32, and `cxr prepare` decodes
`DECODED` images a second with each processor. Each command also takes `START` seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_compare.data_prep.contracts.disk_space import format_bytes
from tools.full_size.network_cost import NetworkCost, count_cost
from tools.full_size.protocol import Protocol, read_protocol
from tools.full_size.steps import Arm, Step, study_steps

START = 10.0
"""Seconds in which a command starts and ends, beside its work. Assumed."""
EVALUATION = 60.0
"""Seconds of a comparison, with the pictures of its page. Assumed: docs/benchmarks.md measured 10.5
s for the figures of three systems on 27,000 images, without pages and without seeds."""
DECODED = 69.0
"""RSNA's DICOM files that a processor decodes a second: 1,110 with 16, docs/scale.md (simulated
from measured stages)."""
_TERA = 1e12
_BYTES_OF_A_PARAMETER = 24  # weights, the best epoch and the last one with its optimiser
_BYTES_OF_AN_IMAGE = 8_000  # of one system's predictions; measured: 3.5 kB for each image
_BYTES_OF_A_REPORT = 60_000_000
_RESERVE = 1.2


@dataclass(frozen=True)
class ImageCounts:
    """Numbers of images of one training.

    Attributes:
        train: Training images.
        validation: Validation images.
        test: Test images.
    """

    train: int
    validation: int
    test: int

    @property
    def total(self) -> int:
        """Number of all images."""
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class StepTime:
    """Predicted time of one step.

    Attributes:
        compute: Seconds of the accelerator.
        reading: Seconds in which the processors read images; they work at the same time.
        fixed: Seconds beside these.
    """

    compute: float
    reading: float
    fixed: float

    @property
    def seconds(self) -> float:
        """Predicted seconds: the longer of computing and reading, and what is beside them."""
        return max(self.compute, self.reading) + self.fixed


def count_images(protocol: Protocol, arm: Arm, n_images: int, n_challenge: int) -> ImageCounts:
    """Return how many images a training of an arm has.

    Args:
        protocol: The protocol.
        arm: ``fold``, ``leaky`` or ``challenge``.
        n_images: Number of images of the folds.
        n_challenge: Number of the challenge's test images.

    Returns:
        The numbers. Of the challenge, training images of test patients are counted although they
        are not used, because their number is not known beforehand.

    Example:
        >>> protocol = read_protocol(Path("scripts/full_size.toml")).protocol
        >>> count_images(protocol, "fold", 26_684, 3_000)
        ImageCounts(train=18785, validation=2562, test=5337)
    """
    test = n_challenge if arm == "challenge" else round(n_images / protocol.folds.number)
    rest = n_images if arm == "challenge" else n_images - test
    validation = round(protocol.folds.validation * rest)
    return ImageCounts(rest - validation, validation, test)


def predict_step(
    protocol: Protocol,
    step: Step,
    costs: Mapping[str, NetworkCost],
    images: Callable[[Arm], ImageCounts],
    share: float,
) -> StepTime:
    """Predict the time of one step.

    Args:
        protocol: The protocol.
        step: The step.
        costs: What one image costs the network of each system.
        images: Function that returns the numbers of images of an arm.
        share: Share of the peak that is reached.

    Returns:
        The predicted time.
    """
    machine = protocol.machine
    learning = machine.tflops_training * _TERA * share
    predicting = machine.tflops_prediction * _TERA * share
    if step.kind == "prepare":
        return StepTime(0.0, images(_prepared(step)).total / DECODED / machine.processors, START)
    if step.kind == "compare":
        return StepTime(0.0, 0.0, START + EVALUATION)
    if step.arm == "" or step.kind not in ("train", "predict"):
        return StepTime(0.0, 0.0, START)
    cost = costs[step.system]
    counts = images(step.arm)
    if step.kind == "predict":
        work = (counts.validation + counts.test) * cost.forward
        return StepTime(work / predicting, 0.0, START)
    chosen = counts.validation * cost.forward / predicting  # its thresholds, at the end
    if not cost.step:  # a probe reads each image once
        features = (counts.train + counts.validation) * cost.forward
        return StepTime(features / predicting + chosen, 0.0, START)
    epochs = protocol.training.epochs
    work = epochs * (counts.train * cost.step + counts.validation * cost.forward)
    reading = epochs * counts.train * cost.read_seconds / machine.processors
    return StepTime(work / learning + chosen, reading, START)


def needed_bytes(
    protocol: Protocol,
    steps: Sequence[Step],
    costs: Mapping[str, NetworkCost],
    images: Callable[[Arm], ImageCounts],
) -> int:
    """Estimate the disk space of a study, with a reserve.

    Args:
        protocol: The protocol.
        steps: Its steps.
        costs: What each system's network costs, with its number of parameters.
        images: Function that returns the numbers of images of an arm.

    Returns:
        Bytes of stored pixels, runs, predictions and reports.
    """
    total = 0
    for step in steps:
        if step.kind == "prepare":
            total += images(_prepared(step)).total * protocol.data.image_size**2
        elif step.kind == "train":
            total += costs[step.system].parameters * _BYTES_OF_A_PARAMETER
        elif step.kind == "predict" and step.arm:
            counts = images(step.arm)
            total += (counts.validation + counts.test) * _BYTES_OF_AN_IMAGE
        elif step.kind == "compare":
            total += _BYTES_OF_A_REPORT
    return round(total * _RESERVE)


def count_costs(protocol: Protocol) -> dict[str, NetworkCost]:
    """Return what one image costs the network of each system, by the name of the system."""
    return {system.name: count_cost(protocol.config_of(system)) for system in protocol.system}


def prediction_table(protocol: Protocol, costs: Mapping[str, NetworkCost]) -> str:
    """Return the predicted hours and the disk as Markdown.

    Args:
        protocol: The protocol, not its rehearsal.
        costs: What one image costs the network of each system.

    Returns:
        A table with one row for each kind of work, and the assumptions below it.
    """
    data = protocol.data
    machine = protocol.machine

    def images(arm: Arm) -> ImageCounts:
        return count_images(protocol, arm, data.n_training, data.n_challenge)

    steps = study_steps(protocol, Path("out"))
    groups: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        title = {"train": "training", "predict": "predictions", "prepare": "prepare"}
        key = (step.system if step.kind != "tune" else "", title.get(step.kind, "everything else"))
        groups.setdefault(key, []).append(step)
    heads = ["work", "commands", "images", "epochs", "GFLOP an image"]
    heads += ["computing, h", "reading, h", "all, h"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    low, high = max(machine.share), min(machine.share)
    totals = [0.0, 0.0]
    for (system, title), members in groups.items():
        times = [
            [predict_step(protocol, step, costs, images, share) for step in members]
            for share in (low, high)
        ]
        fast, slow = (sum(time.seconds for time in at) / 3600 for at in times)
        totals[0] += fast
        totals[1] += slow
        cost = costs.get(system)
        epochs = protocol.training.epochs if title == "training" and cost and cost.step else 1
        used = [images(step.arm) for step in members if step.arm]
        count = sum(
            each.train if title == "training" else each.validation + each.test for each in used
        )
        if title == "prepare":
            count = sum(images(_prepared(step)).total for step in members)
        if title == "everything else":
            count = 0
        operations = 0.0
        if cost is not None:
            operations = (cost.step if title == "training" else 0.0) or cost.forward
        compute = [sum(time.compute for time in at) / 3600 for at in times]
        lines.append(
            f"| {' '.join(filter(None, (system, title)))} | {len(members)} | "
            f"{f'{count:,}' if count else ''} | {epochs if operations else ''} | "
            f"{f'{operations / 1e9:.1f}' if operations else ''} | "
            f"{f'{compute[0]:.1f}–{compute[1]:.1f}' if operations else ''} | "
            f"{sum(time.reading for time in times[0]) / 3600:.1f} | {fast:.1f}–{slow:.1f} |"
        )
    lines.append(f"| **together** | {len(steps)} | | | | | | **{totals[0]:.1f}–{totals[1]:.1f}** |")
    read = ", ".join(
        f"{name} {1000 * cost.read_seconds:.1f} ms" for name, cost in costs.items() if cost.step
    )
    lines += [
        "",
        f"Predicted for {machine.name}, not run there: {machine.tflops_training:g} TFLOP/s in "
        f"training and {machine.tflops_prediction:g} in predictions, of which {high:g} to {low:g} "
        f"are assumed to be reached; {machine.processors} processors, which augment an image in "
        f"{read} of processor time (timed on this machine) and decode {DECODED:g} files a second "
        f"each; {START:g} s for each command and {EVALUATION:g} s more for each comparison are "
        "assumed.",
        f"Disk: {format_bytes(needed_bytes(protocol, steps, costs, images))}, with a reserve of a "
        "fifth.",
    ]
    return "\n".join(lines)


def _prepared(step: Step) -> Arm:
    return "challenge" if "challenge" in step.name else "fold"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("protocol", type=Path, nargs="?", default=Path("scripts/full_size.toml"))
    protocol = read_protocol(parser.parse_args().protocol).protocol
    print(prediction_table(protocol, count_costs(protocol)))


if __name__ == "__main__":
    main()
