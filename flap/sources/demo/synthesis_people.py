"""People of the demo corpus: hands, feet and voices."""

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
    path,
    random_clicks,
    steady_times,
    strikes,
    swell,
    tone,
)


def footsteps(take: Take) -> Wave:
    """A heavy heel and a lighter toe at walking pace."""
    times = steady_times(take, take.draw(0.02, 0.1), take.draw(0.42, 0.6), 0.03)
    weights = take.rng.uniform(0.7, 1.0, len(times))
    heel = strikes(
        take,
        clicks(take, times, weights),
        lambda grain: band(grain, noise(grain), 70, 450) * decay(grain, 0.025),
        0.15,
    )
    toe = strikes(
        take,
        clicks(take, times + take.draw(0.09, 0.13), weights),
        lambda grain: band(grain, noise(grain), 900, 3200) * decay(grain, 0.03),
        0.12,
    )
    return 3.0 * heel + 0.5 * toe


def applause(take: Take) -> Wave:
    """Many hands, none in step."""
    hands = [
        strikes(
            take,
            random_clicks(take, take.draw(25, 50), spread=0.6),
            lambda grain: noise(grain) * decay(grain, 0.006),
            0.05,
        )
        for _ in range(3)
    ]
    return band(take, np.sum(hands, axis=0), take.draw(700, 900), take.draw(1900, 2600))


def typing(take: Take) -> Wave:
    """Keys in uneven runs: a click going down, a duller one coming up."""
    gaps = take.rng.gamma(3.0, take.draw(0.035, 0.05), int(take.seconds * 12) + 2)
    times = 0.03 + np.cumsum(gaps)
    weights = take.rng.uniform(0.5, 1.0, len(times))
    down = strikes(
        take,
        clicks(take, times, weights),
        lambda grain: band(grain, noise(grain), 2800, 7000) * decay(grain, 0.004),
        0.03,
    )
    up = strikes(
        take,
        clicks(take, times + 0.06, weights),
        lambda grain: band(grain, noise(grain), 900, 2500) * decay(grain, 0.006),
        0.04,
    )
    return down + 0.5 * up


def knock(take: Take) -> Wave:
    """A knuckle on wood: a few short, low modes."""
    base = take.draw(170, 230) * take.pitch
    modes = {base: 1.0, 1.9 * base: 0.8, 3.1 * base: 0.5, 4.6 * base: 0.25}
    thud = chord(take, modes, decay_s=0.05)
    return thud * swell(take, 0.001, 0.05) + 0.15 * noise(take) * decay(take, 0.003)


def whistling(take: Take) -> Wave:
    """A person's whistle: a gliding pure tone with some breath."""
    base = take.draw(1250, 1550) * take.pitch
    shape = [(0.8, 1.2, 1.15), (1.25, 0.9, 1.1), (0.9, 1.3, 0.85)][take.rng.integers(3)]
    hz = path(take, *(base * step for step in shape))
    vibrato = 1 + 0.015 * np.sin(2 * np.pi * 5.5 * take.t)
    breath = 0.04 * band(take, noise(take), 1000, 4000)
    return (tone(take, hz * vibrato) + breath) * swell(take, 0.06, 0.1)


def baby_cry(take: Take) -> Wave:
    """A strained, wavering voice that climbs and sinks."""
    base = take.draw(400, 480) * take.pitch
    waver = 1 + 0.03 * np.sin(2 * np.pi * take.draw(6, 9) * take.t)
    hz = path(take, 0.85 * base, 1.15 * base, 1.1 * base, 0.8 * base) * waver
    voice = harmonics(take, hz, {1100.0: 250.0, 2900.0: 450.0}, count=20)
    return voice * swell(take, 0.1, 0.25)


PEOPLE: dict[str, Synthesiser] = {
    "footsteps": footsteps,
    "applause": applause,
    "typing": typing,
    "knock": knock,
    "whistling": whistling,
    "baby_cry": baby_cry,
}
