"""Weather, water and fire of the demo corpus."""

import numpy as np

from flap.sources.demo.dsp import (
    Synthesiser,
    Take,
    Wave,
    band,
    decay,
    noise,
    path,
    random_clicks,
    strikes,
    swell,
    tone,
    wander,
)


def rain(take: Take) -> Wave:
    """Bright hiss with single drops on top."""
    hiss = band(take, noise(take), take.draw(1500, 2500), 7800)
    drops = strikes(
        take,
        random_clicks(take, take.draw(60, 200)),
        lambda grain: noise(grain) * decay(grain, 0.002),
        0.01,
    )
    return hiss + 1.5 * band(take, drops, 2500, 7500)


def wind(take: Take) -> Wave:
    """Dark noise in gusts, with a whistle that comes and goes."""
    gusts = wander(take, 0.7, 0.15, 1.0) ** 2
    howl_hz = take.draw(450, 800)
    howl = band(take, noise(take), 0.9 * howl_hz, 1.1 * howl_hz)
    return gusts * band(take, noise(take), 60, 350) + 0.5 * gusts**2 * howl


def waves(take: Take) -> Wave:
    """Surf: swells of broad noise, the foam after the roll."""
    turn = 2 * np.pi * (take.t / take.draw(2.2, 3.6) + take.rng.random())
    roll = (0.5 + 0.5 * np.sin(turn)) ** 2
    foam = (0.5 + 0.5 * np.sin(turn - 0.9)) ** 4
    low, high = band(take, noise(take), 120, 700), band(take, noise(take), 700, 5000)
    return (0.05 + roll) * low + 1.2 * foam * high


def fire(take: Take) -> Wave:
    """Low breath of the flames and sharp crackles of very different strength."""
    crackle = strikes(
        take,
        random_clicks(take, take.draw(12, 30), spread=1.3),
        lambda grain: noise(grain) * decay(grain, take.draw(0.001, 0.003)),
        0.02,
    )
    breath = band(take, noise(take), 50, 300) * wander(take, 3, 0.4, 1.0)
    return 0.35 * breath + 1.2 * band(take, crackle, 700, 7000)


def thunder(take: Take) -> Wave:
    """A crack, then a rumble in several rolls."""
    crack = band(take, noise(take), 200, 3000) * decay(take, 0.06)
    rolls = wander(take, 3, 0.2, 1.0) * decay(take, take.draw(0.5, 0.9))
    rumble = band(take, noise(take), 25, take.draw(110, 180))
    return (0.35 * crack + 4.0 * rolls * rumble) * swell(take, 0.02, 0.3)


def drip(take: Take) -> Wave:
    """A drop into water: a short sine that rises."""
    start = take.draw(700, 950) * take.pitch
    bubble = tone(take, path(take, start, 1.5 * start, 2.2 * start)) * decay(take, 0.045)
    return bubble * swell(take, 0.003, 0.05)


NATURE: dict[str, Synthesiser] = {
    "rain": rain,
    "wind": wind,
    "waves": waves,
    "fire": fire,
    "thunder": thunder,
    "drip": drip,
}
