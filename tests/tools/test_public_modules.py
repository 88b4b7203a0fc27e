"""The import contract of the annexes refuses what is not public, and names what nobody imports."""

import grimp
import pytest

from tools.public_modules import PublicModules


@pytest.mark.parametrize(
    ("imports", "faults"),
    [
        (["product.core.door"], []),
        (["product.core.door.inner", "product", "product.annex.other"], []),
        (["product.core.door", "product.core.room"], ["product.annex.a -> product.core.room"]),
        (["product.core.doorstep"], ["product.annex.a -> product.core.doorstep", "core.door:"]),
        ([], ["product.core.door: is public, and no annex imports it"]),
    ],
)
def test_an_annex_imports_public_modules_alone(imports, faults):
    graph = grimp.ImportGraph()
    graph.add_module("product.annex")
    graph.add_module("product.annex.a")
    for name in imports:
        graph.add_import(importer="product.annex.a", imported=name)
    options = {"source_modules": ["product.annex"], "public_modules": ["product.core.door"]}
    check = PublicModules("annexes", {"root_packages": ["product"]}, options).check(graph, False)
    found = check.metadata["faults"]
    assert check.kept is (not faults)
    assert len(found) == len(faults)
    assert all(part in line for part, line in zip(faults, found, strict=True))
