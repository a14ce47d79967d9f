"""A scene → samples: each event is rendered, scaled to its level, and added to the timeline."""

import numpy as np

from flap.sources.demo.catalogue import SYNTHESISERS, Catalogue
from flap.sources.demo.dsp import Take, Wave, band, noise
from flap.sources.demo.scene import Event, Scene

# Level of the loudest 50 ms, dB below full scale.
_LEVEL_DB = {"loud": -9.0, None: -19.0, "faint": -32.0}
_BACKGROUND_DB = (-37.0, -31.0)
_ROOM_NOISE_DB = (-78.0, -62.0)
_PITCH = {"low": (0.66, 0.76), None: (0.94, 1.06), "high": (1.35, 1.5)}
_DISTANT_HZ = 5000.0  # air absorbs the high frequencies of distant sounds


def render(
    scene: Scene, catalogue: Catalogue, rng: np.random.Generator, rate_hz: int, channels: int
) -> Wave:
    """Samples (frames, channels) within [-1, 1]."""
    mix = np.zeros((round(scene.duration_s * rate_hz), channels))
    _add_at(mix, _room_noise(mix, rng, rate_hz), 0, np.ones(channels))
    if scene.background is not None:
        take = Take(rng, len(mix), rate_hz, _draw_pitch(rng, None))
        sound = SYNTHESISERS[scene.background](take)
        _add_at(
            mix,
            _at_level(sound, rng.uniform(*_BACKGROUND_DB), rate_hz),
            0,
            _channel_gains(rng, channels),
        )
    for event in scene.events:
        _render_event(mix, event, rng, rate_hz)
    peak = float(np.abs(mix).max())
    return mix * min(1.0, 0.98 / peak)


def _render_event(mix: Wave, event: Event, rng: np.random.Generator, rate_hz: int) -> None:
    pitch, gains = _draw_pitch(rng, event.pitch), _channel_gains(rng, mix.shape[1])
    level_db = _LEVEL_DB[event.loudness] + rng.uniform(-2.0, 2.0)
    for start_s in event.starts_s:
        slide = pitch * rng.uniform(0.98, 1.02)
        take = Take(rng, int(event.unit_s * rate_hz), rate_hz, slide)
        sound = SYNTHESISERS[event.sound](take)
        if event.loudness == "faint":
            sound = 0.4 * sound + 0.6 * band(take, sound, 0, _DISTANT_HZ, order=1)
        edges = np.minimum(1.0, np.minimum(take.t, take.t[::-1]) / 0.004)
        _add_at(mix, _at_level(sound * edges, level_db, rate_hz), int(start_s * rate_hz), gains)


def _room_noise(mix: Wave, rng: np.random.Generator, rate_hz: int) -> Wave:
    take = Take(rng, len(mix), rate_hz, 1.0)
    hiss = band(take, noise(take), 0, rng.uniform(500, 6000), order=1)
    return _at_level(hiss, rng.uniform(*_ROOM_NOISE_DB), rate_hz)


def _draw_pitch(rng: np.random.Generator, pitch: str | None) -> float:
    return float(rng.uniform(*_PITCH[pitch]))


def _channel_gains(rng: np.random.Generator, channels: int) -> Wave:
    """Gain of each channel; the mean of the gains is 1, so that a downmix keeps the level."""
    if channels == 1:
        return np.ones(1)
    side = rng.uniform(0.6, 1.4)
    return np.array([side, 2.0 - side])


def _at_level(sound: Wave, level_db: float, rate_hz: int) -> Wave:
    window = min(len(sound), rate_hz // 20)
    energy = np.cumsum(np.concatenate([[0.0], sound**2]))
    loudest = np.sqrt(np.max(energy[window:] - energy[:-window]) / window)
    return np.asarray(sound * (10 ** (level_db / 20) / max(loudest, 1e-9)))


def _add_at(mix: Wave, sound: Wave, start: int, gains: Wave) -> None:
    part = mix[start : start + len(sound)]
    part += sound[: len(part), None] * gains
