"""diffjax: phase transitions of generative diffusion, measured in simulation.

One idea carries everything: the posterior over clean data given a noisy state. A data
distribution answers for it, a process chooses the channel, and `Diffusion` joins the two.
The companion package `theory` solves the corresponding equations; neither imports the other.

Every time ``t`` is the time of the Ornstein-Uhlenbeck process; see `diffjax.processes`.
"""

from types import ModuleType

from diffjax import guidance, observables, processes, schedules
from diffjax.data.curie_weiss import curie_weiss, curie_weiss_of_pairs
from diffjax.data.gaussian_mixture import gaussian_mixture
from diffjax.data.point_cloud import point_cloud
from diffjax.data.potts import potts
from diffjax.data.random_hierarchy import random_hierarchy
from diffjax.data.smoothed import smoothed, smoothed_by_level
from diffjax.data.sphere import hypersphere
from diffjax.diffusion import Diffusion
from diffjax.dynamics.backward import backward
from diffjax.dynamics.forward import forward
from diffjax.dynamics.late_start import late_start
from diffjax.dynamics.protocols import clones, u_turns
from diffjax.processes import (
    ornstein_uhlenbeck,
    rectified_flow,
    variance_exploding,
    variance_preserving,
)

__version__ = "0.1.0"

__all__ = [
    "Diffusion",
    "backward",
    "clones",
    "curie_weiss",
    "curie_weiss_of_pairs",
    "forward",
    "gaussian_mixture",
    "guidance",
    "hypersphere",
    "late_start",
    "observables",
    "ornstein_uhlenbeck",
    "point_cloud",
    "potts",
    "processes",
    "random_hierarchy",
    "rectified_flow",
    "schedules",
    "smoothed",
    "smoothed_by_level",
    "u_turns",
    "variance_exploding",
    "variance_preserving",
]


def __getattr__(name: str) -> ModuleType:
    """`diffjax.networks`, loaded when it is first asked for: flax is an optional extra."""
    if name == "networks":
        import diffjax.networks as networks

        return networks
    raise AttributeError(f"module 'diffjax' has no attribute {name!r}")
