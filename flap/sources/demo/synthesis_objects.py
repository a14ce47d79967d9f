"""Bells, signals and impacts of the demo corpus."""

import numpy as np

from flap.sources.demo.dsp import (
    Synthesiser,
    Take,
    Wave,
    band,
    chord,
    decay,
    noise,
    path,
    swell,
    tone,
)

# Partials of a church bell against its prime: hum, prime, tierce, quint, nominal and above.
_BELL = {0.5: 0.6, 1.0: 1.0, 1.2: 0.8, 1.5: 0.4, 2.0: 0.9, 2.66: 0.4, 3.0: 0.35, 4.1: 0.2}


def church_bell(take: Take) -> Wave:
    """Inharmonic partials that ring for long."""
    prime = take.draw(380, 460) * take.pitch
    partials = {prime * ratio: weight for ratio, weight in _BELL.items()}
    strike = 0.3 * band(take, noise(take), 1500, 6000) * decay(take, 0.008)
    return (chord(take, partials, decay_s=take.draw(0.9, 1.4)) + strike) * swell(take, 0.002, 0.2)


def telephone(take: Take) -> Wave:
    """A clapper between two small bells, some twenty strokes a second."""
    low = take.draw(1500, 1800) * take.pitch
    bells = chord(take, {low: 1.0, 1.27 * low: 1.0, 2.4 * low: 0.4, 3.1 * low: 0.3})
    strokes = 1 - (take.t * take.draw(18, 23)) % 1
    return bells * (0.15 + strokes**2) * swell(take, 0.01, 0.08)


def beep(take: Take) -> Wave:
    """A steady electronic tone that starts and stops at once."""
    hz = take.draw(900, 1100) * take.pitch
    return (tone(take, hz) + 0.3 * tone(take, 3 * hz)) * swell(take, 0.004, 0.004)


def drum(take: Take) -> Wave:
    """A skin that drops in pitch, with the stick's click."""
    hz = take.draw(85, 105) * take.pitch
    skin = tone(take, path(take, 1.5 * hz, 1.05 * hz, hz)) * decay(take, take.draw(0.1, 0.16))
    stick = 0.25 * band(take, noise(take), 300, 2000) * decay(take, 0.012)
    return (skin + stick) * swell(take, 0.002, 0.08)


def gunshot(take: Take) -> Wave:
    """A broad blast, a short boom and the echo of both."""
    blast = noise(take) * decay(take, take.draw(0.02, 0.035))
    boom = 1.5 * band(take, noise(take), 40, 250) * decay(take, 0.08)
    shot = blast + boom
    delay = int(take.draw(0.09, 0.16) * take.rate_hz)
    echo = np.zeros(take.n)
    echo[delay:] = band(take, shot, 100, 2500)[: max(0, take.n - delay)]
    return (shot + 0.35 * echo) * swell(take, 0.001, 0.1)


def glass_shatter(take: Take) -> Wave:
    """A burst, then splinters that ring high and die out."""
    sound = band(take, noise(take), 2500, 7500) * decay(take, 0.03)
    for _ in range(take.rng.integers(18, 30)):
        start = take.rng.exponential(0.25 * take.seconds)
        hz, length = take.draw(2600, 7000) * take.pitch, take.draw(0.015, 0.06)
        since = np.clip(take.t - start, 0, None)
        splinter = tone(take, min(hz, 7400.0)) * np.exp(-since / length) * (take.t >= start)
        sound += take.draw(0.1, 0.6) * splinter
    return sound * swell(take, 0.001, 0.15)


OBJECTS: dict[str, Synthesiser] = {
    "church_bell": church_bell,
    "telephone": telephone,
    "beep": beep,
    "drum": drum,
    "gunshot": gunshot,
    "glass_shatter": glass_shatter,
}
