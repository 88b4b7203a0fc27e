"""Reading of a JSON file of a folder as it is stored, without its header."""

import json
from pathlib import Path
from typing import Any


def stored_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file without its kind and version."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {k: v for k, v in content.items() if k not in ("contract", "schema_version")}
