"""Numbers with their nouns: 1 image, 2 images, 1,200 boxes."""

from __future__ import annotations

_IRREGULAR = {"box": "boxes", "study": "studies", "patch": "patches", "copy": "copies"}


def counted(count: int, noun: str) -> str:
    """A number with its noun in the singular or the plural.

    Args:
        count: How many; thousands are set apart by commas.
        noun: In the singular, of one or several words; the last one is inflected.

    Example:
        >>> counted(1, "image"), counted(1200, "box"), counted(0, "val image")
        ('1 image', '1,200 boxes', '0 val images')
    """
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """A noun in the plural.

    Example:
        >>> plural("patient"), plural("predicted box")
        ('patients', 'predicted boxes')
    """
    rest, space, last = noun.rpartition(" ")
    return f"{rest}{space}{_IRREGULAR.get(last, last + 's')}"
