"""The `cxr` program, called in this process as its console script calls it."""

import sys
from unittest import mock

from cxr_compare.scripts import cli


def cxr(*words):
    """Call `cxr` with the words of a command line, and return its exit status."""
    with mock.patch.object(sys, "argv", ["cxr", *map(str, words)]):
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0
