"""K4: the training step of a U-Net beside the same network in torch.

Both draw a batch, noise levels and noise, take the gradient of the mean squared error of the noise
prediction in float32 with dropout, and apply Adam. Forward and gradient alone tell where the time
goes, and so do the parts of the network at the shapes in which they occur. Wall time, one process.
The threads of torch wait for one another: on a busy machine compare on one core
(``OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks training --peers``), or torch looks too slow.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.timing import interleave, optional, ready, summarise
from diffjax.networks import functional, layers, objectives, training
from diffjax.networks.objectives import as_partial
from diffjax.networks.training_step import advance
from diffjax.networks.unet import UNetConfig, unet

IMAGES = 64  # of the data set
CASES = [
    ("small U-Net", UNetConfig(1, width=32, multiples=(1, 2, 2), attention=(1, 2)), 16, 16),
    ("published U-Net", UNetConfig(3), 32, 4),
]
SMALL = [("tiny U-Net", UNetConfig(1, width=8, multiples=(1, 2), attention=(1,)), 8, 2)]
# batch, side and channels of the published network's parts
PARTS = {
    "convolution": [(4, 32, 64, 64), (4, 16, 128, 128), (4, 8, 256, 256), (4, 4, 512, 256)],
    "GroupNorm, SiLU": [(4, 32, 128, 128), (4, 16, 256, 256)],
    "attention": [(4, 16, 128, 128), (4, 8, 256, 256)],
}
SMALL_PARTS = {name: [(2, 4, 16, 16)] for name in PARTS}


def run(rounds: int, peers: bool, small: bool) -> Iterator[dict[str, Any]]:
    """One result per network, and one per part and shape."""
    torch = optional("torch") if peers else None
    skipped = ["torch (not installed)"] if peers and torch is None else []
    for case in SMALL if small else CASES:
        yield _network(*case, rounds, torch, skipped)
    for name, shapes in (SMALL_PARTS if small else PARTS).items():
        for shape in shapes:
            yield _part(name, shape, rounds, torch, skipped)


def _network(
    name: str, config: UNetConfig, side: int, batch: int, rounds: int, torch: Any, skipped: list
) -> dict[str, Any]:
    """Training steps, gradients and forward passes of one network."""
    data = np.random.default_rng(0).standard_normal(
        (IMAGES, side, side, config.channels), dtype=np.float32
    )
    candidates, count = _diffjax(config, data, batch)
    floor = "diffjax, training step"
    if torch is not None:
        floor = "torch, training step"
        candidates |= _torch(torch, config, data, batch)
    seconds = interleave(candidates, rounds)
    title = f"{name}, {count:,} parameters, B = {batch}, {side} x {side} x {config.channels}"
    result = summarise(title, seconds, floor, skipped=skipped)
    result["images_per_second"] = {
        key: batch / statistics.median(times) for key, times in seconds.items() if "step" in key
    }
    return result


def _diffjax(
    config: UNetConfig, data: np.ndarray, batch: int
) -> tuple[dict[str, Callable[[], Any]], int]:
    """The library's own step, and the gradient and the forward pass of its network."""
    network, params = functional(unet(config))
    recipe = training.published(batch=batch, chunk=1)
    state = [training.initial_state(jax.tree.map(jnp.array, params), recipe)]
    examples, objective, apply = jnp.asarray(data), objectives.published(), as_partial(network)

    def step() -> Any:
        state[0], losses = advance(
            state[0], examples, objective, apply, np.int32(1), config=recipe, mesh=None
        )
        return float(losses[0])

    def loss(params: Any, x: jax.Array, index: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(network.apply(params, x, index, key=key)))

    inputs = (params, examples[:batch], jnp.arange(1, batch + 1), jax.random.key(0))
    return {
        "diffjax, training step": step,
        "diffjax, gradient": ready(jax.jit(jax.grad(loss)), *inputs),
        "diffjax, forward": ready(jax.jit(loss), *inputs),
    }, sum(leaf.size for leaf in jax.tree.leaves(params))


def _torch(
    torch: Any, config: UNetConfig, data: np.ndarray, batch: int
) -> dict[str, Callable[[], Any]]:
    """The same in torch, eager."""
    from benchmarks.torch_unet import UNet

    torch.manual_seed(0)
    net = UNet(config).train()
    adam = torch.optim.Adam(net.parameters(), lr=1e-4)
    examples = torch.from_numpy(data).permute(0, 3, 1, 2).contiguous()
    alpha = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    first, index = examples[:batch], torch.arange(1, batch + 1)

    def step() -> float:
        a = examples[torch.randint(0, len(examples), (batch,))]
        t, z = torch.randint(1, 1000, (batch,)), torch.randn_like(a)
        level = alpha[t][:, None, None, None]
        adam.zero_grad(set_to_none=True)
        noised = level.sqrt() * a + (1 - level).sqrt() * z
        loss = torch.nn.functional.mse_loss(net(noised, t), z)
        loss.backward()
        adam.step()
        return loss.item()

    def gradient() -> None:
        net.zero_grad(set_to_none=True)
        net(first, index).square().mean().backward()

    def forward() -> float:
        with torch.no_grad():
            return net(first, index).square().mean().item()

    return {
        "torch, training step": step,
        "torch, gradient": gradient,
        "torch, forward": forward,
    }


def _part(
    name: str, shape: tuple[int, int, int, int], rounds: int, torch: Any, skipped: list
) -> dict[str, Any]:
    """Forward and backward pass of one part of the network."""
    batch, side, width_in, width_out = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, side, side, width_in), dtype=np.float32)
    g = rng.standard_normal((batch, side, side, width_out), dtype=np.float32)
    rngs = nnx.Rngs(0)
    module = {
        "convolution": lambda: layers.conv(width_in, width_out, rngs=rngs),
        "GroupNorm, SiLU": lambda: layers.group_norm(width_in, 8, 1e-5, rngs=rngs),
        "attention": lambda: layers.Attention(width_in, 4, rngs=rngs),
    }[name]()
    graph, params = nnx.split(module)
    after = jax.nn.silu if "SiLU" in name else lambda y: y

    @jax.jit
    def both(params: Any, x: jax.Array, g: jax.Array) -> Any:
        return jax.vjp(lambda p, x: after(nnx.merge(graph, p)(x)), params, x)[1](g)

    candidates = {"diffjax": ready(both, params, jnp.asarray(x), jnp.asarray(g))}
    if torch is not None:
        candidates["torch"] = _torch_part(torch, name, shape, x, g)
    floor = "diffjax" if torch is None else "torch"
    title = f"{name}, forward and backward, {batch} x {side} x {side} x {width_in} to {width_out}"
    return summarise(title, interleave(candidates, rounds), floor, skipped=skipped)


def _torch_part(
    torch: Any, name: str, shape: tuple[int, int, int, int], x: np.ndarray, g: np.ndarray
) -> Callable[[], Any]:
    """The same part in torch."""
    from benchmarks.torch_unet import Attention

    _, _, width_in, width_out = shape
    module = {
        "convolution": lambda: torch.nn.Conv2d(width_in, width_out, 3, padding=1),
        "GroupNorm, SiLU": lambda: torch.nn.Sequential(
            torch.nn.GroupNorm(8, width_in), torch.nn.SiLU()
        ),
        "attention": lambda: Attention(width_in, 4, batch_first=True),
    }[name]()
    state, out = (torch.from_numpy(v).permute(0, 3, 1, 2).contiguous() for v in (x, g))
    state.requires_grad_()
    return lambda: torch.autograd.grad(module(state), (state, *module.parameters()), out)
