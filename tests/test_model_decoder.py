"""Reconstruction: its loss depends on masked patches only, and decreases in training."""

import pytest
import torch
from small_models import DECODER, ENCODER, generator, mels

from flap.model.audio_decoder import AudioDecoder, patches, reconstruction_loss
from flap.model.audio_encoder import AudioEncoder
from flap.model.masking import mask_2d


def test_patches_are_in_token_order() -> None:
    mel_BTF = torch.arange(32 * 32.0).view(1, 32, 32)
    found = patches(mel_BTF, 16)
    assert found.shape == (1, 4, 256)
    assert torch.equal(found[0, 1], mel_BTF[0, :16, 16:].flatten())  # t 0, f 1
    assert torch.equal(found[0, 2], mel_BTF[0, 16:, :16].flatten())  # t 1, f 0


@pytest.mark.parametrize("normalise_patches", [False, True])
def test_a_perfect_prediction_costs_nothing(normalise_patches: bool) -> None:
    decoder = AudioDecoder(
        DECODER.model_copy(update={"normalise_patches": normalise_patches}), ENCODER
    )
    mel_BTF, keep_BK = mels(2)[:, 0], mask_2d(ENCODER.grid, 0.5, 0.5, 4, generator())
    target = patches(mel_BTF, ENCODER.patch)
    if normalise_patches:
        target = target - target.mean(-1, keepdim=True)
        target = target / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    perfect = target.repeat(2, 1, 1)  # two views
    assert decoder.loss(perfect, mel_BTF, keep_BK).item() == pytest.approx(0, abs=1e-10)
    assert decoder.loss(perfect + 2, mel_BTF, keep_BK).item() == pytest.approx(4, rel=1e-4)


def test_only_masked_patches_have_a_gradient() -> None:
    target = torch.randn(2, 8, 5)
    predicted = torch.randn(2, 8, 5, requires_grad=True)
    keep_BK = torch.tensor([[0, 3], [7, 1]])
    reconstruction_loss(predicted, target, keep_BK).backward()
    assert predicted.grad is not None
    for clip in range(2):
        learned = predicted.grad[clip].any(dim=1).nonzero()[:, 0].tolist()
        assert learned == sorted(set(range(8)) - set(keep_BK[clip].tolist()))


def test_masked_targets_reach_the_loss_and_the_encoder_never_sees_them() -> None:
    """A change of a masked patch changes the loss, but not the prediction."""
    encoder, decoder = AudioEncoder(ENCODER).eval(), AudioDecoder(DECODER, ENCODER).eval()
    keep_BK = mask_2d(ENCODER.grid, 0.5, 0.5, 1, generator())
    masked = next(token for token in range(8) if token not in keep_BK[0])
    mel = mels(1)
    other = mel.clone()
    other[:, :, masked // 2 * 16 :, masked % 2 * 16 :][:, :, 3, 3] += 50
    first, second = (decoder(encoder(m, keep_BK), keep_BK) for m in (mel, other))
    assert torch.equal(first, second)
    losses = [decoder.loss(first, encoder.normalise(m[:, 0]), keep_BK) for m in (mel, other)]
    assert losses[0] != losses[1]


def test_tokens_are_put_back_in_order() -> None:
    """Visible tokens in another order decode to the same patches."""
    decoder = AudioDecoder(DECODER, ENCODER).eval()
    tokens = torch.randn(1, 1 + 4, ENCODER.width)
    keep_BK, order = torch.tensor([[6, 1, 3, 4]]), torch.tensor([2, 0, 3, 1])
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], dim=1)
    expected = decoder(tokens, keep_BK)
    torch.testing.assert_close(decoder(shuffled, keep_BK[:, order]), expected, atol=1e-5, rtol=1e-5)


def test_reconstruction_is_learned() -> None:
    torch.manual_seed(0)
    encoder, decoder = AudioEncoder(ENCODER), AudioDecoder(DECODER, ENCODER)
    wave = torch.linspace(0, 6, 64).sin()[:, None] * torch.linspace(0, 3, 32).cos()
    mel = (wave * 9 - 4).expand(4, 1, -1, -1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
    losses = []
    for step in range(120):
        keep_BK = mask_2d(ENCODER.grid, 0.25, 0.5, 4, generator(step))
        predicted = decoder(encoder(mel, keep_BK), keep_BK)
        loss = decoder.loss(predicted, encoder.normalise(mel[:, 0]), keep_BK)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
