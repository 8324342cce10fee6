"""The conversion of CompVis' cin256, on a small copy of its topology whose weights bear CompVis' names."""

import functools
import re
import sys

import pytest
import torch
from draws import equal, normal, seeded

from ddlib import models
from ddlib.batch.cli import main
from ddlib.models import priors
from ddlib.models.priors import convert, from_compvis, load_prior

LEVELS = 4
CLASSES, CONTEXT, CODES = 5, 24, 32
NETWORK = "model.diffusion_model."


@functools.cache
def network():
    """cin256's noise predictor at a sixth of its width."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        found = UNet2DConditionModel(
            in_channels=3,
            out_channels=3,
            block_out_channels=(32, 64, 96, 160),
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
            up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
            cross_attention_dim=CONTEXT,
            attention_head_dim=1,
        )
    return filled(found)


@functools.cache
def autoencoder():
    """Its VQ autoencoder at a quarter of its width."""
    from diffusers import VQModel

    with torch.device("meta"):
        found = VQModel(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(32, 64, 128),
            layers_per_block=2,
            num_vq_embeddings=CODES,
            scaling_factor=1.0,
        )
    return filled(found)


def filled(found):
    models.reset(found.to_empty(device="cpu"), seeded(1))
    with torch.no_grad():
        for index, weight in enumerate(found.parameters()):
            weight.add_(0.02 * normal(*weight.shape, seed=index))
    return found.eval()


RESIDUAL_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
IN_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def network_name(name):
    """CompVis' name of a weight of the noise predictor, where every block of a level is numbered on."""
    for ours, theirs in OUTER.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs)
    side, *rest = re.fullmatch(r"(down|mid|up)_blocks?\.(?:(\d)\.)?(\w+)\.(\d)\.(.*)", name).groups()
    level, kind, index, end = int(rest[0] or 0), rest[1], int(rest[2]), rest[3]
    if kind == "resnets":
        first, second = end.split(".")
        end = f"{RESIDUAL_BLOCK[first]}.{second}"
    if side == "mid":
        return f"middle_block.{2 * index if kind == 'resnets' else 1}.{end}"
    place = {"resnets": 0, "attentions": 1}.get(kind)
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{3 * (level + 1)}.0.op.{end.removeprefix('conv.')}"
        return f"input_blocks.{1 + 3 * level + index}.{place}.{end}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{1 if level == LEVELS - 1 else 2}.{end}"
    return f"output_blocks.{3 * level + index}.{place}.{end}"


def autoencoder_name(name):
    """CompVis' name of a weight of the autoencoder; its decoder counts levels from the image."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{2 - int(found[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{2 - int(found[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    if found := re.fullmatch(r"(.*)mid_block\.attentions\.0\.(.*)\.(\w+)", name):
        name = f"{found[1]}mid.attn_1.{IN_ATTENTION[found[2]]}.{found[3]}"
    return name


def checkpoint():
    """All weights under CompVis' names, and some that are to be left out."""
    found = {f"model.diffusion_model.{network_name(name)}": w for name, w in network().state_dict().items()}
    for name, weight in autoencoder().state_dict().items():
        attends = ".attentions." in name and weight.ndim == 2  # of 1x1 convolutions there
        found[f"first_stage_model.{autoencoder_name(name)}"] = weight[:, :, None, None] if attends else weight
    found["cond_stage_model.embedding.weight"] = normal(CLASSES + 1, CONTEXT)
    return found | {"betas": torch.ones(1000), "model_ema.num_updates": torch.tensor(3)}


@pytest.fixture(scope="module")
def weights():
    return checkpoint()


def test_names_are_those_that_compvis_gives(weights):
    """A sample of names of the published checkpoint."""
    for name in (
        "model.diffusion_model.input_blocks.1.0.in_layers.0.weight",
        "model.diffusion_model.input_blocks.3.0.op.weight",
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.middle_block.1.proj_in.weight",
        "model.diffusion_model.output_blocks.2.2.conv.weight",
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
        "model.diffusion_model.out.2.bias",
        "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight",
        "first_stage_model.decoder.up.2.upsample.conv.weight",
        "first_stage_model.decoder.mid.attn_1.proj_out.bias",
        "first_stage_model.quantize.embedding.weight",
        "first_stage_model.post_quant_conv.weight",
    ):
        assert name in weights


def test_every_weight_finds_its_place(weights):
    prior = from_compvis(weights)
    assert equal(prior.unet.state_dict(), network().state_dict())
    assert equal(prior.vae.state_dict(), autoencoder().state_dict())
    assert torch.equal(prior.embedder.embedding.weight, weights["cond_stage_model.embedding.weight"])


def test_computes_what_the_original_does(weights):
    prior = from_compvis(weights)
    z, c = normal(2, 3, 8, 8), normal(2, 1, CONTEXT)
    assert torch.equal(prior.predict(z, 7, c), network()(z, 7, encoder_hidden_states=c).sample)
    images = normal(2, 3, 16, 16)
    expected = autoencoder().encode(images).latents  # as they are
    assert torch.equal(prior.encode(images), expected)
    assert torch.equal(prior.decode(expected), autoencoder().decode(expected).sample)
    assert (prior.num_classes, prior.channels, prior.factor) == (CLASSES, 3, 4) and not prior.unet.training
    assert torch.equal(prior.null(1)[0, 0], weights["cond_stage_model.embedding.weight"][-1])
    assert prior.scheduler.config.beta_schedule == "scaled_linear"


def test_the_original_has_the_published_size():
    """Parameters of cin256, in millions, from the widths of its first weights alone."""
    shapes = {priors.WIDTH: (192, 3, 3, 3), priors.AUTOENCODER_WIDTH: (128, 3, 3, 3)}
    shapes |= {priors.CODES: (8192, 3), priors.CLASSES: (1001, 512)}
    first = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    autoencoder, network, _ = priors._untrained(first)
    sizes = [sum(weight.numel() for weight in part.parameters()) / 1e6 for part in (network, autoencoder)]
    assert [round(size, 1) for size in sizes] == [400.9, 55.3]


@pytest.mark.parametrize("wrapped", [False, True])
def test_converts_a_file_to_a_folder(weights, tmp_path, wrapped):
    torch.save({"state_dict": weights, "epoch": 3} if wrapped else weights, tmp_path / "model.ckpt")
    prior = convert(tmp_path / "model.ckpt", tmp_path / "new" / "cin256")
    loaded = load_prior(tmp_path / "new" / "cin256")
    assert equal(loaded, prior)
    assert loaded.unet.config.attention_head_dim == 1


class Callback:
    """What a trainer leaves in its checkpoints."""


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_more_than_tensors_are_loaded_when_told_so_alone(weights, tmp_path, capsys, monkeypatch):
    torch.save({"state_dict": weights, "callbacks": Callback()}, tmp_path / "model.ckpt")
    command = ["prior", "convert", str(tmp_path / "model.ckpt"), str(tmp_path / "cin256")]
    assert main(command) == 2
    assert "`--yes` (trusted=True) loads more than tensors, and runs code of whoever made it" in capsys.readouterr().err
    assert left(tmp_path) == ["model.ckpt"]
    monkeypatch.delattr(sys.modules[__name__], "Callback")  # as where another program's class is not there
    assert main([*command, "--yes"]) == 2 and "model.ckpt is damaged" in capsys.readouterr().err
    monkeypatch.undo()
    assert main([*command, "--yes"]) == 0
    assert f"cin256: {CLASSES} classes, images of 3 channels" in capsys.readouterr().out
    assert equal(load_prior(tmp_path / "cin256").unet.state_dict(), network().state_dict())


def without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda w: without(w, priors.CLASSES), "no class-conditional latent .* no cond_stage_model.embedding.weight"),
        (lambda w: without(w, priors.CODES), "VQ autoencoder: no first_stage_model.quantize.embedding.weight"),
        (lambda w: without(w, f"{NETWORK}out.2.bias"), "(?s)topology: .*UNet2DConditionModel.*Missing .*conv_out.bias"),
        (lambda w: without(w, "first_stage_model.decoder.conv_out.bias"), "(?s)topology: .*VQModel:.*Missing"),
        (lambda w: w | {f"{NETWORK}input_blocks.1.0.more.weight": torch.ones(1)}, "(?s)Unexpected .*more.weight"),
        (lambda w: w | {f"{NETWORK}out.2.bias": torch.ones(4)}, "size mismatch for conv_out"),
        (lambda w: {"weights": [1]}, "model.ckpt holds no weights by name"),
        (lambda w: torch.ones(1), "model.ckpt holds no weights by name"),
    ],
)
def test_refuses_another_model(weights, harm, match, tmp_path):
    torch.save(harm(weights), tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=match):
        convert(tmp_path / "model.ckpt", tmp_path / "cin256")
    assert left(tmp_path) == ["model.ckpt"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 cut"])
def test_refuses_a_damaged_file_and_none_and_writes_over_nothing(content, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint '.*model.ckpt'"):
        convert(tmp_path / "model.ckpt", tmp_path / "cin256")
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="model.ckpt is damaged"):
        convert(tmp_path / "model.ckpt", tmp_path / "cin256")
    assert left(tmp_path) == ["model.ckpt"]
    (tmp_path / "cin256").mkdir()
    with pytest.raises(FileExistsError, match="cin256 exists already"):
        convert(tmp_path / "model.ckpt", tmp_path / "cin256")
