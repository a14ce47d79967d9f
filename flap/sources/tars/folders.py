"""The tars of a corpus by folder, and the split of each folder."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from flap.core.errors import UserError
from flap.core.schemas import Split
from flap.sources.config import TarsDataset
from flap.sources.files import CorpusFiles
from flap.sources.record import AdapterOutput
from flap.sources.splits import SPLIT_NAMES

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_CLOTHO: dict[str, tuple[str, Split]] = {
    "test": ("validation", "val"),
    "valid": ("evaluation", "test"),
}
"""LAION's name of a folder → the split in it, by Clotho's name and by the project's name."""


def tars_by_folder(
    files: CorpusFiles, config: TarsDataset, output: AdapterOutput
) -> dict[str, list[str]]:
    """Folder → its tars in natural order (10.tar after 9.tar); folders as in `config.splits`.

    Raises:
        UserError: there are no tars, a tar is compressed, a folder of tars has no split, or a
            folder of Clotho has the wrong split (see `check_clotho`).
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
            f"{files.root}: tars in {', '.join(unnamed)} have no split; {_advice(files, found)}"
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
        UserError: LAION's folder "test" or "valid" of Clotho is configured as the split of that
            name; the names are swapped.
    """
    for folder in folders:
        name, split = PurePosixPath(folder).name, config.splits.get(folder)
        if name in _CLOTHO and split == SPLIT_NAMES[name]:
            raise UserError(
                f"{files.root}/{folder}: LAION's tars of Clotho call its validation split 'test' "
                f"and its evaluation split 'valid'; {_advice(files, folders, clotho=True)} (if "
                "these tars are not LAION's, rename the folders to development, validation and "
                "evaluation)"
            )


def _clotho_note(folder: str, split: str) -> str:
    clotho_split, _ = _CLOTHO[PurePosixPath(folder).name]
    return f"{folder} holds Clotho's {clotho_split} split by LAION's naming; it becomes {split}"


def _is_clotho(files: CorpusFiles, folder: str) -> bool:
    return "clotho" in f"{files.root}/{folder}".lower()


def _advice(files: CorpusFiles, folders: Iterable[str], *, clotho: bool = False) -> str:
    """Advice with the line for params.yaml."""
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
            f"{files.uri(compressed[0])}: is compressed, but recordings are read from byte ranges "
            "of a tar; decompress it (gunzip, bunzip2, unxz or unzstd)"
        )


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
