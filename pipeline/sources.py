"""Stage `sources`: a corpus of `datasets` → data/sources/DATASET, a CLIPS table."""

from pathlib import Path
from typing import Annotated

import typer

from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.shards import count_rows
from flap.core.work import Work, fingerprint, run_shards
from flap.sources.adapters import read_corpus
from flap.sources.config import CorpusDataset, DatasetsConfig, DemoDataset, SourcesConfig
from flap.sources.corpus import write_corpus
from flap.sources.record import AdapterOutput
from pipeline.stage import PARAMS, print_counts, run


def main(
    dataset: Annotated[str, typer.Argument(help="a key of the section `datasets`")],
    out: Annotated[Path, typer.Option(help="folder to publish, data/sources/DATASET")],
) -> None:
    """Write the CLIPS table of a corpus: split, captions and labels of each recording."""
    datasets = load_section(PARAMS, "datasets", DatasetsConfig).root
    if dataset not in datasets:
        raise UserError(f"{PARAMS}: no dataset '{dataset}'; there are: {', '.join(datasets)}")
    sources = load_section(PARAMS, "sources", SourcesConfig)
    entry = datasets[dataset]
    if isinstance(entry, DemoDataset):
        _make_demo(dataset, entry, sources, out)
    else:
        _read_corpus(dataset, entry, sources, out)


def _make_demo(dataset: str, entry: DemoDataset, sources: SourcesConfig, out: Path) -> None:
    from flap.sources.demo.shards import DemoShards  # loads scipy, after --help

    demo = DemoShards(dataset, entry, sources.shard_clips, out)
    inputs = [Path(entry.path)]
    work = Work.open(out, fingerprint("sources", inputs, entry, sources, dataset=dataset))
    run_shards(demo, demo.shards, work, f"sources {dataset}", made_from=str)
    print_counts("sources", demo.n_clips, count_rows(work.folder), rejected=0)
    work.publish()


def _read_corpus(dataset: str, entry: CorpusDataset, sources: SourcesConfig, out: Path) -> None:
    work = Work.open(out, fingerprint("sources", [], entry, sources, dataset=dataset))
    corpus = read_corpus(dataset, entry, AdapterOutput(work.folder, out))
    for note in corpus.notes:
        typer.echo(f"sources: {note}")
    write_corpus(corpus, entry, sources.shard_clips, work.folder)
    print_counts("sources", corpus.n_rows, count_rows(work.folder), len(corpus.rejects))
    work.publish()


if __name__ == "__main__":
    run(main)
