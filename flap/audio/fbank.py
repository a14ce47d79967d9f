"""Mono samples → log-mel (frames, mel bins), as MAViL and AudioMAE take it.

Resampled by soxr at HQ, the waveform's mean subtracted, then Kaldi's fbank by torchaudio.
The result is not normalised and not padded: that is the consumer's, who knows its window.
"""

import numpy as np
import soxr
import torch

from flap.audio.config import AudioConfig
from flap.audio.decode import Recording

RESAMPLER = "soxr HQ"


def log_mel(recording: Recording, config: AudioConfig) -> np.ndarray:
    """Log-mel of the first `max_seconds`, float32 (n_frames, n_mels).

    Kaldi drops the last partial window: 10 s give 998 frames at 25 ms / 10 ms.
    """
    from torchaudio.compliance import kaldi  # slow to import, and only workers need it

    samples = recording.samples[: round(config.max_seconds * recording.rate_hz)]
    if recording.rate_hz != config.sample_rate_hz:
        samples = soxr.resample(samples, recording.rate_hz, config.sample_rate_hz, quality="HQ")
    waveform_1T = torch.from_numpy(samples - samples.mean()).unsqueeze(0)
    mel_TF: torch.Tensor = kaldi.fbank(
        waveform_1T,
        sample_frequency=config.sample_rate_hz,
        htk_compat=True,
        use_energy=False,
        window_type=config.window,
        num_mel_bins=config.n_mels,
        dither=0.0,
        frame_length=config.frame_ms,
        frame_shift=config.hop_ms,
    )
    return mel_TF.numpy()
