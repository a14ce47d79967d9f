"""Our fbank beside torchaudio's, one clip after the other in one thread.

    python -m benchmarks.fbank [--clips 8] [--seconds 20]

Clips of 10 s at 16 kHz: noise and tones. Keys of `ratios`, with what is expected of them:

    speedup        time of torchaudio.compliance.kaldi.fbank over ours: at least 2.5
    max_abs_diff   largest difference of any log-mel value: at most 0.002

Pure tones without noise differ more, where a bin has a billionth of its frame's power: there
both are what float32's rounding leaves.
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
    """Time and compare both on the same clips."""
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
    """The same log-mel (frames, mel bins) by torchaudio."""
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
