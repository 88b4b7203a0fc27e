"""Pairs of systems and data sets that `cxr transfer` evaluates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.studies.study_sentences import study_sentence
from cxr_compare.evaluation.systems.eligibility import sets_of_run
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit


@dataclass(frozen=True)
class TrainedSystem:
    """A trained model (system) to evaluate on other data sets, with facts from its training.

    Attributes:
        name: Name of the system.
        folder: Folder of the training run, or of the exported model.
        info: Content of ``run.json`` in this folder, or of the description of the exported model.
        learnt: Names of the disease findings that the model was trained to detect, such as
            ``["opacity"]``.
        decision: Threshold and calibration that were chosen at the end of the training; None if the
            folder has none.

    Example:
        >>> TrainedSystem("CheXNet", Path("runs/cls"), {}, ["opacity"], None).learnt
        ['opacity']
    """

    name: str
    folder: Path
    info: Mapping[str, Any]
    learnt: Sequence[str]
    decision: Decision | None


@dataclass(frozen=True)
class Pair:
    """A system (model) and a data set on which it is evaluated.

    Attributes:
        system: Name of the system.
        data_set: Name of the data set.
        home: True if the system was trained on this data set.
        names: For each finding that the system was trained to detect, the name of this finding in
            the data set, such as ``{"opacity": "lung opacity"}``.
        test_set: Test images with their labels, boxes and patients.
        decision: Threshold and calibration that were chosen on the data set that the system was
            trained on; None if there are none.
    """

    system: str
    data_set: str
    home: bool
    names: Mapping[str, str]
    test_set: LabelledSplit
    decision: Decision | None


def _sentence(macro: str, *values: Any) -> str:
    return study_sentence("transfer", macro, *values)


def pair_systems(
    systems: Sequence[TrainedSystem],
    sets: Mapping[str, DataSet],
    own_splits: Mapping[tuple[str, str], str],
    *,
    same: Mapping[str, Sequence[str]],
    targets: Sequence[str],
) -> tuple[list[Pair], list[str]]:
    """Pair each system (model) with each data set that has labels for the system's findings.

    Args:
        systems: Trained systems, each with the disease findings that it was trained to detect.
        sets: Data sets by name.
        own_splits: Name of the split (division into training, validation and test patients) whose
            test images evaluate the system. The key has the names of data set and system, such as
            ``("RSNA", "CheXNet")``.
        same: Other names under which a data set may have a finding, such as ``{"opacity": ["lung
            opacity"]}``.
        targets: Names of the disease findings (targets) to evaluate, needed if a system can be
            evaluated on several targets of a data set; may be empty.

    Returns:
        The pairs, and sentences on systems and data sets that could not be paired or only in part.

    Raises:
        InputError: No system can be evaluated on any data set; a name in `targets` is not a target
            of any data set; or a system fits several targets of a data set, and `targets` does not
            choose one.
    """
    for target_name in targets:
        if not any(target_name in dataset.targets for dataset in sets.values()):
            raise InputError(
                f"transfer --target {target_name}: is a target of none of the data sets"
            )
    splits, notes = _splits(systems, sets, own_splits)
    pairs: list[Pair] = []
    for system in systems:
        for name, dataset in sets.items():
            labelled = set(dataset.findings["finding"])
            names = _names_here(system.learnt, labelled, same)
            if not names:
                notes.append(
                    _sentence(
                        "not_labelled", system.name, list(system.learnt), name, sorted(labelled)
                    )
                )
                continue
            target = _target_here(dataset, names.values(), targets)
            if target is None:
                notes.append(_sentence("no_target", system.name, name, list(names.values())))
                continue
            test_set = LabelledSplit(dataset, target, splits[name, system.name])
            home = _is_home(system.info, dataset)
            pairs.append(Pair(system.name, name, home, names, test_set, system.decision))
        notes += _home_notes(system, pairs)
    for name, test_set in {pair.data_set: pair.test_set for pair in pairs}.items():
        notes += _set_notes(name, test_set)
    if not pairs:
        raise InputError(f"transfer: no system can be evaluated on any data set. {' '.join(notes)}")
    return pairs, notes


def _set_notes(name: str, test_set: LabelledSplit) -> Iterator[str]:
    """Return notes on the evaluated test images of a data set."""
    evaluated = test_set.images["image_id"].isin(test_set.labels_of("test").dropna().index)
    if (test_set.images.loc[evaluated, "patient_id_source"] == "assumed_image").any():
        yield _sentence("unknown_patients", name)
    n_synthetic = int(test_set.dataset.synthetic[evaluated].sum())
    if n_synthetic:
        yield _sentence("synthetic", name, n_synthetic, int(evaluated.sum()))


def _home_notes(system: TrainedSystem, pairs: Sequence[Pair]) -> Iterator[str]:
    if system.decision is None:
        yield _sentence("no_decision", system.name, system.folder)
    if not any(pair.home for pair in pairs if pair.system == system.name):
        yield _sentence("no_home", system.name)


def _splits(
    systems: Sequence[TrainedSystem],
    sets: Mapping[str, DataSet],
    own_splits: Mapping[tuple[str, str], str],
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Choose the split on which each data set evaluates each system, and collect notes.

    If all systems that were trained on a data set share one split, every system is evaluated on it.
    """
    splits: dict[tuple[str, str], str] = {}
    notes = []
    for name, dataset in sets.items():
        split_names = {
            system.name: own_splits[name, system.name]
            for system in systems
            if _is_home(system.info, dataset)
        }
        different = set(split_names.values())
        common = different.pop() if len(different) == 1 else LabelledSplit.split
        if different:
            notes.append(_sentence("several_splits", name, split_names, common))
        for system in systems:
            split = splits[name, system.name] = split_names.get(system.name, common)
            learnt_on = (system.info.get("data_set") or {}).get("split")
            if system.name in split_names and learnt_on and learnt_on != split:
                notes.append(_sentence("other_split", system.name, learnt_on, name, split))
            before = [learned["content_id"] for learned in sets_of_run(system.info)]
            if system.name not in split_names and dataset.ids["content_id"] in before:
                notes.append(_sentence("start_weights", system.name, name))
    return splits, notes


def _is_home(info: Mapping[str, Any], dataset: DataSet) -> bool:
    """Return True if a run was trained on a data set; data of its first weights do not count."""
    made_on = info.get("data_set") or {}
    return bool(made_on.get("content_id") == dataset.ids["content_id"])


def decision_from_home(path: Path, policy: str) -> Decision | None:
    """Read the threshold and calibration that were chosen at the end of a model's training.

    Args:
        path: Folder of the training run, or of the exported model.
        policy: Name of the rule by which the threshold was chosen, such as ``max_f1`` (largest F1).

    Returns:
        Threshold and calibration; None if the folder has none.

    Raises:
        InputError: The folder has several such files, or no threshold was chosen by this rule.

    Example:
        >>> decision_from_home(Path("no-such-run"), "max_f1")
    """
    for folder in (path / "decisions", path / "validation" / "decisions"):
        stored = sorted(folder.glob("*.json"))
        if len(stored) > 1:
            raise InputError(f"{folder}: holds several decisions; transfer evaluates runs of one")
        if stored:
            decision = Decision.from_dict(read_json(stored[0], "decision"))
            if policy not in decision.thresholds:
                policies = ", ".join(decision.thresholds)
                raise InputError(f"{stored[0]}: has no threshold by {policy}; --policy {policies}")
            return decision
    return None


def _names_here(
    learnt: Sequence[str], labelled: Collection[str], same: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the data set's names of the findings that a system learned and the data set labels.

    Example:
        >>> _names_here(["opacity", "mass"], ["pneumonia"], {"opacity": ["pneumonia"]})
        {'opacity': 'pneumonia'}
    """
    names = {finding: [finding, *same.get(finding, ())] for finding in learnt}
    return {
        finding: next(name for name in called if name in labelled)
        for finding, called in names.items()
        if not set(called).isdisjoint(labelled)
    }


def _target_here(
    dataset: DataSet, names: Collection[str], target_names: Sequence[str]
) -> Target | None:
    """Return the target that a system's findings answer, and of several the requested one."""
    requested = [dataset.targets[name] for name in target_names if name in dataset.targets]
    fitting = [target for target in dataset.targets.values() if set(target.any_of) <= set(names)]
    chosen = [target for target in requested if target in fitting] or fitting
    if len(chosen) > 1:
        raise InputError(
            f"{dataset.folder}: {counted(len(fitting), 'target')} of its "
            f"{', '.join(dataset.targets)} can be evaluated by {', '.join(names)}; choose one with "
            "--target"
        )
    return chosen[0] if chosen else None
