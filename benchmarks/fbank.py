"""`flap.audio.fbank` and torchaudio's fbank, one clip at a time in one thread.

    python -m benchmarks.fbank [--clips 8] [--seconds 20]

The clips are 10 s of noise and tones at 16 kHz. Keys of `ratios` and expected values:

    speedup        time of torchaudio.compliance.kaldi.fbank / time of flap: at least 2.5
    max_abs_diff   largest difference between two log-mel values: at most 0.002

For pure tones without noise the differences are larger: in a bin with a billionth of its frame's
power, both values are rounding errors of float32.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.interleaved import interleaved, ratio, report
from flap.audio.config import AudioConfig
from flap.audio.fbank import log_mel
from flap.core.config import load_section


def main(
    clips: Annotated[int, typer.Option(help="clips of 10 s in each timed call")] = 8,
    seconds: Annotated[float, typer.Option(help="time to measure for, after warming up")] = 20,
) -> None:
    """Time both on the same clips, and compare their values."""
    torch.set_num_threads(1)
    config = load_section(Path("params.yaml"), "audio", AudioConfig)
    waveforms = [_clip(seed, config.sample_rate_hz) for seed in range(clips)]
    taken = interleaved(
        {
            "ours": lambda: [log_mel(waveform, config) for waveform in waveforms],
            "theirs": lambda: [kaldi_fbank(waveform, config) for waveform in waveforms],
        },
        seconds,
    )
    pairs = ((log_mel(waveform, config), kaldi_fbank(waveform, config)) for waveform in waveforms)
    differences = [float(np.abs(ours - theirs).max()) for ours, theirs in pairs]
    ratios = {"speedup": ratio(taken, "theirs", "ours"), "max_abs_diff": max(differences)}
    ms = {name: round(min(times) / clips * 1000, 2) for name, times in taken.items()}
    report("fbank", ratios, ms_a_clip=ms, clips=clips, rounds=len(taken["ours"]), threads=1)


def kaldi_fbank(samples: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Log-mel (frames, mel bins) by torchaudio."""
    from torchaudio.compliance import kaldi

    mel_TF: torch.Tensor = kaldi.fbank(
        torch.from_numpy(samples - samples.mean())[None],
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


def _clip(seed: int, rate_hz: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(10 * rate_hz) / rate_hz
    tones = [np.sin(2 * np.pi * hz * time) for hz in rng.uniform(60, 7000, 4)]
    return (0.05 * sum(tones) + rng.normal(0, 0.1, len(time))).astype(np.float32)


if __name__ == "__main__":
    typer.run(main)
