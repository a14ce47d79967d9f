"""Feature fusion: short clips match the unfused model, longer clips match the formulas."""

import torch
from small_models import ENCODER, generator, mels

from flap.model.audio_encoder import AudioEncoder, PatchEmbedding
from flap.model.fusion import AttentionalFusion, FusedPatchEmbedding
from flap.model.masking import mask_2d

WIDTH, PATCH = ENCODER.width, ENCODER.patch


def fused_encoder() -> AudioEncoder:
    torch.manual_seed(0)
    encoder = AudioEncoder(ENCODER, FusedPatchEmbedding(PATCH, WIDTH))
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape))
    return encoder.eval()


def test_clips_within_the_window_match_the_unfused_model() -> None:
    fused = fused_encoder()
    plain = AudioEncoder(ENCODER, PatchEmbedding(PATCH, WIDTH)).eval()
    plain.load_state_dict({k: v for k, v in fused.state_dict().items() if k in plain.state_dict()})
    one = mels(3)
    four = one.expand(-1, 4, -1, -1)
    expected = plain(one)
    assert torch.equal(fused(four, longer_B=torch.zeros(3, dtype=torch.bool)), expected)
    mixed = mels(3, channels=4)
    mixed[::2] = four[::2]
    beside_a_longer_one = fused(mixed, longer_B=torch.tensor([False, True, False]))
    torch.testing.assert_close(beside_a_longer_one[::2], expected[::2], rtol=0, atol=1e-6)
    assert not torch.allclose(beside_a_longer_one[1], expected[1])


def test_longer_clips_follow_ls_clap() -> None:
    """Projection of channel 0, long convolution of channels 1 to 3 joined in time, then AFF."""
    fused = fused_encoder()
    embed = fused.patch_embed
    assert isinstance(embed, FusedPatchEmbedding)
    mel = mels(1, channels=4)
    x = embed.proj(mel[:, :1])
    assert (x.shape[2], x.shape[3]) == ENCODER.grid
    crops = [embed.local_proj(mel[:, i : i + 1]) for i in (1, 2, 3)]
    assert crops[0].shape[2] == 1  # the kernel covers 48 of 64 frames
    joined = torch.cat([*crops, torch.zeros_like(crops[0])], dim=2)  # 3 steps, padded to 4
    expected = embed.fusion(x, joined).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(mel, torch.tensor([True])), expected)


def test_joined_crops_are_cut_to_the_grid() -> None:
    embed = FusedPatchEmbedding(PATCH, WIDTH)
    local = embed._local(torch.randn(2, 3, 144, 32), steps=8)  # 9 steps from three crops
    assert local.shape == (2, WIDTH, 8, 2)
    assert local[:, :, -1].any()


def test_attentional_fusion_by_hand() -> None:
    torch.manual_seed(0)
    fusion = AttentionalFusion(8).eval()
    x, r = torch.randn(2, 2, 8, 3, 2)
    local, glob = fusion.local_attention, fusion.global_attention
    both = x + r
    pooled = both.mean(dim=(2, 3), keepdim=True)
    w = torch.sigmoid(local(both) + glob[1:](pooled))
    torch.testing.assert_close(fusion(x, r), 2 * x * w + 2 * r * (1 - w))


def test_every_parameter_has_a_gradient_for_any_batch() -> None:
    for longer in ([False, False, False], [True, False, False], [True, True, True]):
        encoder = fused_encoder().train()
        encoder(mels(3, channels=4), longer_B=torch.tensor(longer)).square().sum().backward()
        assert all(p.grad is not None for p in encoder.parameters()), longer


def test_masked_patches_of_clips_within_the_window_do_not_leak() -> None:
    fused = fused_encoder()
    mel = mels(2, channels=4)
    keep_BK = mask_2d(ENCODER.grid, 0.25, 0.5, 2, generator())
    longer = torch.tensor([True, False])
    masked = next(token for token in range(8) if token not in keep_BK[1])
    other = mel.clone()
    other[1, :, masked // 2 * 16 :, masked % 2 * 16 :][:, 3, 3] += 50
    expected, found = (fused(m, keep_BK, longer) for m in (mel, other))
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-6)
