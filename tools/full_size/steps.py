"""The steps of the full-size answer: which command each is, in their order."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tools.full_size.protocol import Protocol, SystemKeys

Kind = Literal["prepare", "split", "train", "predict", "tune", "compare", "table"]
Arm = Literal["fold", "leaky", "challenge"]
"""Which images a training learns from: those of a fold by patient, of a leaky fold, or all."""
TRAINING_SET = "data"
LEAKY_SET = "leaky"
CHALLENGE_SET = "challenge"
SETS: dict[Arm, str] = {"fold": TRAINING_SET, "leaky": LEAKY_SET, "challenge": CHALLENGE_SET}
"""Folder of the data set of each kind of training, below the folder of results."""
QUESTION = "question.toml"
TABLES = "tables"
POOLED = "pooled"
_OURS = ("python", "-m")


@dataclass(frozen=True)
class Step:
    """One command of the study.

    Attributes:
        name: Name, unique in the study, such as ``train fold-0 CheXNet seed 1``.
        kind: Kind of the work; steps of one kind and system take times that can be compared.
        words: The command: ``cxr`` and its arguments, or ``python -m MODULE`` and its arguments.
        system: Name of the system that is trained or predicted; empty for all others.
        arm: Images that are learned from; empty for steps of no training.
    """

    name: str
    kind: Kind
    words: tuple[str, ...]
    system: str = ""
    arm: Arm | Literal[""] = ""

    @property
    def line(self) -> str:
        """The command as a line of a shell."""
        return shlex.join(self.words)


def folds_of(protocol: Protocol, arm: Arm) -> list[str]:
    """Return the names of the splits of an arm that are trained.

    Args:
        protocol: The protocol.
        arm: ``fold``, ``leaky`` or ``challenge``.

    Returns:
        Names of splits, such as ``["fold-0", "fold-1"]``.
    """
    if arm == "challenge":
        return ["challenge"] if protocol.data.challenge else []
    used = protocol.folds.used if arm == "fold" else protocol.leak.used
    return [f"fold-{number}" for number in range(used)]


def predictions_folder(out: Path, arm: Arm, split: str, system: str, seed: int) -> Path:
    """Return the folder of the predictions of one training."""
    return out / "predictions" / SETS[arm] / split / f"{_word(system)}-{seed}"


def study_steps(protocol: Protocol, out: Path, *, rehearsal: bool = False) -> list[Step]:
    """List all steps of the study, in an order in which each finds what it needs.

    Args:
        protocol: The protocol, or its rehearsal.
        out: Folder of results.
        rehearsal: True also makes the stand-in of the challenge out of the training images.

    Returns:
        The steps. The folds by patient come first, so that the main result is known early.
    """
    training = Path(protocol.data.training)
    challenge = Path(protocol.data.challenge)
    steps: list[Step] = []
    if rehearsal:
        steps.append(
            Step(
                "make the rehearsal's folders",
                "table",
                (*_OURS, "tools.full_size.rehearsal_folders", str(training), str(out / "source"),
                 "--share", str(protocol.rehearsal.challenge_share),
                 "--seed", str(protocol.rehearsal.challenge_seed)),
            )
        )  # fmt: skip
        training = out / "source" / "kaggle"
        challenge = out / "source" / "release"
    steps += _fold_steps(protocol, out, "fold", training)
    if protocol.data.challenge:
        steps += _challenge_steps(protocol, out, challenge)
    if protocol.leak.used:
        source = out / "leaky-source"
        words = (*_OURS, "tools.full_size.leaky_folder", str(training), str(source))
        steps.append(Step("link the images without their patients", "table", words))
        steps += _fold_steps(protocol, out, "leaky", source)
    steps += _pooled_steps(protocol, out)
    return [*steps, Step("table and page", "table", (*_OURS, "tools.full_size.results", str(out)))]


def _fold_steps(protocol: Protocol, out: Path, arm: Arm, source: Path) -> Iterator[Step]:
    """Yield the steps of a cross-validation, from the images to the means over folds."""
    data = out / SETS[arm]
    yield _prepare(protocol, source, data)
    folds = protocol.folds
    words = ["cxr", "split", str(data), "--name", "cv", "--folds", str(folds.number)]
    words += ["--test-folds", "--seed", str(folds.seed)]
    yield Step(f"folds of {data.name}", "split", tuple(words))
    splits = folds_of(protocol, arm)
    for number, split in enumerate(splits):
        yield _validation_split(protocol, data, split, f"cv-{number}")
    for split in splits:
        yield from _evaluated_split(protocol, out, arm, split)
    reports = [str(_report(out, arm, split)) for split in splits]
    words = ["cxr", "folds", *reports, "--out", str(out / f"means-{SETS[arm]}")]
    yield Step(f"means over the folds of {data.name}", "compare", tuple(words))


def _challenge_steps(protocol: Protocol, out: Path, source: Path) -> Iterator[Step]:
    """Yield the steps of the challenge: its test images, learned without their patients."""
    data = out / CHALLENGE_SET
    yield _prepare(protocol, source, data)
    yield _validation_split(protocol, data, "challenge", "official")
    yield from _evaluated_split(protocol, out, "challenge", "challenge")


def _prepare(protocol: Protocol, source: Path, data: Path) -> Step:
    size = str(protocol.data.image_size)
    words = ("cxr", "prepare", str(source), str(data), "--format", "rsna", "--size", size)
    return Step(f"prepare {data.name}", "prepare", words)


def _validation_split(protocol: Protocol, data: Path, split: str, of: str) -> Step:
    """Return the step that draws the validation patients of a split whose test images are fixed."""
    words = ["cxr", "split", str(data), "--name", split, "--from", of]
    words += ["--val", str(protocol.folds.validation), "--seed", str(protocol.folds.seed)]
    return Step(f"split {data.name} {split}", "split", tuple(words))


def _evaluated_split(protocol: Protocol, out: Path, arm: Arm, split: str) -> Iterator[Step]:
    """Yield the trainings on one split, their predictions and their comparison."""
    data = out / SETS[arm]
    members: dict[str, list[str]] = {}
    for system in protocol.system:
        for seed in protocol.seeds_of(system, leaky=arm == "leaky"):
            predictions = predictions_folder(out, arm, split, system.name, seed)
            run = out / "runs" / predictions.relative_to(out / "predictions")
            title = f"{data.name} {split} {system.name} seed {seed}".replace("data fold", "fold")
            settings = protocol.overrides(system, seed, split)
            yield Step(
                f"train {title}",
                "train",
                ("cxr", "train", system.config, "--data", str(data), "--out", str(run),
                 *_set_words(settings)),
                system.name,
                arm,
            )  # fmt: skip
            yield Step(
                f"predict {title}",
                "predict",
                ("cxr", "predict", str(run), "--data", str(data), "--split", split,
                 "--out", str(predictions)),
                system.name,
                arm,
            )  # fmt: skip
            chosen = ("cxr", "tune", str(predictions), "--data", str(data))
            yield Step(f"tune {title}", "tune", chosen, system.name, arm)
            members.setdefault(system.name, []).append(str(predictions))
    words = ["cxr", "compare", *(f"{name}={','.join(paths)}" for name, paths in members.items())]
    words += ["--data", str(data), "--split", split, "--protocol", str(out / QUESTION)]
    words += ["--out", str(_report(out, arm, split)), *_replicates(protocol)]
    yield Step(f"compare {data.name} {split}", "compare", tuple(words))


def _pooled_steps(protocol: Protocol, out: Path) -> Iterator[Step]:
    """Yield the steps over the images of all folds, and of the price of the leak."""
    yield Step(
        "pool the scores of all folds",
        "table",
        (*_OURS, "tools.full_size.pooled", str(out)),
    )
    tables = out / TABLES
    names = [
        f"{system.name}={_tables(protocol, tables / POOLED, system)}" for system in protocol.system
    ]
    yield _compared(
        protocol, tables / POOLED, names, out / "reports" / POOLED, "compare all folds together"
    )
    if not protocol.leak.used:
        return
    for system in protocol.system:
        clean = _tables(protocol, tables / "clean", system, leaky=True)
        leaky = _tables(protocol, tables / "leaky", system, leaky=True)
        yield _compared(
            protocol,
            tables / "clean",
            [f"by image={leaky}", f"by patient={clean}"],
            out / "reports" / f"leak-{_word(system.name)}",
            f"price of the leak, {system.name}",
        )


def _replicates(protocol: Protocol) -> tuple[str, str]:
    return ("--replicates", str(protocol.training.replicates))


def _compared(
    protocol: Protocol, tables: Path, systems: list[str], report: Path, name: str
) -> Step:
    words = ["cxr", "compare", "--truth", str(tables / "truth.csv"), *systems]
    return Step(name, "compare", (*words, "--out", str(report), *_replicates(protocol)))


def _tables(protocol: Protocol, folder: Path, system: SystemKeys, *, leaky: bool = False) -> str:
    """Return the tables of scores of a system, one for each seed, joined by commas."""
    seeds = protocol.seeds_of(system, leaky=leaky)
    return ",".join(str(folder / f"{_word(system.name)}-{seed}.csv") for seed in seeds)


def _report(out: Path, arm: Arm, split: str) -> Path:
    return out / "reports" / ("challenge" if arm == "challenge" else f"{SETS[arm]}-{split}")


def _word(name: str) -> str:
    """Return the name of a system as part of a file name."""
    return name.replace(" ", "-")


def _set_words(settings: dict[str, Any]) -> list[str]:
    words = []
    for key, value in settings.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words += ["--set", f"{key}={text}"]
    return words
