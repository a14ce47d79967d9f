"""Adapter `tars`: webdataset tars, as LAION-Audio-630K and LS-CLAP's training sets have them.

    train/0.tar      100032.flac  100032.json  100033.flac  100033.json  …
    test/0.tar       …

Members with one name up to the first dot are one sample: a recording and its JSON.

| JSON | |
|---|---|
| text | a caption, or a list of them |
| tag | labels, optional |
| original_data | what the corpus had, optional: licence and Freesound id are taken from it |

Nothing is unpacked: a clip is a range of its tar's bytes, so no archive can write anywhere.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from flap.errors import UserError, first_line
from flap.sources.config import TarsDataset
from flap.sources.corpus import Intake, Item, Place, Refused
from flap.sources.files import CorpusFiles
from flap.sources.recordings import KINDS

_CLOTHO_SPLITS = {"test": "val", "valid": "test"}  # LAION's names for Clotho's splits → ours
_MAX_JSON_BYTES = 1_000_000


def read_tars(files: CorpusFiles, config: TarsDataset, intake: Intake) -> Iterator[Item | Refused]:
    """Each sample of each tar, folders in the order of `splits`.

    Raises:
        UserError: a tar is compressed, in a folder without a split, or there is none at all; or
            the folders of LAION's Clotho are taken for what they are called.
    """
    _check_names(files, config)
    clotho = "clotho" in config.path.casefold()
    if clotho:
        _check_clotho(config, intake)
    for folder, split in config.splits.items():
        for tar in files.find(".tar"):
            if str(PurePosixPath(tar).parent) == folder:
                for entry in _read_tar(files, tar, split):
                    if not clotho and _is_clotho(entry):
                        clotho = True
                        _check_clotho(config, intake)
                    yield entry


def _check_names(files: CorpusFiles, config: TarsDataset) -> None:
    compressed = files.find(".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
    if compressed:
        raise UserError(f"{files.uri(compressed[0])}: decompress it; clips are read from within")
    folders = dict.fromkeys(str(PurePosixPath(tar).parent) for tar in files.find(".tar"))
    if not folders:
        raise UserError(f"{config.path}: no folder with .tar files")
    left_out = [folder for folder in folders if folder not in config.splits]
    if left_out:
        line = ", ".join(f"{folder}: train" for folder in folders)
        raise UserError(
            f"{config.path}: no split for the tars in {', '.join(left_out)}; write such a line as "
            f"`splits: {{{line}}}`"
        )


def _check_clotho(config: TarsDataset, intake: Intake) -> None:
    """LAION's Clotho calls the validation split `test`, and the evaluation split `valid`."""
    for folder, split in config.splits.items():
        right = _CLOTHO_SPLITS.get(PurePosixPath(folder).name)
        if right is not None and split != right:
            raise UserError(
                f"{config.path}: these are Clotho's clips, and LAION's tars of Clotho call its "
                "validation split `test` and its evaluation split `valid`; write "
                "`splits: {train: train, test: val, valid: test}`"
            )
    mapped = {folder: split for folder, split in config.splits.items() if folder != split}
    if mapped:
        intake.notes.append(
            "LAION's Clotho: "
            + ", ".join(f"folder {folder} is split {split}" for folder, split in mapped.items())
        )


def _is_clotho(entry: Item | Refused) -> bool:
    return isinstance(entry, Item) and entry.source.casefold() == "clotho"


def _read_tar(files: CorpusFiles, tar: str, split: str) -> Iterator[Item | Refused]:
    """The samples of one tar; if it is broken, those before that, and then a refusal."""
    waiting: dict[str, _Sample] = {}
    try:
        with files.open(tar) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            size = file.seek(0, os.SEEK_END)
            for member in archive:
                if member.offset_data + member.size > size:
                    break
                if member.isdir():
                    continue
                if refused := _refuse_member(tar, member):
                    yield refused
                    continue
                key = _key(member.name)
                sample = waiting.setdefault(key, _Sample(tar, key))
                sample.add(member, archive)
                if sample.complete:
                    yield waiting.pop(key).item(files, split)
            if archive.offset + tarfile.BLOCKSIZE > size:  # no room for the block that ends it
                raise tarfile.ReadError(f"ends after {size} bytes, in the middle")
    except (tarfile.TarError, EOFError, OSError) as error:
        yield Refused(tar, tar, "unreadable", f"broken: {first_line(error)}")
    yield from (sample.refused() for sample in waiting.values())


def _key(name: str) -> str:
    """webdataset's rule: the name up to its first dot, in its folder."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.split(".")[0] or path.name))


def _refuse_member(tar: str, member: tarfile.TarInfo) -> Refused | None:
    path = PurePosixPath(member.name)
    outside = path.is_absolute() or ".." in path.parts
    if outside or not member.isfile():
        what = "leaves the archive" if outside else "is a link or a device, not a file"
        return Refused(tar, f"{tar}/{path.name}", "outside", f"member '{member.name}' {what}")
    return None


class _Sample:
    """What a tar holds under one key."""

    def __init__(self, tar: str, key: str) -> None:
        self.tar, self.key = tar, key
        self.recording: tarfile.TarInfo | None = None
        self.text: bytes | None = None

    @property
    def complete(self) -> bool:
        return self.recording is not None and self.text is not None

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        if member.name.casefold().endswith(KINDS):
            self.recording = member
        elif member.name.endswith(".json") and member.size <= _MAX_JSON_BYTES:
            file = archive.extractfile(member)
            assert file is not None
            self.text = file.read()

    def item(self, files: CorpusFiles, split: str) -> Item | Refused:
        assert self.recording is not None and self.text is not None
        try:
            described = json.loads(self.text)
            if not isinstance(described, dict):
                raise ValueError("no object")
        except ValueError as error:
            return Refused(self.tar, self._path, "unreadable", f"{self.key}.json: {error}")
        original = described.get("original_data")
        known = described | (original if isinstance(original, dict) else {})
        place = Place(files.uri(self.tar), self.recording.offset_data, self.recording.size)
        return Item(
            where=self.tar,
            recording=f"{self.tar}/{self.recording.name}",
            name=self.key,
            captions=_texts(described.get("text")),
            labels=_texts(described.get("tag")),
            split=split,
            licence=_first(known, "license", "licence"),
            source=_source(known),
            origin=_origin(known),
            place=place,
        )

    def refused(self) -> Refused:
        if self.recording is None:
            return Refused(self.tar, self._path, "missing", f"{self.key}: no recording beside it")
        return Refused(self.tar, self._path, "no_caption", f"{self.recording.name}: no JSON")

    @property
    def _path(self) -> str:
        return f"{self.tar}/{self.key}"


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(each) for each in values if each is not None]


def _first(known: dict[str, Any], *names: str) -> str:
    return next((str(known[name]) for name in names if known.get(name)), "")


def _source(known: dict[str, Any]) -> str:
    """The corpus or site; Clotho is known by the columns of its own CSV."""
    if {"caption_1", "caption_5"} <= known.keys():
        return "Clotho"
    return _first(known, "source", "sound_link", "url")


def _origin(known: dict[str, Any]) -> str:
    freesound = _first(known, "freesound_id", "sound_id")
    youtube = _first(known, "youtube_id", "ytid")
    if freesound:
        return f"freesound:{freesound}"
    return f"youtube:{youtube}" if youtube else ""
