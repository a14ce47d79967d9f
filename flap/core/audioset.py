"""The 527 AudioSet classes, and the mapping of other corpora's labels to them.

`audioset_labels.csv` is AudioSet's own `class_labels_indices.csv`; `label_aliases.csv` holds
the 50 classes of ESC-50, each with the AudioSet class nearest to it.
"""

import csv
from functools import cache
from pathlib import Path

LABELS_FILE = Path(__file__).with_name("audioset_labels.csv")
ALIASES_FILE = Path(__file__).with_name("label_aliases.csv")


@cache
def display_names() -> tuple[str, ...]:
    """Display names in AudioSet's order: position `i` is output `i` of an AudioSet tagger."""
    with LABELS_FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(len(rows))), "indices out of order"
    return tuple(row["display_name"] for row in rows)


def find_class(label: str) -> str | None:
    """The display name for `label`, None if no class matches.

    The lookup ignores case, underscores and hyphens. It tries display names ("Rain"), then
    aliases ("sea_waves"), then single synonyms of a display name ("wasp" of "Bee, wasp, etc.").
    """
    return _classes_by_key().get(_key(label))


@cache
def _classes_by_key() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, parts in _synonyms().items():
        found.update(dict.fromkeys(parts, name))
    with ALIASES_FILE.open(newline="", encoding="utf-8") as file:
        found.update({_key(row["alias"]): row["display_name"] for row in csv.DictReader(file)})
    found.update({_key(name): name for name in display_names()})
    return found


def _synonyms() -> dict[str, set[str]]:
    """The comma-separated parts of each display name that occur in no other name."""
    parts = {name: {_key(part) for part in name.split(",")} for name in display_names()}
    everyone = [part for mine in parts.values() for part in mine]
    shared = {part for part in everyone if everyone.count(part) > 1} | {"etc."}
    return {name: mine - shared for name, mine in parts.items()}


def _key(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())
