"""Animals of the demo corpus."""

import numpy as np

from flap.sources.demo.dsp import (
    Synthesiser,
    Take,
    Wave,
    band,
    decay,
    harmonics,
    noise,
    path,
    steady_times,
    swell,
    tone,
    wander,
)
from flap.sources.demo.dsp import clicks as impulses


def crickets(take: Take) -> Wave:
    """Two or three insects: bursts of fast pulses on a carrier near 4.5 kHz."""
    sound = np.zeros(take.n)
    for _ in range(take.rng.integers(2, 4)):
        carrier = tone(take, take.draw(3900, 5200))
        pulses = np.clip(tone(take, take.draw(26, 36)), 0, None)
        bursts = tone(take, take.draw(1.5, 2.6)) > take.draw(-0.2, 0.3)
        sound += take.draw(0.4, 1.0) * carrier * pulses * bursts
    return sound


def bee(take: Take) -> Wave:
    """A buzz with many harmonics that comes near and flies off."""
    hz = take.draw(170, 215) * take.pitch * wander(take, 4, 0.93, 1.07)
    buzz = harmonics(take, hz, {2.0 * float(hz.mean()): 500.0, 2200.0: 900.0}, count=36)
    return buzz * wander(take, 1.5, 0.3, 1.0)


def dog_bark(take: Take) -> Wave:
    """A rough voice that falls quickly."""
    start = take.draw(430, 520) * take.pitch
    hz = path(take, 0.8 * start, start, 0.75 * start, 0.5 * start)
    voice = harmonics(take, hz, {700.0 * take.pitch: 350.0, 1700.0 * take.pitch: 500.0})
    breath = 0.5 * band(take, noise(take), 500, 3500)
    return (voice + breath) * swell(take, 0.012, 0.6 * take.seconds)


def cat_meow(take: Take) -> Wave:
    """A voice that rises and falls while the mouth opens and closes."""
    base = take.draw(480, 600) * take.pitch
    hz = path(take, 0.85 * base, 1.25 * base, 1.2 * base, 0.75 * base)
    closed = harmonics(take, hz, {800.0: 300.0}, count=10)
    opened = harmonics(take, hz, {1500.0: 500.0, 3300.0: 500.0})
    mouth = path(take, 0.0, 0.9, 1.0, 0.2)
    return ((1 - mouth) * closed + mouth * opened) * swell(take, 0.08, 0.2)


def bird_chirp(take: Take) -> Wave:
    """A trill: a high whistle that sweeps many times a second."""
    base = take.draw(3100, 3700) * take.pitch
    sweeps = 2 * np.abs((take.t * take.draw(11, 17)) % 1 - 0.5)
    return tone(take, base * (0.8 + 0.4 * sweeps)) * (0.25 + sweeps) * swell(take, 0.02, 0.06)


def frog_croak(take: Take) -> Wave:
    """A slow pulse train through two resonances."""
    times = steady_times(take, 0.005, 1 / (take.draw(30, 42) * take.pitch), 0.03)
    pulses = impulses(take, times, np.ones(len(times)))
    throat = take.draw(480, 620) * take.pitch
    low = band(take, pulses, 0.85 * throat, 1.15 * throat)
    high = band(take, pulses, 2.1 * throat, 2.7 * throat)
    return (low + 0.8 * high) * path(take, 0.3, 1.0, 0.9, 0.1)


def owl_hoot(take: Take) -> Wave:
    """A soft, nearly pure low tone."""
    base = take.draw(330, 400) * take.pitch
    hz = path(take, 0.94 * base, base, base, 0.92 * base)
    voice = tone(take, hz) + 0.12 * tone(take, 2 * hz)
    breath = 0.03 * band(take, noise(take), 200, 1500)
    return (voice + breath) * swell(take, 0.09, 0.2) * (1 - 0.3 * decay(take, 0.2))


ANIMALS: dict[str, Synthesiser] = {
    "crickets": crickets,
    "bee": bee,
    "dog_bark": dog_bark,
    "cat_meow": cat_meow,
    "bird_chirp": bird_chirp,
    "frog_croak": frog_croak,
    "owl_hoot": owl_hoot,
}
