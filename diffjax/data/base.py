r"""What a data distribution can answer about the channel ``x = scale a + std z``.

Five protocols, each a superset of the one before it where it says so. A function asks for the
least that it needs; `require` names the capability that is missing.

Shapes: batch first, event last. ``x`` is ``(..., d)``; ``scale`` and ``std`` are scalars or
broadcast against the batch ``(...)``. The posterior is

    p(a | x) ~ P0(a) exp(-|x - scale a|^2 / (2 std^2)).                                  (1)

No implementation divides by ``scale``, which is 0 where no signal is left. ``std > 0`` unless a
distribution with a density says otherwise.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


@runtime_checkable
class Denoiser(Protocol):
    """Knows the posterior mean; a trained network is one."""

    @property
    def dim(self) -> int:
        """Dimension d of the data."""
        ...

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Posterior mean ``E[a | x]``, shape of ``x``."""
        ...


@runtime_checkable
class Posterior(Denoiser, Protocol):
    """Knows its whole posterior (1)."""

    def sample(self, key: Array, n: int) -> Array:
        """``n`` clean samples, ``(n, d)``."""
        ...

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x) = log E_a N(x; scale a, std^2 I)`` in nats, shape ``(...)``."""
        ...

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x)`` per state, shape of ``x``."""
        ...

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u``, shape of ``x``."""
        ...


@runtime_checkable
class ClassDenoiser(Protocol):
    """Knows the posterior mean within each of K classes; a conditional network is one."""

    @property
    def classes(self) -> int:
        """Number of classes K."""
        ...

    def class_denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``E[a | x, c]``, ``(..., K, d)``."""
        ...


@runtime_checkable
class Classified(ClassDenoiser, Protocol):
    """Has K classes whose posterior it knows."""

    def class_log_posterior(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(c | x)``, normalised, ``(..., K)``."""
        ...

    def condition(self, c: int) -> Any:
        """The distribution of class ``c`` alone (arrays keep their shapes: masked, not cut)."""
        ...


@runtime_checkable
class Atomic(Protocol):
    """Is a weighted set of points (an empirical measure)."""

    def index_log_weights(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log w_mu(x)``, the normalised posterior of the point index, ``(..., n)``."""
        ...


_MEANING: dict[Any, str] = {
    Denoiser: "a denoiser (dim, denoise)",
    Posterior: "an exact posterior (sample, log_normaliser, sample_posterior, covariance_product)",
    ClassDenoiser: "a denoiser for each class (classes, class_denoise)",
    Classified: "classes (class_log_posterior, class_denoise, condition)",
    Atomic: "an index over points (index_log_weights)",
}


def require(data: Any, protocol: type, purpose: str) -> None:
    """Raise ``TypeError`` naming what ``data`` lacks for ``purpose``."""
    if not isinstance(data, protocol):
        raise TypeError(
            f"{purpose} needs {_MEANING[protocol]}, which {type(data).__name__} does not have"
        )


def per_event(value: ArrayLike, x: Array) -> Array:
    """``value`` in the dtype of ``x`` with a trailing axis, so that it multiplies ``(..., d)``."""
    return jnp.asarray(value, x.dtype)[..., None]
