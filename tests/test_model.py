"""The model: masks, audio encoder, loss, and what is saved is what is loaded."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flap.errors import UserError
from flap.model.audio_encoder import AudioEncoder, sincos_positions
from flap.model.config import EncoderConfig, ModelConfig, TextConfig
from flap.model.flap import Flap, load_flap, save_flap
from flap.model.loss import contrastive_loss
from flap.model.masking import Mask1D, Mask2D, NoMask, draw_mask, mask_1d, mask_2d, mask_2d_shared
from flap.model.tagger import Tagger, load_tagger, save_tagger
from flap.model.text_encoder import build_tokenizer, tokenize

PAPER_GRID = (64, 8)
ENCODER = EncoderConfig(
    clip_frames=64, n_mels=32, mel_mean=-4.0, mel_std=4.5, patch=16, width=16, depth=2, heads=2
)
TEXT = TextConfig(
    pretrained=None, vocabulary=300, width=16, depth=1, heads=2, dropout=0.0, max_tokens=16
)
MODEL = ModelConfig(text=TEXT, embedding=8, initial_temperature=0.07, max_logit_scale=math.log(100))
CAPTIONS = ["A dog barks.", "Rain falls on a roof while a dog barks twice.", "A bell rings."]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_numbers_kept_are_the_papers() -> None:
    assert mask_1d(PAPER_GRID, 0.4, 2, generator()).shape == (2, 307)
    assert mask_2d(PAPER_GRID, 0.2, 0.2, 2, generator()).shape == (2, 51 * 6)
    assert mask_2d_shared(PAPER_GRID, 0.2, 0.2, 2, generator()).shape == (2, 306)


def test_truncation_is_not_at_the_mercy_of_rounding() -> None:
    assert mask_1d((10, 1), 0.1, 1, generator()).shape == (1, 9)  # 10 · 0.9 = 9.000…0 or 8.99…


@settings(max_examples=50, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 101), st.integers(1, 12)),
    ratios=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    seed=st.integers(0, 2**31),
)
def test_masks_keep_distinct_tokens_of_the_grid(
    grid: tuple[int, int], ratios: tuple[float, float], seed: int
) -> None:
    for keep_BK in (
        mask_1d(grid, ratios[0], 3, generator(seed)),
        mask_2d(grid, *ratios, 3, generator(seed)),
        mask_2d_shared(grid, *ratios, 3, generator(seed)),
    ):
        for kept in keep_BK.tolist():
            assert len(set(kept)) == len(kept)
            assert all(0 <= token < grid[0] * grid[1] for token in kept)


def test_2d_mask_is_time_steps_by_frequencies() -> None:
    keep_BK = mask_2d(PAPER_GRID, 0.2, 0.2, 50, generator())
    steps, counts = torch.unique(keep_BK[0] // 8, return_counts=True)
    assert len(steps) == 51 and set(counts.tolist()) == {6}
    shared = mask_2d_shared(PAPER_GRID, 0.2, 0.2, 50, generator())
    assert len(torch.unique(shared[0] % 8)) == 6
    assert len(torch.unique(keep_BK[0] % 8)) == 8


@pytest.mark.parametrize("draw", [mask_2d, mask_2d_shared])
def test_every_token_is_kept_equally_often(draw: object) -> None:
    """Chi-square of the marginals, 5000 draws: far from the 99.9 % quantile."""
    assert callable(draw)
    counts = torch.bincount(draw((8, 4), 0.5, 0.5, 5000, generator()).flatten(), minlength=32)
    expected = 5000 * 0.25
    # Tokens of one mask are exclusive within a group, so the statistic is not exactly chi².
    assert (((counts - expected) ** 2) / expected).sum() < 62


def test_masks_follow_the_generator_and_none_draws_nothing() -> None:
    mask = Mask1D(kind="1d", ratio=0.5)
    first, again = (draw_mask(mask, (4, 2), 2, generator(1)) for _ in range(2))
    assert first is not None and torch.equal(first, again)
    assert draw_mask(NoMask(kind="none"), (4, 2), 2, generator()) is None
    two = Mask2D(kind="2d", time_ratio=0.5, freq_ratio=0.5, members="shared")
    assert draw_mask(two, (4, 2), 2, generator()).shape == (2, 2)


def test_masked_patches_do_not_leak() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(ENCODER).eval()
    mel_BTF = torch.randn(2, 64, 32)
    keep_BK = mask_2d(ENCODER.grid, 0.25, 0.5, 2, generator())
    disturbed = mel_BTF.clone()
    for clip in range(2):
        for token in set(range(8)) - set(keep_BK[clip].tolist()):
            t, f = token // 2 * 16, token % 2 * 16
            disturbed[clip, t : t + 16, f : f + 16] += 100
    torch.testing.assert_close(encoder(mel_BTF, keep_BK), encoder(disturbed, keep_BK))
    assert not torch.allclose(encoder(mel_BTF), encoder(disturbed))


def test_keeping_all_tokens_in_any_order_is_no_mask() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(ENCODER).eval()
    mel_BTF = torch.randn(3, 64, 32)
    keep_BK = mask_1d(ENCODER.grid, 0.0, 3, generator())
    torch.testing.assert_close(
        encoder.instance(mel_BTF, keep_BK), encoder.instance(mel_BTF), atol=1e-5, rtol=1e-5
    )


def test_encoder_against_the_formulas_in_plain_tensors() -> None:
    """Pre-norm ViT written out once more, without modules or fused attention."""
    torch.manual_seed(0)
    encoder = AudioEncoder(ENCODER).eval()
    w = encoder.state_dict()
    mel_BTF = torch.randn(2, 64, 32)
    patches = mel_BTF.reshape(2, 4, 16, 2, 16).permute(0, 1, 3, 2, 4).reshape(2, 8, 256)
    x = patches @ w["patch_embed.proj.weight"].reshape(16, 256).T + w["patch_embed.proj.bias"]
    x = x + w["pos_embed"][:, 1:]
    x = torch.cat([(w["cls_token"] + w["pos_embed"][:, :1]).expand(2, 1, 16), x], 1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for i in range(2):
        qkv = linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv")
        q, k, v = (part.reshape(2, 9, 2, 8).transpose(1, 2) for part in qkv.split(16, dim=-1))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(8)).softmax(-1)
        x = x + linear((weights @ v).transpose(1, 2).reshape(2, 9, 16), f"blocks.{i}.attn.proj")
        hidden = linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + linear(hidden, f"blocks.{i}.mlp.fc2")
    torch.testing.assert_close(encoder(mel_BTF), norm(x, "norm"), atol=1e-5, rtol=1e-5)


def test_positions_tell_every_patch_apart() -> None:
    table_ND = sincos_positions((101, 12), 64)[0]
    assert table_ND.shape == (1 + 101 * 12, 64)
    assert torch.equal(table_ND[0], torch.zeros(64))
    assert torch.cdist(table_ND[1:], table_ND[1:]).fill_diagonal_(1).min() > 1e-2


def test_loss_against_equation_1() -> None:
    rng = np.random.default_rng(0)
    a, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 5, 8)))
    s = a @ t.T / 0.07
    audio_to_text = -np.mean([s[i, i] - np.log(np.exp(s[i]).sum()) for i in range(5)])
    text_to_audio = -np.mean([s[i, i] - np.log(np.exp(s[:, i]).sum()) for i in range(5)])
    loss = contrastive_loss(torch.tensor(a), torch.tensor(t), torch.tensor(math.log(1 / 0.07)))
    assert loss.item() == pytest.approx((audio_to_text + text_to_audio) / 2, rel=1e-5)


def test_loss_is_float32_under_autocast() -> None:
    audio, text = torch.nn.functional.normalize(torch.randn(2, 6, 8), dim=-1)
    scale = torch.tensor(math.log(100.0))
    exact = contrastive_loss(audio, text, scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert contrastive_loss(audio, text, scale).item() == exact.item()


def test_saved_flap_gives_the_same_embeddings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TEXT, CAPTIONS)
    model = Flap(ENCODER, MODEL).eval()
    save_flap(tmp_path / "model", model, tokenizer)
    loaded = load_flap(tmp_path / "model")
    mel_BTF, tokens = torch.randn(3, 64, 32), tokenize(tokenizer, CAPTIONS, 16)
    again = tokenize(loaded.tokenizer, CAPTIONS, 16)
    with torch.no_grad():
        expected, found = model(mel_BTF, tokens), loaded.model(mel_BTF, again)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one.norm(dim=-1), torch.ones(3))


def test_text_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TEXT, CAPTIONS)
    model = Flap(ENCODER, MODEL).eval()
    together = model.embed_text(tokenize(tokenizer, CAPTIONS, 16))
    alone = torch.cat([model.embed_text(tokenize(tokenizer, [c], 16)) for c in CAPTIONS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_long_captions_are_cut_and_case_does_not_matter() -> None:
    tokenizer = build_tokenizer(TEXT, CAPTIONS)
    tokens = tokenize(tokenizer, ["dog " * 100, "DOG"], 16)
    assert tokens["input_ids"].shape == (2, 16)
    lower = tokenize(tokenizer, ["dog"], 16)["input_ids"]
    assert torch.equal(tokenize(tokenizer, ["DOG"], 16)["input_ids"], lower)


def test_logit_scale_is_clamped() -> None:
    model = Flap(ENCODER, MODEL)
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    model.logit_scale.data.fill_(9.0)
    model.clamp_logit_scale()
    assert model.logit_scale.exp().item() == pytest.approx(100)


def test_saved_tagger_gives_the_same_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tagger = Tagger(ENCODER, 3).eval()
    save_tagger(tmp_path, tagger, ("Rain", "Dog", "Siren"))
    loaded = load_tagger(tmp_path)
    mel_BTF = torch.randn(2, 64, 32)
    torch.testing.assert_close(loaded.model.logits(mel_BTF), tagger.logits(mel_BTF))
    assert loaded.labels == ("Rain", "Dog", "Siren")
    assert loaded.tagger_id == load_tagger(tmp_path).tagger_id


def test_folder_without_a_model_is_named(tmp_path: Path) -> None:
    for load in (load_flap, load_tagger):
        with pytest.raises(UserError, match=str(tmp_path)):
            load(tmp_path)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="multiples of patch"):
        EncoderConfig.model_validate(ENCODER.model_dump() | {"clip_frames": 100})


def test_unknown_pretrained_text_encoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = TEXT.model_copy(update={"pretrained": "no/such-model"})
    with pytest.raises(UserError, match=r"model\.text\.pretrained: 'no/such-model'"):
        build_tokenizer(text, CAPTIONS)
