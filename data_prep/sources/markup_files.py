"""Reading of JSON, YAML, XML and text files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import yaml  # type: ignore[import-untyped]
from pydantic_core import from_json

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text_files import read_text_file
from cxr_compare.data_prep.images.image_limits import require_file


def read_json_file(path: Path) -> Any:
    """Read any JSON file in UTF-8 or in the encoding of its byte order mark.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.json").write_text('{"images": []}')
        ...     read_json_file(Path(folder, "a.json"))
        {'images': []}
    """
    text = read_text_file(path)
    try:
        return from_json(text)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as JSON ({reason})") from None


def read_yaml_file(path: Path) -> Any:
    """Read any YAML file, without making objects of other kinds than those of JSON."""
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not readable as YAML ({reason})") from None


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, in any encoding that `decode_text` knows.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "test_list.txt").write_text("a.png")
        ...     read_lines(Path(folder, "test_list.txt"))
        ['a.png']
    """
    return read_text_file(path).splitlines()


class _NoDocumentType(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise InputError("has a document type, which no annotation needs; remove it")


def read_xml_file(path: Path, kind: str, most_bytes: int) -> ElementTree.Element:
    """Read an XML file without following external references, and return its root element.

    Args:
        path: Path of the file.
        kind: Tag that the root element must have, such as ``annotation``.
        most_bytes: Largest size of the file, in bytes.

    Raises:
        InputError: The file is too large, is no XML, has another root element, or has a document
            type or entities.
    """
    require_file(path)
    content = path.read_bytes() if path.stat().st_size <= most_bytes else b""
    if not content:
        raise InputError(f"{path}: larger than {most_bytes >> 20} MiB; no annotation is")
    upper = content.upper()
    if b"<!DOCTYPE" in upper or b"<!ENTITY" in upper:
        raise InputError(f"{path}: has a document type or entities, which no annotation needs")
    # Without a document type expat expands nothing and opens no file; an encoding that hides the
    # words above from the search is met by the builder.
    parser = ElementTree.XMLParser(target=_NoDocumentType())  # noqa: S314
    try:
        parser.feed(content)
        root = parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from None
        raise InputError(f"{path}: not readable as XML ({' '.join(str(error).split())})") from None
    if root.tag != kind:
        hint = {"annotation": "; give --format voc", "annotations": "; give --format cvat"}
        raise InputError(f"{path}: is <{root.tag[:40]}>, not <{kind}>{hint.get(root.tag, '')}")
    return root


def text_of(element: ElementTree.Element, tag: str) -> str:
    """Return the text of an inner element, without spaces around it; "" without one."""
    return (element.findtext(tag) or "").strip()
