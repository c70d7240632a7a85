"""The published U-Net: its parameters, every block against torch, dropout, errors."""

import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

sys.path.insert(0, str(Path(__file__).parent))

from generated import normal, weight

from diffjax import networks
from diffjax.networks import layers, tensors, unet
from diffjax.networks.unet import ResBlock, TimeEmbedding, UNetConfig

TORCH = np.load(Path(__file__).parent / "torch_outputs.npz")
SMALL = UNetConfig(
    channels=2, width=8, multiples=(1, 2, 3), blocks=1, attention=(1,), groups=4, heads=2, steps=50
)
PARTS = {  # of the published network; init, encoder, bottleneck and decoder, final
    3: {"time": 146_432, "init": 1_792, "final": 1_859, "total": 25_700_483},
    1: {"time": 146_432, "init": 640, "final": 705, "total": 25_698_177},
}


TINY = replace(SMALL, multiples=(1,), attention=(0,), dropout=0.5)
RNGS = nnx.Rngs(0)


def blank(make):
    """The module that ``make`` makes with zeros for its random weights, which take long to draw."""
    zeros = mock.patch.object(layers.Uniform, "__call__", lambda _, key, *a: jnp.zeros(*a[:2]))
    with zeros:
        return make()


def generated(make, prefix):
    """The module with the weights that the fixture was computed with, in float64."""
    module = blank(make)
    given = {
        name: weight(f"{prefix}.{name}", value.shape)
        for name, value in tensors.export_tensors(module).items()
    }
    tensors.import_tensors(module, given)
    return module


@pytest.fixture(scope="module")
def published():
    def shapes(channels):
        return blank(lambda: nnx.eval_shape(lambda: unet.dynamical_regimes_unet(channels)))

    return {channels: shapes(channels) for channels in PARTS}


@pytest.fixture(scope="module")
def small():
    return networks.functional(generated(lambda: unet.UNet(SMALL, rngs=RNGS), "unet"))


@pytest.fixture(scope="module")
def tiny():
    """A network of one level, its parameters in float32, and the compiled function."""
    network, params = networks.functional(generated(lambda: unet.UNet(TINY, rngs=RNGS), "tiny"))
    return network, jax.tree.map(lambda p: p.astype(jnp.float32), params), jax.jit(network.apply)


def close(actual, name, tolerance=1e-10):
    wanted = TORCH[name]
    assert actual.shape == wanted.shape
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("channels", PARTS)
def test_parameters_of_the_published_network(published, channels):
    net = published[channels]
    count = networks.count_parameters

    def levels(group):
        return sum(count(level).total for level in group)

    found = {
        "time": count(net.time).total,
        "init": count(net.conv_in).total,
        "final": count(net.norm_out).total + count(net.conv_out).total,
        "total": count(net).total,
    }
    assert found == PARTS[channels]
    assert count(net.time) == (64_000 + 82_432, 82_432)
    assert count(net) == (found["total"], found["total"] - 64_000)
    assert [levels(group) for group in (net.encoder, net.bottleneck, net.decoder)] == [
        6_933_056,
        2_757_632,
        15_859_712,
    ]


def test_widths_and_attention_of_the_published_decoder(published):
    net = published[3]
    table = [
        ([b.conv_in.in_features for b in level.blocks], level.blocks[0].conv_in.out_features,
         [b.attention is not None for b in level.blocks], level.resample is not None)
        for level in net.decoder
    ]  # fmt: skip
    assert table == [
        ([512, 512, 512], 256, [False] * 3, True),
        ([512, 512, 384], 256, [True] * 3, True),
        ([384, 256, 192], 128, [True] * 3, True),
        ([192, 128, 128], 64, [False] * 3, False),
    ]
    attends = [[b.attention is not None for b in level.blocks] for level in net.encoder]
    assert attends == [[False] * 2, [True] * 2, [True] * 2, [False] * 2]
    assert [b.attention is not None for b in net.bottleneck] == [True, False]


def test_time_embedding_is_that_of_torch():
    embed = generated(lambda: TimeEmbedding(8, 50, rngs=RNGS), "time")
    close(embed(jnp.array([0, 7, 49])), "time")


@pytest.mark.parametrize(
    ("name", "width", "attention"),
    [
        ("res", 8, False),
        ("res_wide", 16, False),
        ("res_attention", 8, True),
        ("res_wide_attention", 16, True),
    ],
)
def test_residual_block_is_that_of_torch(name, width, attention):
    block = generated(lambda: ResBlock(8, width, SMALL, attention=attention, rngs=RNGS), name)
    x, e = jnp.asarray(normal("res.x", (3, 4, 6, 8))), jnp.asarray(normal("e", (3, 32)))
    close(block(x, e), name)
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.03)):
        single = nnx.merge(*jax.tree.map(lambda p, to=dtype: p.astype(to), nnx.split(block)))
        out = single(x.astype(dtype), e.astype(dtype))
        assert out.dtype == dtype
        close(out.astype(float), name, tolerance)


def test_attention_and_resampling_are_those_of_torch():
    x = jnp.asarray(normal("res.x", (3, 4, 6, 8)))
    attention = generated(lambda: layers.Attention(8, 2, rngs=RNGS), "attention")
    close(attention(x), "attention")
    close(generated(lambda: layers.conv(8, 8, stride=2, rngs=RNGS), "down")(x), "down")
    up = generated(lambda: layers.conv(8, 8, rngs=RNGS), "up")
    close(up(layers.upsample(x)), "up")


def test_whole_network_is_that_of_torch(small):
    network, params = small
    x, index = normal("unet.x", (3, 8, 12, 2)), jnp.array([0, 7, 49])
    close(jax.jit(network.apply)(params, x, index), "unet")


def test_half_precision_runs_in_half_precision(tiny):
    network, params, _ = tiny
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    x = jnp.asarray(normal("tiny.x", (3, 4, 6, 2)), jnp.float32)
    graph = str(jax.make_jaxpr(network.apply)(half, x, 7))
    convolutions = [line for line in graph.split("\n") if "= conv_general_dilated" in line]
    assert len(convolutions) > 10
    assert all("bf16" in line.split("=")[0] for line in convolutions)
    assert jax.eval_shape(network.apply, half, x, 7).dtype == jnp.float32


def test_fractional_indices_agree_with_the_rows_and_lie_between():
    embed = generated(lambda: TimeEmbedding(8, 50, rngs=RNGS), "time")
    index = jnp.array([0, 7, 49])
    np.testing.assert_array_equal(embed(index), embed(index.astype(jnp.float32)))
    # A table twice as dense, with every frequency halved, has the half-way rows.
    angle = np.array([6.5, 30.25])[:, None] * np.exp(-np.arange(4) * np.log(1e4) / 3)
    row = jnp.asarray(np.concatenate([np.sin(angle), np.cos(angle)], axis=-1))
    wanted = embed.out(jax.nn.gelu(embed.hidden(row), approximate=False))
    np.testing.assert_allclose(embed(jnp.array([6.5, 30.25])), wanted, atol=3e-7)


def test_batch_axes_are_free_and_times_broadcast(tiny):
    network, params, _ = tiny

    def shape(batch, time):
        x = jax.ShapeDtypeStruct((*batch, 4, 6, 2), jnp.float32)
        time = jax.ShapeDtypeStruct(time, jnp.int32)
        return jax.eval_shape(network.apply, params, x, time).shape

    assert shape((), ()) == (4, 6, 2)
    assert shape((5,), ()) == (5, 4, 6, 2)
    assert shape((2, 5), (5,)) == (2, 5, 4, 6, 2)


def test_dropout_needs_a_key(tiny):
    _, params, apply = tiny
    x = jnp.asarray(normal("tiny.x", (3, 4, 6, 2)), jnp.float32)
    key = jax.random.key(3)
    noisy = apply(params, x, 7, key=key)
    assert np.abs(noisy - apply(params, x, 7)).max() > 1e-2
    np.testing.assert_array_equal(noisy, apply(params, x, 7, key=key))
    assert np.abs(noisy - apply(params, x, 7, key=jax.random.key(4))).max() > 1e-2


def test_dropout_removes_whole_channels(key):
    ones = jnp.ones((400, 3, 3, 50))
    dropped = layers.dropout(ones, 0.1, key)
    assert set(np.unique(dropped)) == {0.0, 1 / 0.9}
    np.testing.assert_array_equal(dropped, jnp.broadcast_to(dropped[:, :1, :1], ones.shape))
    # 20000 channels: standard error 0.0021
    assert abs(float(jnp.mean(dropped[:, 0, 0] == 0)) - 0.1) < 4 * 0.0021
    np.testing.assert_array_equal(layers.dropout(ones[:5], 0.1, key), dropped[:5])
    single = layers.dropout(ones, 0.1, key, whole_channels=False)
    assert 0.09 < float(jnp.mean(single == 0)) < 0.11
    assert np.abs(single - single[:, :1, :1]).max() > 1


def test_initial_weights_are_those_of_torch():
    """Uniform: bound reached, variance bound^2 / 3, in both cases within 4 standard errors."""
    block = ResBlock(64, 96, replace(SMALL, groups=8, width=64), attention=True, rngs=RNGS)
    bounds = {
        "conv_in.weight": (9 * 64) ** -0.5,
        "conv_in.bias": (9 * 64) ** -0.5,
        "conv_out.weight": (9 * 96) ** -0.5,
        "shortcut.weight": 64**-0.5,
        "time.weight": 256**-0.5,
        "attention.qkv.weight": (1.5 / 96) ** 0.5,
        "attention.out.weight": 96**-0.5,
    }
    values = tensors.export_tensors(block)
    for name, bound in bounds.items():
        value = values[name].ravel() / bound
        assert value.dtype == np.float32
        assert 1 - 10 / value.size < np.abs(value).max() <= 1, name
        # variance of u^2 is 4/45
        assert abs(np.mean(value**2) - 1 / 3) < 4 * np.sqrt(4 / 45 / value.size), name
        assert abs(np.mean(value)) < 4 * np.sqrt(1 / 3 / value.size), name
    for name in ("attention.qkv.bias", "attention.out.bias", "norm_in.bias"):
        assert np.all(values[name] == 0)


def test_networks_of_one_architecture_are_equal_and_share_compilations():
    def split(**change):
        return networks.functional(blank(lambda: unet.unet(replace(TINY, **change))))

    one, params = networks.functional(unet.unet(TINY, key=jax.random.key(1)))
    other, others = networks.functional(unet.unet(TINY, key=jax.random.key(2)))
    assert one == other
    assert hash(one) == hash(other)
    assert not jax.tree.all(jax.tree.map(np.array_equal, params, others))
    (different, _), (longer, _) = split(dropout=0.2), split(steps=60)
    assert one != different
    assert one != longer
    traces = []

    @jax.jit
    def shapes(params):
        traces.append(0)
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    shapes(params), shapes(others)
    assert len(traces) == 1


def test_gradients_reach_every_parameter(tiny):
    network, params, _ = tiny
    x = jnp.asarray(normal("tiny.x", (3, 4, 6, 2)), jnp.float32)

    @jax.jit
    def gradient(p):
        return jax.grad(lambda p: jnp.mean(jnp.square(network.apply(p, x, 7))))(p)

    flat = nnx.to_flat_state(gradient(params))
    silent = [tensors.tensor_name(path) for path, g in flat if not np.abs(g[...]).max() > 1e-9]
    assert silent == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 7}, "width must be even"),
        ({"width": 10}, "multiple of groups = 4"),
        ({"attention": (3,)}, "must name levels 0 to 2"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"blocks": 0}, "blocks must be an integer >= 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: unet.unet(replace(SMALL, **change)))


def test_images_that_do_not_fit_are_refused(small):
    network, params = small
    with pytest.raises(ValueError, match="multiples of 4; pad"):
        network.apply(params, jnp.zeros((1, 6, 8, 2)), 0)
    with pytest.raises(ValueError, match=r"expected \(B, H, W, 2\)"):
        network.apply(params, jnp.zeros((1, 8, 8, 3)), 0)
    with pytest.raises(ValueError, match="expected 3 event axes"):
        network.apply(params, jnp.zeros((8, 8)), 0)
    with pytest.raises(TypeError, match=r"expected a flax\.nnx.Module, got dict"):
        networks.count_parameters({})


def test_tensors_that_do_not_fit_are_named():
    block = blank(lambda: ResBlock(8, 16, SMALL, rngs=RNGS))
    stored = tensors.export_tensors(block)
    assert stored["conv_in.weight"].shape == (16, 8, 3, 3)
    assert stored["time.weight"].shape == (16, 32)
    lost = {name: value for name, value in stored.items() if name != "time.bias"}
    with pytest.raises(ValueError, match=r"1 missing \['time.bias'\], 0 unknown"):
        tensors.import_tensors(block, lost)
    with pytest.raises(ValueError, match=r"1 unknown \['more'\]"):
        tensors.import_tensors(block, {**stored, "more": stored["time.bias"]})
    wrong = {**stored, "conv_in.weight": stored["conv_in.weight"][:, :4]}
    with pytest.raises(ValueError, match=r"'conv_in.weight' has shape \(16, 4, 3, 3\), expected"):
        tensors.import_tensors(block, wrong)
