"""Which adapter reads which kind of corpus.

A new kind is a class in `config`, a module with an `Adapter`, and a line here.
"""

from flap.sources.config import CorpusDataset, DrawnSplits, FolderDataset
from flap.sources.corpus import Adapter, Corpus, Intake, collect
from flap.sources.files import CorpusFiles
from flap.sources.folder import read_folder

_ADAPTERS: dict[type[CorpusDataset], Adapter] = {FolderDataset: read_folder}


def read_corpus(dataset: str, config: CorpusDataset, intake: Intake) -> Corpus:
    """All of a corpus, as clips and rejects.

    Raises:
        UserError: it is not there, not in its format, or holds nothing usable.
    """
    files = CorpusFiles(config.path)
    splits = getattr(config, "splits", None)
    drawn = splits if isinstance(splits, DrawnSplits) else None
    described = _ADAPTERS[type(config)](files, config, intake)
    corpus = collect(dataset, config, files, described, drawn)
    corpus.notes[:0] = intake.notes
    return corpus
