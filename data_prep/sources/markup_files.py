"""Reading of XML and text files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_XML_BYTES, require_depth
from cxr_compare.data_prep.contracts.text_files import read_bytes, read_text_file
from cxr_compare.data_prep.images.refused_files import require_file


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, in any encoding that `decode_text` knows."""
    return read_text_file(path).splitlines()


class _Builder(ElementTree.TreeBuilder):
    """Builder of elements that refuses a document type and deep nesting."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:
        self.depth += 1
        require_depth(self.depth, self.path)
        return super().start(tag, attrs)

    def end(self, tag: str) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise InputError(f"{self.path}: has a document type, which no annotation needs; remove it")


def read_xml_file(path: Path, kind: str) -> ElementTree.Element:
    """Read an XML file without following external references, and return its root element.

    `kind` is the tag that the root element must have, such as ``annotation``. A file that is larger
    or deeper than the limits, or has a document type or entities, is refused.
    """
    require_file(path)
    content = read_bytes(path, MAX_XML_BYTES)
    upper = content.upper()
    if b"<!DOCTYPE" in upper or b"<!ENTITY" in upper:
        raise InputError(f"{path}: has a document type or entities, which no annotation needs")
    # Without a document type expat expands nothing and opens no file; an encoding that hides the
    # words above from the search is met by the builder.
    parser = ElementTree.XMLParser(target=_Builder(path))  # noqa: S314
    try:
        parser.feed(content)
        root = parser.close()
    except InputError:
        raise
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{path}: not readable as XML ({' '.join(str(error).split())})") from None
    if root.tag != kind:
        hint = {"annotation": "; give --format voc", "annotations": "; give --format cvat"}
        raise InputError(f"{path}: is <{root.tag[:40]}>, not <{kind}>{hint.get(root.tag, '')}")
    return root


def text_of(element: ElementTree.Element, tag: str) -> str:
    """Return the text of an inner element, without spaces around it; "" without one."""
    return (element.findtext(tag) or "").strip()
