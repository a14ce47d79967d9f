"""Class of a dataset's entry → the adapter that reads the corpus.

A new format needs a class in `config`, a module with an `Adapter`, and a line here.
"""

from flap.sources.audiocaps import read_audiocaps
from flap.sources.clotho import read_clotho
from flap.sources.config import (
    AudioCapsDataset,
    ClothoDataset,
    CorpusDataset,
    FolderDataset,
    HuggingFaceDataset,
    LabelledDataset,
    TarsDataset,
    WavCapsDataset,
)
from flap.sources.corpus import CorpusRows, collect
from flap.sources.files import CorpusFiles
from flap.sources.folder import read_folder
from flap.sources.huggingface import read_huggingface
from flap.sources.labelled import read_labelled
from flap.sources.record import Adapter, AdapterOutput
from flap.sources.tars.reader import read_tars
from flap.sources.wavcaps import read_wavcaps

_ADAPTERS: dict[type[CorpusDataset], Adapter] = {
    FolderDataset: read_folder,
    AudioCapsDataset: read_audiocaps,
    ClothoDataset: read_clotho,
    WavCapsDataset: read_wavcaps,
    TarsDataset: read_tars,
    LabelledDataset: read_labelled,
    HuggingFaceDataset: read_huggingface,
}


def read_corpus(dataset: str, config: CorpusDataset, output: AdapterOutput) -> CorpusRows:
    """All clips and rejects of a corpus.

    Raises:
        UserError: the corpus is missing or malformed, or has no usable recording.
    """
    files = CorpusFiles(config.path)
    if not isinstance(config, HuggingFaceDataset):  # there the path may be a name on the hub
        files.check_folder()
    corpus = collect(dataset, config, files, _ADAPTERS[type(config)](files, config, output))
    corpus.notes[:0] = output.notes
    if links := files.linked_folders:
        corpus.notes.append(
            f"links to folders are not followed: {', '.join(links)}; if recordings are missing, "
            "move the folders here, or set `path` to the folder that a link points to"
        )
    return corpus
