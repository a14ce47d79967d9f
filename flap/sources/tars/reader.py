"""Adapter `tars`: webdataset tars such as those of LAION-Audio-630K and LS-CLAP.

    corpora/freesound/
        train/0.tar  train/1.tar …      `splits` names the split of every folder of tars
        test/0.tar …

A sample consists of two members with one name: `17.flac` (or another format) and

    17.json     {"text": ["A dog barks.", …], "tag": ["dog", …], "original_data": {…}}

(details in `flap.sources.tars.samples`). Nothing is unpacked: CLIPS refers to the recording's
bytes within the tar. Of a truncated tar the complete members are used.

LAION's tars of Clotho call its validation split "test" and its evaluation split "valid". For these
tars only `splits: {train: train, test: val, valid: test}` is accepted.
"""

from collections import Counter
from collections.abc import Iterator

from flap.core.errors import UserError, first_line
from flap.sources.config import TarsDataset
from flap.sources.files import CorpusFiles
from flap.sources.record import AdapterOutput, Location, Record, RejectedRecord
from flap.sources.tars.folders import check_clotho, tars_by_folder
from flap.sources.tars.members import BrokenTarError, Member, read_members
from flap.sources.tars.samples import Description, Sample, describe, is_other, pair


def read_tars(
    files: CorpusFiles, config: TarsDataset, output: AdapterOutput
) -> Iterator[Record | RejectedRecord]:
    """Each sample, tar by tar.

    Raises:
        UserError: a folder of tars has no split, a tar is compressed, or a folder of Clotho has
            the wrong split.
    """
    others = Counter[str]()
    for folder, tars in tars_by_folder(files, config, output).items():
        for tar in tars:
            yield from _read_tar(files, config, folder, tar, others)
    if others:
        found = ", ".join(f"{n} {suffix or 'without extension'}" for suffix, n in others.items())
        output.notes.append(f"members that are neither recording nor JSON are ignored: {found}")


def _read_tar(
    files: CorpusFiles, config: TarsDataset, folder: str, tar: str, others: Counter[str]
) -> Iterator[Record | RejectedRecord]:
    members, broken = _members(files, tar)
    last = {member.name: member for member in members}  # the last of one name counts: `tar -x`
    for member in members:
        if member.is_outside:
            detail = "is a link or a device, or its name leaves the archive"
            yield _refused(tar, member, "outside", detail)
        elif member is not last[member.name]:
            yield _refused(tar, member, "duplicate", "the tar has another member of that name")
    inside = [member for member in last.values() if not member.is_outside]
    others.update(suffix for member in inside if is_other(suffix := member.suffix))
    for sample in pair(inside):
        yield _entry(files, config, folder, tar, sample)
    if broken:
        yield RejectedRecord(tar, tar, "unreadable", broken)


def _members(files: CorpusFiles, tar: str) -> tuple[list[Member], str]:
    """The tar's complete members, and a description of its fault, "" if it has none."""
    members = list[Member]()
    try:
        with files.open(tar) as file:
            members.extend(read_members(file))
    except (BrokenTarError, UserError) as error:
        return members, str(error)
    return members, ""


def _entry(
    files: CorpusFiles, config: TarsDataset, folder: str, tar: str, sample: Sample
) -> Record | RejectedRecord:
    audio, text, split = sample.audio, sample.text, config.splits[folder]
    if audio is None:
        assert text is not None
        return _refused(tar, text, "missing", "the tar has no recording of that name", split)
    about = Description()
    if text is not None:
        if text.json is None:
            return _refused(tar, text, "unreadable", f"JSON of {text.n_bytes} bytes", split)
        try:
            about = describe(text.json, files.uri(tar))
        except ValueError as error:
            return _refused(tar, audio, "unreadable", f"its JSON: {first_line(error)}", split)
    if about.is_clotho:
        check_clotho(files, config, [folder])
    return Record(
        where=f"{tar}/{audio.name}",
        recording=f"{tar}/{audio.name}",
        name=sample.name,
        captions=about.captions,
        labels=about.labels,
        split=split,
        licence=about.licence,
        source=about.source,
        origin=about.origin,
        recording_key=about.excerpt,
        location=Location(files.uri(tar), audio.offset, audio.n_bytes),
    )


def _refused(
    tar: str, member: Member, reason: str, detail: str, split: str | None = None
) -> RejectedRecord:
    return RejectedRecord(f"{tar}/{member.name}", f"{tar}/{member.name}", reason, detail, split)
