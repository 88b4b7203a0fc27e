"""One file a program: `PACKAGE` is its name at PyPI, `FIGURES` has a function of a case each."""
