"""Systems to compare on a prepared data set: predictions folders, runs, and values in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_compare.data_prep.store.identify_folder import (
    find_folders,
    folder_kind,
    unfinished_kind,
)
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts import console
from cxr_compare.scripts.given_systems import GivenSystem, GivenValues
from cxr_compare.scripts.recorded_call import recorded_systems, system_files
from cxr_compare.scripts.systems import (
    ComparedSystem,
    open_systems,
    with_joint_system,
)

if TYPE_CHECKING:
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.common_images import Images
    from cxr_compare.evaluation.compare import EligibleSystems
    from cxr_compare.evaluation.sources.pixels import Pixels
    from cxr_compare.scripts.result_columns import ResultColumns


def open_values(
    system: GivenSystem, dataset: DataSet, split: str, columns: ResultColumns | None = None
) -> ComparedSystem:
    """Turn a system's values in memory into predictions; folders and files stay as they are.

    The members of the result are folders or predictions. `split` is the one whose test images the
    values belong to; `columns` is None if the user cannot give names of columns.
    """
    from cxr_compare.evaluation.sources.from_frames import predictions_from_values
    from cxr_compare.evaluation.sources.import_folder import as_predictions, data_set_record
    from cxr_compare.evaluation.sources.known_images import KnownImages

    name = system.name or "system"
    names = None if columns is None else columns.names(name)
    members: list[Path | Predictions] = []
    for member in system.members:
        if not isinstance(member, GivenValues):
            members.append(member)
            continue
        known = KnownImages.of_data_set(dataset)
        read = predictions_from_values(name, member.value, known, None, split, names)
        members.append(as_predictions(read, data_set_record(dataset, split), str(member)))
    return ComparedSystem(system.name, members)


@dataclass(frozen=True)
class FromDataSet:
    """Systems to compare on one target of a data set."""

    systems: Sequence[ComparedSystem]
    test_set: LabelledSplit

    @property
    def truth(self) -> LabelledImages:
        """Labels, roles, patients and true boxes of the images."""
        return self.test_set.truth

    @property
    def pixels(self) -> Pixels | None:
        """Reader of the pixels; None without image files."""
        if not self.test_set.dataset.has_pixels:
            return None
        from cxr_compare.evaluation.sources.pixels import pixels_of_data_set

        return pixels_of_data_set(self.test_set.dataset, self.test_set.target.any_of)

    def record(self) -> dict[str, Any]:
        """Return what a report records of its systems and of its data."""
        return {"systems": recorded_systems(self.systems), "data": self.test_set.ids}

    def files(self, out: Path) -> list[Path]:
        """Return the files of the systems whose change makes their report in `out` out of date."""
        return system_files(self.systems, self.test_set.target.name, out)

    def predicted(self, out: Path) -> FromDataSet:
        """Predict the runs among the systems into a folder, and return their predictions."""
        opened = open_systems(self.systems, self.test_set, out)
        systems = [
            ComparedSystem(name, [one if one.tables else one.folder for one in members])
            for name, members in opened.items()
        ]
        return replace(self, systems=systems)

    def findings_of_systems(self) -> dict[str, set[str]]:
        """Return the findings that each predicted system says something about; empty if unknown."""
        from cxr_compare.data_prep.store.predictions import Predictions

        found: dict[str, set[str]] = {}
        for system in self.systems:
            for member in system.members:
                opened = Predictions.open(member) if isinstance(member, Path) else member
                found.setdefault(str(system.name), set(opened.info.findings))
        return found

    def read(
        self, folder: Path, *, images: Images, joined_by: str | None = None
    ) -> EligibleSystems:
        """Open the predictions of all systems, and select the test images of the comparison.

        Runs are predicted and a joint system is written into `folder`. `images` ``all`` refuses
        systems that ran on different test images; ``common`` takes the images on which all ran.
        `joined_by` is the figure whose highest value on validation chooses how the boxes of a joint
        system are gated; None compares none. Raises InputError if the systems do not fit the data
        set or each other.
        """
        from cxr_compare.evaluation.sources.stored_predictions import read_eligible

        opened = open_systems(self.systems, self.test_set, folder)
        if joined_by is not None:
            opened = with_joint_system(opened, self.test_set, folder, joined_by)
        return read_eligible(opened, self.test_set, images)


def runs_inside(system: GivenSystem) -> list[GivenSystem]:
    """Return a system for each run of a folder of runs; any other system stays as it is."""
    if system.name is not None or len(system.paths) != 1 or len(system.members) != 1:
        return [system]
    (path,) = system.paths
    if not path.is_dir() or folder_kind(path) is not None:
        return [system]
    runs = find_folders(path).get("run", [])
    for folder in sorted(path.iterdir()) if runs else ():
        unfinished = unfinished_kind(folder)
        if unfinished is not None and unfinished.name == "run":
            console.say(f"{folder}: an unfinished run, left out; the same cxr train completes it")
    return [GivenSystem(None, [run]) for run in runs] or [system]
