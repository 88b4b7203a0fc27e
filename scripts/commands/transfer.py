"""`cxr transfer`: evaluate every system on every data set that has its finding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.decisions.thresholds import check_policy
from cxr_compare.evaluation.report.files import study_files
from cxr_compare.evaluation.studies.transfer_pairs import (
    TrainedSystem,
    decision_from_home,
    pair_systems,
)
from cxr_compare.scripts import console
from cxr_compare.scripts.options import own_split
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runtime import load_model
from cxr_compare.scripts.systems import (
    Systems,
    predict_once,
    predicts,
    read_systems,
    require_predictable,
    system_folder,
)

if TYPE_CHECKING:
    from pathlib import Path

_SYSTEMS = "systems"
_REPLICATES = 2000  # bootstrap replicates
_LOCAL_POSITIVES = [10, 50]  # positive patients on whom thresholds are chosen anew
_SEED = 0  # random seed of the bootstrap and of the local draws


def _read_same(value: str | Iterable[str] | Mapping[str, str]) -> dict[str, list[str]]:
    """Read A=B, both ways.

    Example:
        >>> _read_same(["lung_opacity=pneumonia"]) == _read_same({"lung_opacity": "pneumonia"})
        True
        >>> _read_same("lung_opacity=pneumonia")
        {'lung_opacity': ['pneumonia'], 'pneumonia': ['lung_opacity']}
    """
    if isinstance(value, Mapping):
        value = [f"{one}={other}" for one, other in value.items()]
    equal: dict[str, list[str]] = {}
    for text in [value] if isinstance(value, str) else value:
        names = [part.strip() for part in text.split("=")]
        if len(names) != 2 or not all(names):
            raise ValueError("write FINDING=FINDING")
        for one, other in (names, names[::-1]):
            equal.setdefault(one, []).append(other)
    return equal


if TYPE_CHECKING:
    SameFindings = Any  # texts, or findings by name: a command gets a mapping
else:
    SameFindings = Annotated[list[str], Argument(read=_read_same, metavar="FINDING=FINDING")]


@command
def transfer(
    paths: Annotated[Systems, Argument(read=read_systems, metavar="RUN ... DATA ...")],
    *,
    out: AnyPath,
    same: SameFindings = (),
    target: Sequence[str] = (),
    policy: str = "max_f1",
) -> Outcome:
    """Evaluate systems on other data sets: which figures hold there?

    The command first makes predictions that are missing; if it is interrupted, run it again. Each
    system is evaluated on the test images of each data set, without patients that the system has
    learned from. Its threshold comes from its own validation images. For comparison, thresholds are
    also chosen on 10 and on 50 positive images of the new data set.

    Args:
        paths: Runs (folders of cxr train) or exports (of cxr export), and data sets (of cxr
            prepare), in any order, each as PATH or NAME=PATH.
        out: Folder for the page, the table and the predictions.
        same: Two findings that count as the same, such as lung_opacity=pneumonia, if a data set has
            only one of them.
        target: Target (a finding, or a group of findings) to evaluate on. Needed only if a data set
            has several targets.
        policy: Policy (rule that chooses a threshold, written as in cxr tune) by which systems
            decide. The same rule chooses the thresholds on images of the new data set.

    Returns:
        Each loss of performance as a sentence, every figure, and the path of the page.

    Raises:
        InputError: No system can be evaluated, or the folder holds something else.

    Example:
        cxr transfer out/retinanet out/chexnet data/rsna data/kermany --out out/transfer
        --same lung_opacity=pneumonia
    """
    paths = read_systems(paths)
    out = as_path(out)
    require_predictable(paths)
    from cxr_compare.evaluation.studies.transfer_analysis import TransferOptions, evaluate_transfer
    from cxr_compare.evaluation.studies.transfer_page import drops, write_transfer

    if check_policy(policy).kind == "guarantee":
        raise InputError(
            f"--policy {policy}: a guarantee does not hold where the threshold is chosen anew on "
            "local images; use sensitivity>=F or specificity>=F"
        )
    folders: dict[str, Path] = {}
    sets: dict[str, DataSet] = {}
    for name, (path, *others) in paths:
        if others:
            raise InputError(f"transfer: {name} is several folders; give each a name of its own")
        if predicts(path):
            _add(folders, name or system_folder(path), path, "systems", path)
        else:
            dataset = DataSet.open(path)  # which says what else it is
            _add(sets, name or dataset.name, dataset, "data sets", path)
    if not folders or not sets:
        raise InputError("transfer: give runs and data sets: RUN [RUN ...] DATA [DATA ...]")
    require_only_files(out, {*study_files("transfer"), _SYSTEMS}, "transfer")
    make_folder(out)
    with folder_lock(out):
        decisions = {name: decision_from_home(path, policy) for name, path in folders.items()}
        models = {name: load_model(path) for name, path in folders.items()}
        pairs, notes = pair_systems(
            [
                TrainedSystem(name, path, models[name].info, models[name].learnt, decisions[name])
                for name, path in folders.items()
            ],
            sets,
            {
                (data_set, name): own_split(None, [path], dataset)
                for data_set, dataset in sets.items()
                for name, path in folders.items()
            },
            same=same,
            targets=target,
        )
        evaluated = []
        for pair in pairs:
            model = models[pair.system]
            folder = out / _SYSTEMS / pair.data_set / pair.system
            if list(pair.names.items()) != [(name, name) for name in model.learnt]:
                model = model.with_names(pair.names)
            dataset = sets[pair.data_set]
            split = pair.test_set.split
            predictions = predict_once(
                model, folders[pair.system], dataset, folder, split, pair.system
            )
            evaluated.append((pair, predictions))
        with console.track("Evaluating", len(evaluated)) as advance:
            options = TransferOptions(policy, _LOCAL_POSITIVES, _REPLICATES, seed=_SEED)
            result = evaluate_transfer(evaluated, options, notes=notes, advance=advance)
        page = write_transfer(result, out)
    text = "\n".join(drop.text for drop in drops(result))
    return Outcome(text, file=out / "transfer.json", page=page)


def _add(named: dict[str, Any], name: str, value: Any, kind: str, path: Path) -> None:
    if name in named:
        raise InputError(f"transfer: two {kind} are called {name}; write NAME={path}")
    named[name] = value
