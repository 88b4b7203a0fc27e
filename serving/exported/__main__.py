"""``python -m serving.exported``: see `serving.exported.answers`."""

import sys

from serving.exported.answers import main

if __name__ == "__main__":
    sys.exit(main())
