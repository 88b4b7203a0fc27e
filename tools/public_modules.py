"""The import contract ``public_modules``: packages import listed modules of the others alone."""

from __future__ import annotations

from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class PublicModules(Contract):
    """Check that packages import nothing but listed modules, and that each listed one is imported.

    The names that the root package exports may always be imported.

    Options: ``source_modules``, the packages that are checked, and ``public_modules``, the modules
    and packages that they may import besides their own, each with all that it contains.
    """

    type_name = "public_modules"

    source_modules: Any = fields.ListField(subfield=fields.ModuleField())
    public_modules: Any = fields.ListField(subfield=fields.ModuleField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Find imports of modules that are not listed, and listed modules that nobody imports."""
        sources = [module.name for module in self.source_modules]
        public = [module.name for module in self.public_modules]
        unused = set(public)
        refused = []
        for importer in sorted(name for name in graph.modules if _is_in(name, sources)):
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                is_root_or_library = "." not in imported or graph.is_module_squashed(imported)
                if is_root_or_library or _is_in(imported, sources):
                    continue
                allowed = {name for name in public if _is_in(imported, [name])}
                unused -= allowed
                if not allowed:
                    refused.append(f"{importer} -> {imported}")
        faults = [f"{line} (not public)" for line in refused]
        faults += [f"{name}: is public, and no annex imports it" for name in sorted(unused)]
        return ContractCheck(kept=not faults, metadata={"faults": faults})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print each fault on a line."""
        for fault in check.metadata["faults"]:
            output.print_error(fault)


def _is_in(module: str, packages: list[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)
