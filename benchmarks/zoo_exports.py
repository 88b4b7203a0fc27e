"""Export every run of the zoo by each back end; `zoo_table` shows what was kept and what refused.

    python -m benchmarks.zoo_exports RUNS --data DATA

An export that is there already is not made again; one that was refused is tried again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.json_files import read_json, write_json

if TYPE_CHECKING:
    from serving.exported.spec import Format, Precision

BACKENDS = ("onnx fp32", "openvino fp32", "openvino bf16", "openvino int8")
RESULTS = "exports.json"


def export_all(
    runs: Annotated[Path, typer.Argument(help="Folder of runs.")],
    data: Annotated[Path, typer.Option(help="What they learned from.")],
) -> None:
    """Export every complete run of a folder by each back end."""
    from data_prep.store.dataset import DataSet
    from scripts import console
    from scripts.machines.runtime import tune_cpu

    tune_cpu()
    dataset = DataSet.open(data)
    results: dict[str, dict[str, Any]] = {}
    for run in sorted(path.parent for path in runs.glob("*/run.json")):
        results[run.name] = {backend: exported(run, backend, dataset) for backend in BACKENDS}
        write_json(runs / RESULTS, "zoo_exports", {"runs": results})
        words = ", ".join(f"{name}: {each['verdict']}" for name, each in results[run.name].items())
        console.say(f"{run.name}: {words}")


def exported(run: Path, backend: str, dataset: Any) -> dict[str, Any]:
    """What became of an export: its verdict and measures by name, or why it was refused."""
    from data_prep.store.preprocess import Preprocess
    from scripts.training_runs.images import open_store
    from serving.backends import export_folder
    from serving.export import export_run

    format_, precision = cast("tuple[Format, Precision]", backend.split())
    folder = export_folder(run, format_, precision)
    if not (folder / "card.json").is_file():
        size = Preprocess.from_json(run / "preprocess.json").size
        try:
            export_run(run, folder, format_, precision, dataset, open_store(dataset, size))
        except InputError as error:
            return {"verdict": "refused", "why": str(error)}
    proof = read_json(folder / "card.json", "card")["proof"]
    measures = {f"{m['name']} {m['case']}": m["value"] for m in proof["measures"]}
    return {"verdict": proof["verdict"], "measures": measures}


if __name__ == "__main__":
    typer.run(export_all)
