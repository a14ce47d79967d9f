"""FLAP: the loss, saving and loading, and learning eight pairs by heart."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import CAPTIONS, ENCODER, FUSED, MODEL, TEXT, generator, mels
from transformers import AutoConfig, AutoModel

from flap import FlapConfig, FlapModel
from flap.core.errors import UserError
from flap.model.config import EncoderConfig
from flap.model.flap import build_flap
from flap.model.loss import contrastive_loss
from flap.model.masking import mask_2d
from flap.model.saved import load_flap
from flap.model.tagger import load_tagger
from flap.model.text_encoder import build_tokenizer, tokenize
from flap.model.transformer import sincos_positions


def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    audio, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 5, 8)))
    return audio, text


def equation_1(audio: np.ndarray, text: np.ndarray) -> float:
    s = audio @ text.T / 0.07
    each = range(len(s))
    audio_to_text = -np.mean([s[i, i] - np.log(np.exp(s[i]).sum()) for i in each])
    text_to_audio = -np.mean([s[i, i] - np.log(np.exp(s[:, i]).sum()) for i in each])
    return float((audio_to_text + text_to_audio) / 2)


def test_loss_against_equation_1() -> None:
    audio, text = pairs()
    scale = torch.tensor(math.log(1 / 0.07))
    loss = contrastive_loss(torch.tensor(audio), torch.tensor(text), scale)
    assert loss.item() == pytest.approx(equation_1(audio, text), rel=1e-5)


def test_loss_of_views_is_the_mean_of_their_losses() -> None:
    audio, text = pairs()
    views = np.concatenate([audio, audio[::-1], np.roll(audio, 1, axis=0)])
    scale = torch.tensor(math.log(1 / 0.07))
    loss = contrastive_loss(torch.tensor(views), torch.tensor(text), scale)
    expected = np.mean([equation_1(view, text) for view in np.split(views, 3)])
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_loss_is_float32_under_autocast() -> None:
    audio, text = torch.nn.functional.normalize(torch.randn(2, 6, 8), dim=-1)
    scale = torch.tensor(math.log(100.0))
    exact = contrastive_loss(audio, text, scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert contrastive_loss(audio, text, scale).item() == exact.item()


def test_output_of_a_batch_of_pairs() -> None:
    torch.manual_seed(0)
    model = build_flap(ENCODER, FUSED, with_decoder=True).eval()
    tokens = tokenize(build_tokenizer(TEXT, CAPTIONS), CAPTIONS, 16)
    longer = torch.tensor([True, False, True])
    keep_BK = mask_2d(ENCODER.grid, 0.5, 0.5, 6, generator())
    masked = model(mels(3, 4), **tokens, is_longer=longer, keep=keep_BK, return_loss=True)
    assert masked.audio_embeds.shape == (6, 8) and masked.logits_per_audio.shape == (6, 3)
    assert masked.reconstruction_loss > 0 and masked.loss > 0
    whole = model(mels(3, 4), **tokens, is_longer=longer)
    assert whole.reconstruction_loss is None and whole.loss is None
    assert torch.equal(whole.logits_per_text, whole.logits_per_audio.T)
    for embeddings in (whole.audio_embeds, whole.text_embeds, masked.audio_embeds):
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(len(embeddings)))
    alone = model.get_audio_features(mels(3, 4), longer).pooler_output
    torch.testing.assert_close(alone, whole.audio_embeds)


def test_a_saved_model_reloads_in_a_fresh_process_through_the_auto_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_flap(ENCODER, FUSED, with_decoder=True).eval()
    tokenizer = build_tokenizer(TEXT, CAPTIONS)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    inputs = {"mel": mels(3, 4), "longer": torch.tensor([1, 0, 1])}
    save_file(inputs | dict(tokenize(tokenizer, CAPTIONS, 16)), tmp_path / "inputs.safetensors")
    program = f"""
from flap import FlapModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer
model = AutoModel.from_pretrained("model").eval()
assert type(model) is FlapModel
x = load_file("inputs.safetensors")
audio = model.get_audio_features(x["mel"], x["longer"].bool()).pooler_output
captions = AutoTokenizer.from_pretrained("model")({CAPTIONS!r}, padding=True, return_tensors="pt")
assert captions["input_ids"].equal(x["input_ids"])
text = model.get_text_features(captions["input_ids"], captions["attention_mask"]).pooler_output
save_file({{"audio": audio.detach(), "text": text.detach()}}, "outputs.safetensors")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    found = load_file(tmp_path / "outputs.safetensors")
    tokens = tokenize(tokenizer, CAPTIONS, 16)
    with torch.no_grad():
        expected = model(inputs["mel"], **tokens, is_longer=inputs["longer"].bool())
    torch.testing.assert_close(found["audio"], expected.audio_embeds)
    torch.testing.assert_close(found["text"], expected.text_embeds)


def test_the_decoder_is_loaded_only_to_train(tmp_path: Path) -> None:
    assert build_flap(ENCODER, MODEL, with_decoder=False).audio_decoder is None
    build_flap(ENCODER, MODEL, with_decoder=True).save_pretrained(tmp_path)
    build_tokenizer(TEXT, CAPTIONS).save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).audio_decoder is not None
    assert load_flap(tmp_path).model.audio_decoder is None


def test_configuration_survives_the_round_trip(tmp_path: Path) -> None:
    config = build_flap(ENCODER, FUSED, with_decoder=True).config
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, FlapConfig)
    assert loaded.encoder == ENCODER and loaded.fusion
    assert loaded.decoder_config == FUSED.decoder.model_dump()
    assert loaded.text_config.hidden_size == TEXT.width


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    build_flap(ENCODER, MODEL, with_decoder=False).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["audio_encoder.cls_token"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"weights are missing \(audio_encoder\.cls_token"):
        load_flap(tmp_path)


def test_parts_that_a_checkpoint_lacks_start_afresh_and_the_rest_is_loaded(tmp_path: Path) -> None:
    """transformers only warns of it: decoder and fusion added, a bias and the scale missing."""
    saved = build_flap(ENCODER, MODEL, with_decoder=False)
    saved.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = ["audio_encoder.blocks.0.mlp.fc1.bias", "audio_encoder.pos_embed", "logit_scale"]
    kept = {name: tensor for name, tensor in weights.items() if name not in lost}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = FlapModel.from_pretrained(
        tmp_path, fusion=True, decoder_config=MODEL.decoder.model_dump()
    )
    found = loaded.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in kept.items())
    assert not found[lost[0]].any()
    assert torch.equal(found["audio_encoder.pos_embed"], saved.audio_encoder.pos_embed)
    assert found["logit_scale"].item() == pytest.approx(math.log(1 / 0.07))
    assert loaded.audio_decoder is not None
    expected = sincos_positions(ENCODER.grid, MODEL.decoder.width)
    assert torch.equal(loaded.audio_decoder.pos_embed, expected)
    norm = loaded.audio_encoder.patch_embed.fusion.local_attention[1]
    assert not norm.running_mean.any() and (norm.running_var == 1).all()
    assert norm.num_batches_tracked == 0


def test_embeddings_are_float32_under_autocast() -> None:
    model = build_flap(ENCODER, MODEL, with_decoder=False).eval()
    tokens = tokenize(build_tokenizer(TEXT, CAPTIONS), CAPTIONS, 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(mels(3), **tokens, return_loss=True)
    for embeddings in (output.audio_embeds, output.text_embeds):
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3), atol=1e-6, rtol=0)


def test_inputs_that_are_missing_are_named() -> None:
    fused = build_flap(ENCODER, FUSED, with_decoder=False)
    with pytest.raises(ValueError, match="is_longer"):
        fused.get_audio_features(mels(2, 4))
    with pytest.raises(ValueError, match="got 1 channels"):
        fused.get_audio_features(mels(2), torch.tensor([True, False]))
    plain = build_flap(ENCODER, MODEL, with_decoder=False)
    with pytest.raises(ValueError, match="return_loss needs both"):
        plain(mels(2), return_loss=True)
    with pytest.raises(ValueError, match="logits need both"):
        _ = plain(mels(2)).logits_per_audio


def test_eight_pairs_are_learned_by_heart() -> None:
    torch.manual_seed(0)
    encoder = ENCODER.model_copy(update={"width": 64, "heads": 4})
    wider = MODEL.model_copy(update={"embedding": 32})
    model = build_flap(encoder, wider, with_decoder=False).train()
    words = ("one", "two", "six", "ten", "red", "blue", "green", "black")
    captions = [f"Sound number {word}." for word in words]
    tokens = tokenize(build_tokenizer(TEXT, captions), captions, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(400):
        keep_BK = mask_2d(ENCODER.grid, 0.25, 0.0, 16, generator(step))  # two views
        loss = model(mels(8), **tokens, keep=keep_BK, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.clamp_logit_scale()
    with torch.no_grad():
        whole = model.eval()(mels(8), **tokens, return_loss=True)
    assert whole.loss < 0.05
    assert whole.logits_per_audio.argmax(dim=1).tolist() == list(range(8))


def test_logit_scale_is_clamped() -> None:
    model = build_flap(ENCODER, MODEL, with_decoder=False)
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    model.logit_scale.data.fill_(9.0)
    model.clamp_logit_scale()
    assert model.logit_scale.exp().item() == pytest.approx(100)


def test_activations_are_recomputed_on_request() -> None:
    model = build_flap(ENCODER, MODEL, with_decoder=True)
    assert model.audio_decoder is not None
    calls = []
    for blocks in (model.audio_encoder.blocks, model.audio_decoder.blocks):
        blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    keep_BK = mask_2d(ENCODER.grid, 0.5, 0.5, 2, generator())

    def forwards_of_a_step() -> int:
        calls.clear()
        model.train()(mels(2), keep=keep_BK).reconstruction_loss.backward()
        return len(calls)

    assert forwards_of_a_step() == 2
    model.gradient_checkpointing_enable()
    assert forwards_of_a_step() == 4


def test_folder_without_a_model_is_named(tmp_path: Path) -> None:
    for load in (load_flap, load_tagger):
        with pytest.raises(UserError, match=str(tmp_path)):
            load(tmp_path)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="multiples of patch"):
        EncoderConfig.model_validate(ENCODER.model_dump() | {"clip_frames": 100})
    with pytest.raises(ValueError, match="of heads"):
        EncoderConfig.model_validate(ENCODER.model_dump() | {"heads": 3})
