"""Stage `sources`: a corpus of `datasets` → data/sources/DATASET, a CLIPS table."""

from pathlib import Path
from typing import Annotated

import typer

from flap import audioset
from flap.config import load_section
from flap.errors import UserError
from flap.shards import Work, count_rows, fingerprint, run_shards
from flap.sources.config import DatasetsConfig, DemoDataset, FolderDataset, SourcesConfig
from flap.sources.demo import DemoShards
from flap.sources.folder import captions_file, read_corpus, write_corpus
from pipeline.stage import PARAMS, print_counts, run


def main(
    dataset: Annotated[str, typer.Argument(help="a key of the section `datasets`")],
    out: Annotated[Path, typer.Option(help="folder to publish, data/sources/DATASET")],
) -> None:
    """Turn a corpus into a CLIPS table with a split, captions and labels for each recording."""
    datasets = load_section(PARAMS, "datasets", DatasetsConfig).root
    if dataset not in datasets:
        raise UserError(f"{PARAMS}: no dataset '{dataset}'; there are: {', '.join(datasets)}")
    sources = load_section(PARAMS, "sources", SourcesConfig)
    entry = datasets[dataset]
    if isinstance(entry, DemoDataset):
        _make_demo(dataset, entry, sources, out)
    else:
        _read_folder(dataset, entry, sources, out)


def _make_demo(dataset: str, entry: DemoDataset, sources: SourcesConfig, out: Path) -> None:
    demo = DemoShards(dataset, entry, sources.shard_clips, out)
    inputs = [Path(entry.path)]
    work = Work.open(out, fingerprint(inputs, entry, sources, dataset=dataset))
    run_shards(demo, demo.shards, work, f"sources {dataset}")
    print_counts("sources", demo.n_clips, count_rows(work.folder), rejected=0)
    work.publish()


def _read_folder(dataset: str, entry: FolderDataset, sources: SourcesConfig, out: Path) -> None:
    corpus = read_corpus(dataset, entry)
    for note in corpus.notes:
        typer.echo(f"sources: {note}")
    inputs = [captions_file(Path(entry.path)), audioset.LABELS_FILE, audioset.ALIASES_FILE]
    found = [row["clip_id"] for row in corpus.clips]  # a recording may come or go, the CSV stay
    work = Work.open(out, fingerprint(inputs, entry, sources, dataset=dataset, clips=found))
    write_corpus(corpus, entry, sources.shard_clips, work.folder)
    print_counts("sources", corpus.n_rows, count_rows(work.folder), len(corpus.rejects))
    work.publish()


if __name__ == "__main__":
    run(main)
