"""An annex is a folder that can be deleted: marked blocks alone name it outside."""

import re
import shutil

import pytest

from tests.test_wheel import ROOT, TO_BUILD, bare_environment, build, run

ANNEXES = ("studies", "hospital")
WITH_BLOCKS = ("setup.cfg", ".dockerignore", "mkdocs.yml")

pytestmark = [pytest.mark.release, pytest.mark.xdist_group("wheel")]


def without_block(text: str, annex: str) -> str:
    """Cut the marked blocks of an annex out of a file."""
    block = rf"^ *# annex {annex}\n.*?^ *# end of annex {annex}\n"
    return re.sub(block, "", text, flags=re.MULTILINE | re.DOTALL)


def test_only_marked_blocks_name_an_annex():
    for name in WITH_BLOCKS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for annex in ANNEXES:
            assert without_block(text, annex) != text
            text = without_block(text, annex)
        kept = text.partition("[importlinter")[0]
        assert re.findall(r"\b(?:studies|hospital)\b", kept) == [], name


@pytest.mark.parametrize("annex", ANNEXES)
def test_without_an_annex_the_wheel_is_built_and_the_core_works(annex, tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in set(TO_BUILD) - {annex}:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    (source / "cxr_compare" / annex).unlink(missing_ok=True)  # the link of a clone
    path = source / "setup.cfg"
    path.write_text(without_block(path.read_text(encoding="utf-8"), annex), encoding="utf-8")
    (tmp_path / "wheel").mkdir()
    bare = bare_environment(build("wheel", source, tmp_path / "wheel"), tmp_path)
    helped = run([bare / "bin/cxr", "--help"], tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert f"─ {annex.capitalize()} ─" not in helped.stdout
    imports = (
        "import importlib, pkgutil, sys, cxr_compare\n"
        "found = [m.name for m in pkgutil.walk_packages(cxr_compare.__path__, 'cxr_compare.')]\n"
        "for name in found: importlib.import_module(name)\n"
        "print(len(found))"
    )
    done = run([bare / "bin/python", "-c", imports], tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300
    for command in (
        "synth xrays --images 60 --size 64",
        "prepare xrays data --format rsna --size 64 --workers 2",
        "train retinanet_small --data data --out det --set training.epochs=1",
        "train chexnet_small --data data --out cls --set training.epochs=1",
        "compare A=det B=cls --both --data data --out report --replicates 100",
    ):
        done = run([bare / "bin/cxr", *command.split()], tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "report/report.html").is_file()
