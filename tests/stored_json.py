"""Reading of a JSON file of a folder as it is stored, without its header."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.files import file_digest
from cxr_compare.data_prep.base.tables import write_table
from cxr_compare.data_prep.splits import SplitInfo, SplitOrigin


def stored_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file without its kind and version."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {k: v for k, v in content.items() if k not in ("contract", "schema_version")}


def bind_tables(folder: Path) -> None:
    """Name the tables of a folder in its record, as if its command had written them."""
    for marker in ("dataset", "predictions", "run", "answer", "features", "started"):
        record = folder / f"{marker}.json"
        if not record.is_file():
            continue
        content = json.loads(record.read_text(encoding="utf-8"))
        tables = [*folder.glob("*.parquet"), *folder.glob("*.parquet/*.parquet")]
        others = [*folder.glob("*.safetensors"), *folder.glob("config.toml")]
        names = {
            path.relative_to(folder).as_posix(): file_digest(path)
            for path in [*tables, *others]
            if path.is_file()
        }
        record.write_text(json.dumps({**content, "files": names}), encoding="utf-8")
    for table in folder.glob("splits/*.parquet"):
        record = table.with_suffix(".json")
        if not record.is_file():
            how = SplitOrigin(method="by patient, by hand")
            SplitInfo(how=how, files={table.name: file_digest(table)}).write(record)
        else:
            content = json.loads(record.read_text(encoding="utf-8"))
            content["files"] = {table.name: file_digest(table)}
            record.write_text(json.dumps(content), encoding="utf-8")


def put_table(frame: pd.DataFrame, path: Path, name: str) -> None:
    """Write a table into a folder, and name it in the record of the folder."""
    write_table(frame, path, name)
    bind_tables(path.parent)
    bind_tables(path.parent.parent)
