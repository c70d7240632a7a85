"""Pretrained weights: the output of diffusers, old names, round trip, refusals."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))

from generated import normal, weight

from diffjax import networks
from diffjax.networks.pretrained import CONFIG, WEIGHTS, load_ddpm, save_ddpm
from diffjax.networks.tensors import export_tensors

TORCH = np.load(Path(__file__).parent / "torch_outputs.npz")
NAMES = ("one_sided", "two_sided")
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def tensors_of(name):
    """The tensors under the names that diffusers gives them."""
    shapes = json.loads(str(TORCH[f"{name}.shapes"]))
    return {
        key: np.asarray(weight(f"{name}.{key}", tuple(shape)), np.float32)
        for key, shape in shapes.items()
    }


def written(folder, name, *, change=None, tensors=None):
    """A directory as diffusers would write it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "UNet2DModel", "_diffusers_version": "0.1.1"}
    config |= json.loads(str(TORCH[f"{name}.config"])) | (change or {})
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(tensors_of(name) if tensors is None else tensors, folder / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return written(tmp_path_factory.mktemp("ddpm"), "two_sided")


@pytest.mark.parametrize("name", NAMES)
def test_output_is_that_of_diffusers(name, tmp_path):
    net = load_ddpm(written(tmp_path, name))
    network, params = networks.functional(net)
    wanted = TORCH[name]
    x = normal(f"{name}.x", (3, 8, 12, net.config.in_channels)).astype(np.float32)
    out = jax.jit(network.apply)(params, x, jnp.array([0, 37, 999]))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    count = networks.count_parameters(net)
    assert count.total == count.trainable == sum(v.size for v in tensors_of(name).values())


def test_a_pipeline_with_old_names_is_the_same(directory, tmp_path):
    def old(name):
        if ".attentions." in name:
            for new, before in OLD.items():
                name = name.replace(f".{new}.", f".{before}.")
        return name

    renamed = {old(name): value for name, value in tensors_of("two_sided").items()}
    assert sum("proj_attn" in name for name in renamed) == 2 * 4
    written(tmp_path / "unet", "two_sided", tensors=renamed)
    pair = [export_tensors(load_ddpm(folder)) for folder in (tmp_path, directory)]
    assert pair[0].keys() == pair[1].keys()
    for name, value in pair[0].items():
        np.testing.assert_array_equal(value, pair[1][name])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_round_trip_is_bit_exact(dtype, tmp_path):
    tensors = {k: jnp.asarray(v, dtype) for k, v in tensors_of("two_sided").items()}
    net = load_ddpm(written(tmp_path / "in", "two_sided", tensors=tensors))
    folder = save_ddpm(tmp_path / "out", net)
    back = load_file(folder / WEIGHTS)
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == dtype
        np.testing.assert_array_equal(back[name], value)
    again = load_ddpm(folder)
    assert again.config == net.config
    assert networks.functional(again)[0] == networks.functional(net)[0]


def test_pickled_weights_are_refused_with_the_way_out(directory, tmp_path):
    (tmp_path / CONFIG).write_text((directory / CONFIG).read_text())
    with pytest.raises(FileNotFoundError, match=f"no {WEIGHTS} in"):
        load_ddpm(tmp_path)
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(FileNotFoundError, match=r"pickled.*safe_serialization=True"):
        load_ddpm(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config.json in .* or in its folder 'unet'"):
        load_ddpm(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"]},
            "unknown block type 'CrossAttnDownBlock2D'; known are DownBlock2D, AttnDownBlock2D",
        ),
        ({"time_embedding_type": "fourier"}, "time_embedding_type = 'fourier'; supported"),
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep'; supported: None"),
        ({"_class_name": "UNet2DConditionModel"}, "_class_name = 'UNet2DConditionModel'"),
        ({"cross_attention_dim": 8}, "unknown entry cross_attention_dim = 8"),
        ({"block_out_channels": [8]}, "has 2 entries for 1 block_out_channels"),
        ({"norm_num_groups": 3}, "width 8 must be a multiple of norm_num_groups = 3"),
    ],
)
def test_other_architectures_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_ddpm(written(tmp_path, "two_sided", change=change, tensors={"x": np.zeros(1)}))


def test_tensors_that_do_not_fit_are_named(tmp_path):
    tensors = tensors_of("two_sided")
    name = "mid_block.attentions.0.to_q.weight"
    lost = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(ValueError, match=rf"1 missing \['{name}'\], 0 unknown"):
        load_ddpm(written(tmp_path, "two_sided", tensors=lost))
    wrong = {**tensors, "conv_in.weight": tensors["conv_in.weight"][:4]}
    with pytest.raises(ValueError, match=r"'conv_in.weight' has shape \(4, 1, 3, 3\), expected"):
        load_ddpm(written(tmp_path, "two_sided", tensors=wrong))


def test_damaged_files_are_refused(directory, tmp_path):
    written(tmp_path, "two_sided")
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load_ddpm(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        load_ddpm(tmp_path)


def imported(code):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_without_flax_the_extra_is_named_and_the_rest_works():
    code = (
        "import sys; sys.modules['flax'] = None\n"
        "import diffjax\n"
        "try:\n    diffjax.networks\n"
        "except ImportError as error:\n    print(error)"
    )
    assert imported(code) == "diffjax.networks needs flax: pip install 'diffjax[networks]'"
    assert imported("import diffjax; print(diffjax.networks.count_parameters.__name__)") == (
        "count_parameters"
    )
