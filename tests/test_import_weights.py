"""Imported checkpoints: each tensor is loaded, left out or fresh for a reason, or an error."""

import argparse
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_models import ENCODER, FUSED, MODEL
from test_model_audio_encoder import audiomae_state

from flap.core.errors import UserError
from flap.model.audio_encoder import AudioEncoder, PatchEmbedding
from flap.model.config import EncoderConfig, WeightsConfig
from flap.model.flap import build_flap
from flap.model.fusion import FusedPatchEmbedding
from flap.model.import_weights import ImportReport, import_weights
from flap.model.tagger import Tagger, save_tagger

BASE = ENCODER.model_copy(update={"n_mels": 128})  # a grid of 4 x 8; released models have 64 x 8


def weights(source: Path | str, **others: Any) -> WeightsConfig:
    return WeightsConfig(source=str(source), **{"revision": None, "sha256": None} | others)


def load(encoder: AudioEncoder, source: Path, **others: Any) -> ImportReport:
    report = import_weights(encoder, weights(source, **others))
    assert set(report.loaded) | set(report.fresh) == set(encoder.state_dict())
    return report


def assert_loaded(encoder: AudioEncoder, state: dict[str, torch.Tensor]) -> None:
    own = encoder.state_dict()
    for name in own.keys() & state.keys():
        assert torch.equal(own[name], state[name]), name


def test_pretrained_audiomae(tmp_path: Path) -> None:
    """A file of AudioMAE's training script, with optimiser, arguments and decoder."""
    state = audiomae_state(BASE)
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)}
    decoder |= {"decoder_pos_embed": torch.zeros(1, 33, 8)}
    file = tmp_path / "pretrained.pth"
    arguments = argparse.Namespace(lr=1e-3, output_dir="out")
    torch.save({"model": state | decoder, "optimizer": {}, "epoch": 3, "args": arguments}, file)
    encoder = AudioEncoder(BASE)
    report = load(encoder, file)
    assert_loaded(encoder, state)
    assert not report.fresh and not report.reshaped
    assert set(report.left_out) == set(decoder)
    assert "3 left out: decoder of its pre-training" in str(report)
    tagger_report = load(Tagger(BASE, 5), file)
    assert set(tagger_report.fresh) == {
        "fc_norm.weight",
        "fc_norm.bias",
        "head.weight",
        "head.bias",
    }


def test_fine_tuned_audiomae_is_a_tagger_and_an_encoder(tmp_path: Path) -> None:
    state = audiomae_state(BASE, classes=5)
    torch.save({"model": state}, tmp_path / "finetuned.pth")
    tagger = Tagger(BASE, 5)
    report = load(tagger, tmp_path / "finetuned.pth")
    assert_loaded(tagger, state)
    assert not report.fresh and not report.left_out
    encoder = AudioEncoder(BASE)
    report = load(encoder, tmp_path / "finetuned.pth")
    assert_loaded(encoder, state)
    assert set(report.fresh) == {"norm.weight", "norm.bias"}
    assert "4 left out: the tagger's head" in str(report)


def test_timm_port_and_data_parallel_prefix(tmp_path: Path) -> None:
    state = audiomae_state(BASE, classes=5)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch16_224"}')
    tagger = Tagger(BASE, 5)
    load(tagger, tmp_path)
    assert_loaded(tagger, state)
    torch.save({f"module.{name}": t for name, t in state.items()}, tmp_path / "ddp.bin")
    tagger = Tagger(BASE, 5)
    load(tagger, tmp_path / "ddp.bin")
    assert_loaded(tagger, state)


def test_audio_branch_of_mavil(tmp_path: Path) -> None:
    state = audiomae_state(BASE)
    video = {"cls_token_v": torch.zeros(1), "blocks_v.0.norm1.weight": torch.zeros(2)}
    video |= {"patch_embed_v.proj.weight": torch.zeros(2), "norm_v.bias": torch.zeros(2)}
    torch.save({"model": state | video}, tmp_path / "mavil.pth")
    encoder = AudioEncoder(BASE)
    report = load(encoder, tmp_path / "mavil.pth")
    assert_loaded(encoder, state)
    assert set(report.left_out) == set(video)


def test_our_own_tagger_and_flap(tmp_path: Path) -> None:
    tagger = Tagger(ENCODER, 5)
    save_tagger(tmp_path / "tagger", tagger, tuple("abcde"))
    encoder = AudioEncoder(ENCODER)
    load(encoder, tmp_path / "tagger")
    assert_loaded(encoder, tagger.state_dict())
    flap = build_flap(ENCODER, FUSED, with_decoder=True)
    flap.save_pretrained(tmp_path / "flap")
    for patch_embed in (PatchEmbedding, FusedPatchEmbedding):
        encoder = AudioEncoder(ENCODER, patch_embed(ENCODER.patch, ENCODER.width))
        report = load(encoder, tmp_path / "flap")
        assert_loaded(encoder, flap.audio_encoder.state_dict())
        assert not report.fresh
    unfused = build_flap(ENCODER, MODEL, with_decoder=False)
    unfused.save_pretrained(tmp_path / "unfused")
    encoder = AudioEncoder(ENCODER, FusedPatchEmbedding(ENCODER.patch, ENCODER.width))
    report = load(encoder, tmp_path / "unfused")
    assert set(report.fresh.values()) == {"feature fusion"}


def test_positions_are_taken_as_they_are_cut_or_interpolated(tmp_path: Path) -> None:
    state = audiomae_state(BASE)
    torch.save(state, tmp_path / "a.pth")

    def table(**changes: int) -> tuple[torch.Tensor, ImportReport]:
        encoder = AudioEncoder(BASE.model_copy(update=changes))
        report = load(encoder, tmp_path / "a.pth")
        return encoder.pos_embed, report

    found, report = table()
    assert torch.equal(found, state["pos_embed"]) and not report.reshaped
    found, report = table(clip_frames=48)  # three of four time steps
    assert torch.equal(found, state["pos_embed"][:, : 1 + 3 * 8])
    assert report.reshaped == {"pos_embed": "cut from 4 x 8 to 3 x 8"}
    found, report = table(clip_frames=128)
    assert report.reshaped == {"pos_embed": "interpolated from 4 x 8 to 8 x 8"}
    assert torch.equal(found[:, 0], state["pos_embed"][:, 0])
    image = state["pos_embed"][:, 1:].view(1, 4, 8, -1).permute(0, 3, 1, 2)
    bigger = torch.nn.functional.interpolate(image, (8, 8), mode="bicubic")
    torch.testing.assert_close(found[:, 1:], bigger.flatten(2).transpose(1, 2))


def test_unexplained_tensors_are_errors(tmp_path: Path) -> None:
    state = audiomae_state(BASE)
    missing = {name: t for name, t in state.items() if name != "blocks.1.mlp.fc1.bias"}
    cases = {
        r"blocks\.1\.mlp\.fc1\.bias is missing": missing,
        r"head_dist\.weight is unknown": state | {"head_dist.weight": torch.zeros(3)},
        r"width 32, depth 2, patch 16.*blocks": audiomae_state(_like(BASE, width=32)),
        r"depth 3, patch 16.*blocks\.2\..* is unknown": audiomae_state(_like(BASE, depth=3)),
        "no state dict": {"epoch": 3},
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "case.pth")
        with pytest.raises(UserError, match=message):
            import_weights(AudioEncoder(BASE), weights(tmp_path / "case.pth"))


def _like(config: EncoderConfig, **changes: int) -> EncoderConfig:
    return config.model_copy(update=changes)


def test_parts_may_be_missing_as_a_whole_but_not_in_pieces(tmp_path: Path) -> None:
    tuned = audiomae_state(BASE, classes=5)
    encoder_alone = {name: t for name, t in audiomae_state(BASE).items() if "norm." not in name}
    by_cls = audiomae_state(BASE) | {k: t for k, t in tuned.items() if k.startswith("head.")}
    cases: list[tuple[AudioEncoder, dict[str, torch.Tensor], str]] = [
        (Tagger(BASE, 5), by_cls, r"fc_norm\.bias is missing"),
        (Tagger(BASE, 5), _without(tuned, "head.bias"), r"head\.bias is missing"),
        (AudioEncoder(BASE), _without(tuned, "fc_norm.bias"), r"norm\.bias is missing"),
        (AudioEncoder(BASE), encoder_alone, "is missing"),
    ]
    for encoder, state, message in cases:
        torch.save(state, tmp_path / "case.pth")
        with pytest.raises(UserError, match=message):
            import_weights(encoder, weights(tmp_path / "case.pth"))


def _without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


def test_broken_files_and_foreign_configurations(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(UserError, match="not a readable file of weights only"):
        import_weights(AudioEncoder(BASE), weights(tmp_path))
    save_file(audiomae_state(BASE), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "clap", "audio_config": {"depths": 2}}')
    assert not load(AudioEncoder(BASE), tmp_path).reshaped


def test_other_head_and_other_normalisation_are_errors(tmp_path: Path) -> None:
    torch.save(audiomae_state(BASE, classes=5), tmp_path / "five.pth")
    with pytest.raises(UserError, match=r"head\.bias has the shape \(5,\), not \(7,\)"):
        import_weights(Tagger(BASE, 7), weights(tmp_path / "five.pth"))
    save_tagger(tmp_path / "tagger", Tagger(ENCODER, 2), ("a", "b"))
    other = AudioEncoder(ENCODER.model_copy(update={"mel_mean": -6.0}))
    with pytest.raises(UserError, match=r"mel_mean -4\.0, but section 'encoder' has -6\.0"):
        import_weights(other, weights(tmp_path / "tagger"))


def test_only_tensors_are_unpickled(tmp_path: Path) -> None:
    torch.save({"model": Path("/")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a readable file of weights only"):
        import_weights(AudioEncoder(BASE), weights(tmp_path / "evil.pth"))


def test_hash_and_absence_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.pth"
    torch.save(audiomae_state(BASE), file)
    load(AudioEncoder(BASE), file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="but sha256 says abc"):
        import_weights(AudioEncoder(BASE), weights(file, sha256="abc"))
    with pytest.raises(UserError, match="no such checkpoint"):
        import_weights(AudioEncoder(BASE), weights(tmp_path / "none.pth"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="download failed"):
        import_weights(AudioEncoder(BASE), weights("hf://no/such-model"))


def test_hub_repositories_are_asked_for_safetensors_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    state, asked = audiomae_state(BASE), []
    torch.save(state, tmp_path / "pytorch_model.bin")

    def download(repository: str, name: str, revision: str | None) -> str:
        asked.append((repository, name, revision))
        if not (tmp_path / name).exists():
            raise EntryNotFoundError(name)
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    encoder = AudioEncoder(BASE)
    import_weights(encoder, weights("hf://owner/name", revision="v1"))
    assert_loaded(encoder, state)
    names = ["config.json", "model.safetensors", "pytorch_model.bin"]
    assert asked == [("owner/name", name, "v1") for name in names]
    save_tagger(tmp_path, Tagger(ENCODER, 2), ("a", "b"))  # its configuration is read, too
    with pytest.raises(UserError, match="n_mels 32"):
        import_weights(encoder, weights("hf://owner/name", revision="v1"))
