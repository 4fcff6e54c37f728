"""Tiercel under the name of onnxruntime, for applications that cannot be changed. Opt-in."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiercel.misc import ONNXRUNTIME_API

_NAME = "onnxruntime"


class _Distribution(importlib.metadata.Distribution):
    """What importlib.metadata says of "onnxruntime": that it is there, in the version whose interface Tiercel follows."""

    def read_text(self, filename: str) -> str | None:
        if filename in ("METADATA", "PKG-INFO"):
            return (
                f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: {ONNXRUNTIME_API}\nSummary: Tiercel under this name\n"
            )
        return None

    def locate_file(self, path: Any) -> Any:
        return Path(__file__).parent / path


class _Finder(importlib.metadata.DistributionFinder):
    """Answers for that distribution alone; finds no modules."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        return None

    def find_distributions(
        self, context: importlib.metadata.DistributionFinder.Context | None = None
    ) -> Iterator[importlib.metadata.Distribution]:
        name = getattr(context, "name", None)
        if name is None or name.replace("_", "-").lower() == _NAME:
            yield _Distribution()


def _module(name: str, doc: str, package: bool = False) -> types.ModuleType:
    module = types.ModuleType(name, doc)
    spec = importlib.machinery.ModuleSpec(name, None, origin="tiercel", is_package=package)
    module.__spec__ = spec
    if package:
        # No folder: what is not in sys.modules is not there. Not empty, for programs look for files beside the package.
        module.__path__ = [str(Path(__file__).parent / _NAME)]
    module.__file__ = __file__
    return module


def _lazy_module(name: str, source: str) -> types.ModuleType:
    """A module with the names of another one, which is imported when the first of them is wanted."""
    module = _module(name, f"{source}, imported when used.")

    def get(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        return getattr(importlib.import_module(source), attribute)

    vars(module)["__getattr__"] = get
    return module


def _fill(module: types.ModuleType, *sources: Any) -> None:
    for source in sources:
        own = [n for n, v in vars(source).items() if n[0] != "_" and getattr(v, "__module__", "").startswith("tiercel")]
        for name in getattr(source, "__all__", own):
            setattr(module, name, getattr(source, name))


def install_as_onnxruntime(force: bool = False) -> types.ModuleType:
    """Makes ``import onnxruntime`` give Tiercel, in this process: the module with its ``capi`` submodules and exception classes,
    and a version that checks of ``__version__`` and of ``importlib.metadata`` accept.

    To be called before anything imports onnxruntime. Raises ``RuntimeError`` when the real one is imported already, unless
    ``force``, which replaces it for imports that follow. Returns the module. What Tiercel lacks (``onnxruntime.quantization``,
    ``onnxruntime.transformers`` but for its ``io_binding_helper``, ...) is a ``ModuleNotFoundError``.
    """
    import tiercel
    from tiercel import binding, devices, errors, misc, options, providers, session, values

    present = sys.modules.get(_NAME)
    if present is not None:
        if getattr(present, "_is_tiercel", False):
            return present
        if not force:
            raise RuntimeError(
                "onnxruntime is imported already; call install_as_onnxruntime() before that, or force it"
            )
        for name in [n for n in sys.modules if n == _NAME or n.startswith(_NAME + ".")]:
            del sys.modules[name]

    exceptions = {c.__name__: c for c in errors.Error.__subclasses__()}

    state = _module(f"{_NAME}.capi.onnxruntime_pybind11_state", "Tiercel's classes under onnxruntime's names.")
    _fill(state, tiercel, values, devices)
    vars(state).update(exceptions)
    pybind = _module(f"{_NAME}.capi._pybind_state", "Tiercel's classes under onnxruntime's names.")
    vars(pybind).update({k: v for k, v in vars(state).items() if not k.startswith("__")})
    collection = _module(f"{_NAME}.capi.onnxruntime_inference_collection", "Tiercel's session classes.")
    _fill(collection, values, devices, binding)
    collection.C = pybind  # type: ignore[attr-defined]
    collection.InferenceSession = session.InferenceSession  # type: ignore[attr-defined]
    collection.Session = session.InferenceSession  # type: ignore[attr-defined]
    collection.check_and_normalize_provider_args = (  # type: ignore[attr-defined]
        providers.check_and_normalize_provider_args
    )
    validation = _module(
        f"{_NAME}.capi.onnxruntime_validation", "Checks of the installation: there is nothing to check."
    )
    vars(validation).update(
        check_distro_info=misc.preload_dlls, get_package_name_and_version_info=lambda: (_NAME, ONNXRUNTIME_API, None)
    )
    package = _module(f"{_NAME}.capi.build_and_package_info", "Name and version.")
    vars(package).update(package_name=_NAME, __version__=ONNXRUNTIME_API)
    capi = _module(f"{_NAME}.capi", "Tiercel's classes under onnxruntime's names.", package=True)
    helper = _lazy_module(f"{_NAME}.transformers.io_binding_helper", "tiercel.type_helper")
    transformers = _module(
        f"{_NAME}.transformers", "Of onnxruntime.transformers, io_binding_helper alone.", package=True
    )
    backend = _lazy_module(f"{_NAME}.backend", "tiercel.backend")  # it needs the onnx package

    root = _module(_NAME, "Tiercel under the name of onnxruntime.", package=True)
    _fill(root, tiercel, options)
    root.__version__ = ONNXRUNTIME_API  # type: ignore[attr-defined]
    root.__author__ = "Tiercel"  # type: ignore[attr-defined]
    root._is_tiercel = True  # type: ignore[attr-defined]
    vars(root)["__getattr__"] = tiercel.__getattr__

    vars(root).update(package_name=_NAME, version=ONNXRUNTIME_API, cuda_version=None, onnxruntime_validation=validation)

    for module in (root, backend, capi, state, pybind, collection, validation, package, transformers, helper):
        sys.modules[module.__name__] = module
        parent, _, name = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], name, module)
    if not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    importlib.invalidate_caches()
    return root
