"""Facts about the systems of a server."""

from importlib.metadata import PackageNotFoundError

from cxr_compare.serving.web import systems


def test_versions_are_those_of_members_that_differ_and_of_a_runtime_for_gpus(monkeypatch):
    installed = {"cxr-compare": "0.1", "numpy": "2.0", "torch": "2.8", "onnxruntime-gpu": "1.22"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(systems.metadata, "version", version)
    versions = systems.versions_of.__wrapped__(frozenset({"torch + onnx"}))
    assert versions.items() >= installed.items()
