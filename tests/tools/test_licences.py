"""What the program needs to run is under no GPL and no AGPL, and each licence is known."""

import configparser
from pathlib import Path

import pytest

from tools.licences import Licence, closure, licence_of, main, problems, required_extras


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of some metadata and files, for this test alone."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, metadata: str = "", licence: str = "") -> str:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}"
        (folder / "METADATA").write_text(text)
        (folder / "LICENSE").write_text(licence)
        (tmp_path / f"{name}.py").write_text("")  # newer Pythons list only files that are there
        listed = (f"{name}.py", f"{folder.name}/METADATA", f"{folder.name}/LICENSE")
        (folder / "RECORD").write_text("".join(f"{path},,\n" for path in listed))
        return name

    return install


@pytest.mark.parametrize(
    ("metadata", "text", "licence"),
    [
        ("License-Expression: MIT\n", "", "MIT"),
        ("Classifier: License :: OSI Approved :: MIT License\nLicense: x\n", "", "MIT License"),
        ("License: BSD-3-Clause\n", "", "BSD-3-Clause"),
        ("License: UNKNOWN\n", "Licensed under the Apache License, Version 2.0", "Apache-2.0"),
        ("", "GNU GENERAL PUBLIC LICENSE Version 3", "GPL"),
        ("", "Copyright: me", ""),
    ],
)
def test_licence_is_read_from_the_metadata_or_its_file(install, metadata, text, licence):
    assert licence_of(install("strange", metadata, text)).licence == licence


@pytest.mark.parametrize(
    ("licence", "is_wrong"),
    [
        ("GPL-3.0-or-later", True),
        ("GNU Affero General Public License v3", True),
        ("MIT AND GPL-2.0-only", True),
        ("", True),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("GPL-2.0-only OR MIT", False),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
    ],
)
def test_gpl_agpl_and_unknown_fail(licence, is_wrong):
    lines = problems([Licence("strange", "1.0", licence, "")], {}, skip_missing=False)
    assert bool(lines) is is_wrong


def test_what_packages_need_in_turn_is_checked_with_their_extras(install):
    install("inner")
    install("outer", 'Requires-Dist: inner; extra == "more"\nRequires-Dist: absent\n')
    assert closure(["outer"]) == ({"outer"}, {"absent"})
    assert closure(["outer[more]>=0"]) == ({"outer", "inner"}, {"absent"})
    assert closure(['outer; sys_platform == "none"']) == (set(), set())
    gap = problems([], {"absent": "core"}, skip_missing=False)
    assert len(gap) == 1
    assert problems([], {"absent": "core"}, skip_missing=True) == []


def test_every_extra_of_users_is_checked():
    config = configparser.ConfigParser()
    config.read_string(
        "[options]\ninstall_requires =\n    a>=1\n"
        "[options.extras_require]\ntest =\n    b\nserve =\n    c\n    d\n"
    )
    assert required_extras(config) == {"": ["a>=1"], "serve": ["c", "d"]}


def test_what_is_installed_here_may_be_needed(capsys):
    assert main(["--skip-missing"]) == 0, capsys.readouterr().err
    assert "numpy" in capsys.readouterr().out


def test_it_runs_as_in_the_release_workflow():
    workflow = Path(__file__).parents[2] / ".github" / "workflows" / "publish.yml"
    assert "python tools/licences.py\n" in workflow.read_text()
