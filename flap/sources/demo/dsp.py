"""Building blocks of the demo's sounds: noise, tones, envelopes, filters.

Every function takes a `Take` and returns float64 samples of shape (take.n,), unless its docstring
says otherwise. The level of the result does not matter: `flap.sources.demo.mix` sets the levels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Wave = NDArray[np.float64]
HIGHEST_HZ = 7600.0
"""Highest frequency of tones: below the Nyquist frequency of the lowest rate, 16 kHz."""


@dataclass(frozen=True)
class Take:
    """One performance of a sound: random generator, length, sample rate and relative pitch."""

    rng: np.random.Generator
    n: int
    rate_hz: int
    pitch: float

    @cached_property
    def t(self) -> Wave:
        """Time of each sample, seconds."""
        return np.arange(self.n) / self.rate_hz

    @property
    def seconds(self) -> float:
        return self.n / self.rate_hz

    def draw(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


Synthesiser = Callable[[Take], Wave]


def noise(take: Take) -> Wave:
    return take.rng.standard_normal(take.n)


def band(take: Take, wave: Wave, low_hz: float, high_hz: float, order: int = 2) -> Wave:
    """Butterworth band-pass; a lower edge of 0 makes it a low-pass."""
    high_hz = min(high_hz, 0.48 * take.rate_hz)
    edges, kind = ((low_hz, high_hz), "bandpass") if low_hz > 0 else (high_hz, "lowpass")
    sos = signal.butter(order, edges, kind, fs=take.rate_hz, output="sos")
    return np.asarray(signal.sosfilt(sos, wave))


def tone(take: Take, hz: float | Wave) -> Wave:
    """Sine of a fixed or moving frequency with a random phase."""
    phase = 2 * np.pi * take.rng.random()
    if isinstance(hz, np.ndarray):
        return np.sin(phase + 2 * np.pi * np.cumsum(hz) / take.rate_hz)
    return np.sin(phase + 2 * np.pi * hz * take.t)


def harmonics(take: Take, hz: Wave, formants_hz: Mapping[float, float], count: int = 24) -> Wave:
    """Voice-like tone: partials of `hz`, weighted by Gaussian bells at the formants.

    Args:
        hz: fundamental frequency of each sample.
        formants_hz: frequency of each formant → width of its bell.
    """
    phase = 2 * np.pi * np.cumsum(hz) / take.rate_hz
    sound = np.zeros(take.n)
    for k in range(1, count + 1):
        partial_hz = float(hz.mean()) * k
        if float(hz.max()) * k > HIGHEST_HZ:
            break
        weight = sum(
            np.exp(-0.5 * ((partial_hz - f) / width) ** 2) for f, width in formants_hz.items()
        )
        sound += (weight + 0.03 / k) * np.sin(k * phase)
    return sound


def chord(take: Take, partials: Mapping[float, float], decay_s: float | None = None) -> Wave:
    """Sum of sines {frequency: weight}; with `decay_s` high partials decay faster, as in a bell."""
    lowest = min(partials)
    sound = np.zeros(take.n)
    for hz, weight in partials.items():
        if hz > HIGHEST_HZ:
            continue
        sine = weight * tone(take, hz)
        sound += sine if decay_s is None else sine * decay(take, decay_s * (lowest / hz) ** 0.7)
    return sound


def decay(take: Take, seconds: float) -> Wave:
    """Exponential envelope that falls to 1/e after `seconds`."""
    return np.exp(-take.t / seconds)


def swell(take: Take, attack_s: float, release_s: float) -> Wave:
    """Envelope that rises smoothly at the start, stays at 1 and falls smoothly at the end."""
    rise = np.clip(take.t / attack_s, 0, 1)
    fall = np.clip((take.seconds - take.t) / release_s, 0, 1)
    return np.sin(0.5 * np.pi * rise) * np.sin(0.5 * np.pi * fall)


def wander(take: Take, hz: float, low: float, high: float) -> Wave:
    """Piecewise linear random curve between `low` and `high` with about `hz` turns per second."""
    knots = max(4, int(take.seconds * hz * 2) + 2)
    values = take.rng.uniform(low, high, knots)
    return np.interp(take.t, np.linspace(0, take.seconds, knots), values)


def path(take: Take, *values: float) -> Wave:
    """Piecewise linear curve through `values`, evenly spaced over the take."""
    return np.interp(take.t, np.linspace(0, take.seconds, len(values)), values)


def clicks(take: Take, times_s: Wave, weights: Wave) -> Wave:
    """Impulses at given times; times outside the take are ignored."""
    at = (times_s * take.rate_hz).astype(int)
    inside = (at >= 0) & (at < take.n)
    sound = np.zeros(take.n)
    np.add.at(sound, at[inside], weights[inside])
    return sound


def random_clicks(take: Take, per_second: float, spread: float = 0.5) -> Wave:
    """Impulses at random times with log-normal weights of random sign."""
    count = 1 + take.rng.poisson(per_second * take.seconds)
    times = take.rng.uniform(0, take.seconds, count)
    weights = np.exp(spread * take.rng.standard_normal(count)) * take.rng.choice([-1, 1], count)
    return clicks(take, times, weights)


def strikes(take: Take, at: Wave, grain: Synthesiser, seconds: float) -> Wave:
    """Convolve the impulses `at` with one `grain` of `seconds`."""
    part = Take(take.rng, max(1, int(seconds * take.rate_hz)), take.rate_hz, take.pitch)
    return np.asarray(signal.oaconvolve(at, grain(part))[: take.n])


def steady_times(take: Take, first_s: float, period_s: float, jitter: float) -> Wave:
    """Times in seconds of a regular beat; `jitter` is a share of the period."""
    times = np.arange(first_s, take.seconds, period_s)
    return times + period_s * jitter * take.rng.standard_normal(len(times))
