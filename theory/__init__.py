"""Equations of the theory of diffusion, solved numerically: numbers in, numbers out.

Each module states its model and derivation; nothing here knows about a simulation.
Submodules are imported when they are first used.
"""

import importlib
import pkgutil
from types import ModuleType


def _submodules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def __getattr__(name: str) -> ModuleType:
    if name in _submodules():
        return importlib.import_module(f"theory.{name}")
    raise AttributeError(f"module 'theory' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_submodules()])
