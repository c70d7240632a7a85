"""Equations of the theory of diffusion, solved numerically: numbers in, numbers out.

Each module states its model and derivation; nothing here knows about a simulation.
Submodules are imported when they are first used.
"""

import importlib
from typing import Any

_SUBMODULES = (
    "channel",
    "clone_agreement",
    "collapse",
    "finite_size",
    "kernel_density",
    "memorisation_rem",
    "potentials",
    "quadrature",
    "rem",
    "roots",
    "speciation",
)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"theory.{name}")
    raise AttributeError(f"module 'theory' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
