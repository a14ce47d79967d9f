"""The audio encoder against its formulas, and against transformers' ViTs with equal weights."""

import math

import pytest
import torch
from small_models import ENCODER, mels
from torch.nn import functional as F
from transformers import ASTConfig, ASTModel, ViTMAEConfig, ViTMAEForPreTraining

from flap.model.audio_decoder import AudioDecoder
from flap.model.audio_encoder import AudioEncoder
from flap.model.config import DecoderConfig, EncoderConfig
from flap.model.masking import mask_1d
from flap.model.tagger import Tagger, load_tagger, save_tagger
from flap.model.transformer import sincos_positions

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def by_the_formulas(state: dict[str, torch.Tensor], mel_BTF: torch.Tensor) -> torch.Tensor:
    """AudioMAE's pre-norm ViT in plain tensor operations, without its last norm.

    It has 4 heads and patches of 16, and takes normalised windows.
    """
    w, (batch, frames, bins) = state, mel_BTF.shape
    grid = frames // 16, bins // 16
    x = mel_BTF.reshape(batch, grid[0], 16, grid[1], 16).permute(0, 1, 3, 2, 4)
    x = x.reshape(batch, grid[0] * grid[1], 256)
    x = x @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    x = x + w["pos_embed"][:, 1:]
    cls = (w["cls_token"] + w["pos_embed"][:, :1]).expand(batch, 1, -1)
    x = torch.cat([cls, x], dim=1)
    heads, width = 4, x.shape[-1]
    for i in range(sum(name.endswith("norm1.bias") for name in w)):
        qkv = linear(w, norm(w, x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv")
        q, k, v = (
            part.reshape(batch, -1, heads, width // heads).transpose(1, 2)
            for part in qkv.split(width, dim=-1)
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(width // heads)).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, -1, width)
        x = x + linear(w, mixed, f"blocks.{i}.attn.proj")
        hidden = linear(w, norm(w, x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + linear(w, hidden, f"blocks.{i}.mlp.fc2")
    return x


def norm(w: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> torch.Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def audiomae_state(config: EncoderConfig, classes: int = 0) -> dict[str, torch.Tensor]:
    """A random state dict in the layout of released AudioMAE checkpoints."""
    torch.manual_seed(7)
    d, n = config.width, config.grid[0] * config.grid[1]
    shapes = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 1 + n, d),
        "patch_embed.proj.weight": (d, 1, config.patch, config.patch),
        "patch_embed.proj.bias": (d,),
    }
    for i in range(config.depth):
        for name, rows, columns in (
            ("attn.qkv", 3 * d, d),
            ("attn.proj", d, d),
            ("mlp.fc1", 4 * d, d),
            ("mlp.fc2", d, 4 * d),
        ):
            shapes[f"blocks.{i}.{name}.weight"] = (rows, columns)
            shapes[f"blocks.{i}.{name}.bias"] = (rows,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{name}.weight"] = shapes[f"blocks.{i}.{name}.bias"] = (d,)
    last = "fc_norm" if classes else "norm"
    shapes[f"{last}.weight"] = shapes[f"{last}.bias"] = (d,)
    if classes:
        shapes |= {"head.weight": (classes, d), "head.bias": (classes,)}
    return {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}


WIDE = ENCODER.model_copy(update={"clip_frames": 128, "n_mels": 64, "width": 32, "heads": 4})


@pytest.mark.parametrize("config", [WIDE, WIDE.model_copy(update={"clip_frames": 1616})])
def test_audiomae_weights_give_the_activations_of_the_formulas(config: EncoderConfig) -> None:
    state = audiomae_state(config)
    encoder = AudioEncoder(config).eval()
    encoder.load_state_dict(state)
    mel_BCTF = torch.randn(2, 1, config.clip_frames, config.n_mels) * 4 - 4
    normalised = (mel_BCTF[:, 0] + 4.0) / (2 * 4.5)
    expected = norm(state, by_the_formulas(state, normalised), "norm")
    torch.testing.assert_close(encoder(mel_BCTF), expected, **CLOSE)


def test_fine_tuned_audiomae_weights_give_the_logits_of_the_formulas() -> None:
    state = audiomae_state(WIDE, classes=5)
    tagger = Tagger(WIDE, 5).eval()
    tagger.load_state_dict(state)
    mel_BCTF = torch.randn(2, 1, 128, 64) * 4 - 4
    pooled = by_the_formulas(state, (mel_BCTF[:, 0] + 4.0) / 9.0)[:, 1:].mean(dim=1)
    expected = linear(state, norm(state, pooled, "fc_norm"), "head")
    torch.testing.assert_close(tagger.logits(mel_BCTF), expected, **CLOSE)


def load_split_qkv(blocks: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Copy transformers' layers, with separate query, key and value weights, to our blocks."""
    for ours, layer in zip(blocks, theirs, strict=True):  # type: ignore[call-overload]
        state = dict(layer.state_dict())
        for kind in ("weight", "bias"):
            parts = [state[f"attention.{name}_proj.{kind}"] for name in "qkv"]
            getattr(ours.attn.qkv, kind).data = torch.cat(parts)
            for name, source in (
                ("attn.proj", "attention.o_proj"),
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                ours.get_submodule(name).get_parameter(kind).data = state[f"{source}.{kind}"]


SQUARE = EncoderConfig(
    clip_frames=64, n_mels=64, mel_mean=0.0, mel_std=0.5, patch=16, width=32, depth=3, heads=4
)


@pytest.mark.parametrize("normalise_patches", [False, True])
def test_encoder_decoder_and_loss_agree_with_vit_mae(normalise_patches: bool) -> None:
    """transformers' ViTMAE with the same weights and mask; it accepts only square grids."""
    torch.manual_seed(0)
    theirs = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=64,
            patch_size=16,
            num_channels=1,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=128,
            layer_norm_eps=1e-6,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=64,
            mask_ratio=0.5,
            norm_pix_loss=normalise_patches,
        )
    ).eval()
    for parameter in theirs.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    config = DecoderConfig(width=16, depth=2, heads=2, normalise_patches=normalise_patches)
    encoder, decoder = AudioEncoder(SQUARE).eval(), AudioDecoder(config, SQUARE).eval()
    copy_vit_mae(theirs, encoder, decoder)
    mel_BCTF, noise = torch.randn(2, 1, 64, 64), torch.rand(2, 16)
    expected = theirs(mel_BCTF, noise=noise, interpolate_pos_encoding=False)
    hidden = theirs.vit(mel_BCTF, noise=noise).last_hidden_state
    keep_BK = noise.argsort(dim=1)[:, :8]
    tokens = encoder(mel_BCTF, keep_BK)
    torch.testing.assert_close(tokens, hidden, **CLOSE)
    predicted = decoder(tokens, keep_BK)
    torch.testing.assert_close(predicted, expected.logits, **CLOSE)
    loss = decoder.loss(predicted, mel_BCTF[:, 0], keep_BK)
    torch.testing.assert_close(loss, expected.loss, **CLOSE)


def copy_vit_mae(
    theirs: ViTMAEForPreTraining, encoder: AudioEncoder, decoder: AudioDecoder
) -> None:
    vit, dec = theirs.vit, theirs.decoder
    load_split_qkv(encoder.blocks, vit.layers)
    load_split_qkv(decoder.blocks, dec.decoder_layers)
    encoder.cls_token.data = vit.embeddings.cls_token.data
    encoder.pos_embed = vit.embeddings.position_embeddings.data
    decoder.mask_token.data, decoder.pos_embed = dec.mask_token.data, dec.decoder_pos_embed.data
    for ours, source in (
        (encoder.patch_embed.proj, vit.embeddings.patch_embeddings.projection),
        (encoder.norm, vit.layernorm),
        (decoder.embed, dec.decoder_embed),
        (decoder.norm, dec.decoder_norm),
        (decoder.pred, dec.decoder_pred),
    ):
        ours.load_state_dict(source.state_dict())


def test_blocks_agree_with_ast_on_the_papers_grid() -> None:
    """ASTModel on 64 x 8 patches; our blocks get its embeddings, since it has two cls tokens."""
    torch.manual_seed(0)
    theirs = ASTModel(
        ASTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            patch_size=16,
            frequency_stride=16,
            time_stride=16,
            max_length=1024,
            num_mel_bins=128,
            layer_norm_eps=1e-6,
        )
    ).eval()
    for parameter in theirs.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    config = SQUARE.model_copy(update={"clip_frames": 1024, "n_mels": 128, "depth": 2})
    encoder = AudioEncoder(config).eval()
    load_split_qkv(encoder.blocks, theirs.layers)
    encoder.norm.load_state_dict(theirs.layernorm.state_dict())
    mel_BTF = torch.randn(2, 1024, 128)
    tokens = theirs.embeddings(mel_BTF)
    assert tokens.shape == (2, 2 + 512, 32)
    expected = theirs(mel_BTF).last_hidden_state
    torch.testing.assert_close(encoder.norm(encoder.blocks(tokens)), expected, **CLOSE)


def test_positions_differ_for_all_patches() -> None:
    table_ND = sincos_positions((101, 12), 64)[0]
    assert table_ND.shape == (1 + 101 * 12, 64)
    assert torch.equal(table_ND[0], torch.zeros(64))
    assert torch.cdist(table_ND[1:], table_ND[1:]).fill_diagonal_(1).min() > 1e-2


def test_recomputed_activations_give_the_same_gradients() -> None:
    encoder = AudioEncoder(ENCODER)
    keep_BK = mask_1d(ENCODER.grid, 0.5, 2, torch.Generator().manual_seed(0))

    def gradients() -> list[torch.Tensor]:
        encoder.zero_grad()
        encoder(mels(2), keep_BK).square().sum().backward()
        return [p.grad.clone() for p in encoder.parameters() if p.grad is not None]

    kept = gradients()
    encoder.blocks.gradient_checkpointing = True
    assert all(torch.equal(a, b) for a, b in zip(kept, gradients(), strict=True))


@pytest.mark.slow
def test_compiled_blocks_give_the_same_tokens() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(ENCODER)
    expected = encoder(mels(2))
    encoder.blocks.compile()
    torch.testing.assert_close(encoder(mels(2)), expected, **CLOSE)


def test_padding_and_silence_are_normalised_alike() -> None:
    encoder = AudioEncoder(
        ENCODER.model_copy(update={"mel_mean": -4.2677393, "mel_std": 4.5689974})
    )
    assert encoder.normalise(torch.zeros(1)).item() == pytest.approx(0.467, abs=1e-3)


def test_saved_tagger_gives_the_same_logits(tmp_path: object) -> None:
    tagger = Tagger(ENCODER, 3).eval()
    save_tagger(tmp_path, tagger, ("Rain", "Dog", "Siren"))  # type: ignore[arg-type]
    loaded = load_tagger(tmp_path)  # type: ignore[arg-type]
    torch.testing.assert_close(loaded.model.logits(mels(2)), tagger.logits(mels(2)))
    assert loaded.labels == ("Rain", "Dog", "Siren")
    assert F.sigmoid(tagger.head.bias).max() < 0.01
