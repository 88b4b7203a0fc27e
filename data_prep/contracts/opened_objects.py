"""Objects that are opened from a folder: the error for one that is constructed from its path."""

from __future__ import annotations

import os
from typing import Any, Self

from cxr_compare.data_prep.contracts.errors import InputError


class OpenedFromFolder:
    """Base class of objects that ``open`` reads from a folder.

    A path alone makes no such object. A user who passes one to the class is told the right call.

    Example:
        >>> import cxr_compare
        >>> cxr_compare.DataSet("out/data")
        Traceback (most recent call last):
        ...
        cxr_compare...InputError: DataSet('out/data'): ... write DataSet.open('out/data')
    """

    def __new__(cls, *values: Any, **named: Any) -> Self:
        """Make the object; refuse a single path.

        Raises:
            InputError: The only argument is a path.
        """
        given = [*values, *named.values()]
        if len(given) == 1 and isinstance(given[0], str | os.PathLike):
            path = os.fspath(given[0])
            name = cls.__name__
            raise InputError(
                f"{name}({path!r}): a folder is opened and not constructed; write "
                f"{name}.open({path!r})"
            )
        return super().__new__(cls)
