"""Vehicles and machines of the demo corpus."""

import numpy as np

from flap.sources.demo.dsp import (
    Synthesiser,
    Take,
    Wave,
    band,
    chord,
    clicks,
    decay,
    harmonics,
    noise,
    steady_times,
    strikes,
    swell,
    tone,
    wander,
)


def engine(take: Take) -> Wave:
    """Cylinders firing: a low pulse train with a little unevenness."""
    period = 1 / (take.draw(24, 30) * take.pitch)
    times = steady_times(take, 0.0, period, 0.04)
    firing = clicks(take, times, take.rng.uniform(0.7, 1.0, len(times)))
    modes = {85.0 * take.pitch: 1.0, 240.0 * take.pitch: 0.5}
    exhaust = strikes(
        take,
        firing,
        lambda grain: chord(grain, modes, decay_s=0.02) * swell(grain, 0.004, 0.02),
        0.08,
    )
    return exhaust + 0.15 * band(take, noise(take), 150, 900)


def helicopter(take: Take) -> Wave:
    """Rotor blades chopping dark noise."""
    chop = (0.5 + 0.5 * tone(take, take.draw(11, 14) * take.pitch)) ** 4
    wash = band(take, noise(take), 80, 1200)
    thump = band(take, noise(take), 30, 110)
    turbine = 0.02 * tone(take, take.draw(1800, 2300) * take.pitch)
    return (0.08 + chop) * wash + 2.0 * chop * thump + turbine


def vacuum_cleaner(take: Take) -> Wave:
    """A motor's whine in a steady rush of air."""
    hz = take.draw(330, 390) * take.pitch * wander(take, 1, 0.99, 1.01)
    whine = harmonics(take, hz, {700.0 * take.pitch: 300.0, 2800.0 * take.pitch: 600.0})
    return 0.5 * whine + 0.9 * band(take, noise(take), 400, 5000, order=1)


def siren(take: Take) -> Wave:
    """An emergency siren that wails up and down."""
    low, high = take.draw(550, 700), take.draw(1300, 1600)
    turn = take.t * take.draw(0.7, 1.3) + take.rng.random()
    hz = low + (high - low) * 2 * np.abs(turn % 1 - 0.5)
    voice = tone(take, hz) + 0.35 * tone(take, 2 * hz) + 0.25 * tone(take, 3 * hz)
    return voice * swell(take, 0.05, 0.1)


def car_horn(take: Take) -> Wave:
    """Two bright reeds a third apart, on and off at once."""
    base = take.draw(390, 440) * take.pitch
    reeds = {base * k * step: 1 / k**0.6 for step in (1.0, 1.26) for k in range(1, 10)}
    return chord(take, reeds) * swell(take, 0.01, 0.03)


def train_horn(take: Take) -> Wave:
    """A broad chord of air chimes, slow to speak."""
    base = take.draw(235, 275) * take.pitch
    chimes = {base * step * k: 1 / k for step in (1.0, 1.2, 1.42, 1.68, 2.02) for k in range(1, 7)}
    air = 0.3 * band(take, noise(take), 300, 2500)
    return (chord(take, chimes) + air) * swell(take, 0.15, 0.25)


def clock_tick(take: Take) -> Wave:
    """Tick and tock in turn."""
    times = steady_times(take, take.draw(0.02, 0.15), take.draw(0.24, 0.45), 0.004)
    sound = np.zeros(take.n)
    for start, hz in ((0, take.draw(3300, 3900)), (1, take.draw(2400, 2900))):
        beat = clicks(take, times[start::2], np.ones(len(times[start::2])))
        sound += _ring(take, beat, hz)
    return sound


def _ring(take: Take, beat: Wave, hz: float) -> Wave:
    modes = {hz: 1.0, 0.42 * hz: 0.4, 1.73 * hz: 0.5}
    return strikes(
        take, beat, lambda grain: chord(grain, modes) * decay(grain, 0.009), seconds=0.05
    )


MACHINES: dict[str, Synthesiser] = {
    "engine": engine,
    "helicopter": helicopter,
    "vacuum_cleaner": vacuum_cleaner,
    "siren": siren,
    "car_horn": car_horn,
    "train_horn": train_horn,
    "clock_tick": clock_tick,
}
