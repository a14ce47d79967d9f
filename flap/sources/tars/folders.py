"""Which tars of a corpus are of which split."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from flap.core.errors import UserError
from flap.sources.config import TarsDataset
from flap.sources.files import CorpusFiles
from flap.sources.record import AdapterOutput
from flap.sources.splits import SPLIT_NAMES

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_CLOTHO = {"test": ("validation", "val"), "valid": ("evaluation", "test")}
"""LAION's name → the split it truly is, by Clotho's name and by ours."""


def tars_by_folder(files: CorpusFiles, config: TarsDataset, output: AdapterOutput) -> dict[str, list[str]]:
    """The tars of each folder that `config.splits` names, in that order; 10.tar follows 9.tar.

    Raises:
        UserError: there are none, some are compressed or in a folder without a split, or those
            of Clotho have their names' splits.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(files.find(".tar"), key=_natural):
        found.setdefault(PurePosixPath(name).parent.as_posix(), []).append(name)
    _check_compression(files)
    if not found:
        raise UserError(f"{files.root}: no tar here or in a folder below")
    unnamed = sorted(set(found) - set(config.splits))
    if unnamed:
        raise UserError(
            f"{files.root}: tars in {', '.join(unnamed)} have no split; {_line(files, found)}"
        )
    empty = sorted(set(config.splits) - set(found))
    if empty:
        output.notes.append(f"no tars in {', '.join(empty)}")
    for folder in found:
        if _is_clotho(files, folder):
            check_clotho(files, config, found)
            if PurePosixPath(folder).name in _CLOTHO:
                output.notes.append(_clotho_note(folder, config.splits[folder]))
    return {folder: found[folder] for folder in config.splits if folder in found}


def check_clotho(files: CorpusFiles, config: TarsDataset, folders: Iterable[str]) -> None:
    """
    Raises:
        UserError: one of LAION's folders of Clotho is to be the split that its name says.
    """
    for folder in folders:
        name, split = PurePosixPath(folder).name, config.splits.get(folder)
        if name in _CLOTHO and split == SPLIT_NAMES[name]:
            raise UserError(
                f"{files.root}/{folder}: LAION's tars of Clotho call its validation split 'test' "
                f"and its evaluation split 'valid'; {_line(files, folders, clotho=True)} (were "
                "these tars made otherwise, name their folders development, validation and "
                "evaluation)"
            )


def _clotho_note(folder: str, split: str) -> str:
    truly, _ = _CLOTHO[PurePosixPath(folder).name]
    return f"{folder} holds Clotho's {truly} split, by LAION's names; it is read as {split}"


def _is_clotho(files: CorpusFiles, folder: str) -> bool:
    return "clotho" in f"{files.root}/{folder}".lower()


def _line(files: CorpusFiles, folders: Iterable[str], *, clotho: bool = False) -> str:
    """The line of params.yaml to write."""
    guesses = []
    for folder in folders:
        name = PurePosixPath(folder).name.lower()
        guess = SPLIT_NAMES.get(name, "train")
        if name in _CLOTHO and (clotho or _is_clotho(files, folder)):
            _, guess = _CLOTHO[name]
        guesses.append(f"{folder}: {guess}")
    return f"write `splits: {{{', '.join(guesses)}}}`"


def _check_compression(files: CorpusFiles) -> None:
    compressed = files.find(*_COMPRESSED)
    if compressed:
        raise UserError(
            f"{files.uri(compressed[0])}: is compressed, and recordings are read in their place "
            "within a tar; decompress it (gunzip, bunzip2, unxz or unzstd)"
        )


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
