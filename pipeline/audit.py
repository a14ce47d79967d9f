"""Stage `audit`: CLIPS and MELS of all corpora → AUDIT, what is wrong with them together."""

import typer

from flap.audit.config import AuditConfig
from flap.core.config import load_section
from flap.core.metrics import write_metrics
from flap.core.schemas import AUDIT
from flap.core.shards import shard_name, write_rows
from flap.sources.config import DatasetsConfig
from pipeline.stage import PARAMS, PathOption, run


def main(clips: PathOption, mels: PathOption, out: PathOption, metrics: PathOption) -> None:
    """Look for leaks, duplicates, and captions missing or too long, over all corpora."""
    config = load_section(PARAMS, "audit", AuditConfig)
    datasets = list(load_section(PARAMS, "datasets", DatasetsConfig).root)

    from flap.audit import summary  # pandas loads after --help and errors in params.yaml
    from flap.audit.clips import read_clips
    from flap.audit.findings import find

    heard = read_clips(clips, mels, datasets)
    found = find(heard, config)
    # Without the parameters: the stages that train hang on these bytes, and a limit that finds
    # nothing new must not start them again.
    rows = (dict(zip(found.columns, row, strict=True)) for row in found.itertuples(index=False))
    write_rows(out / shard_name(0), rows, AUDIT, {"stage": "audit", "datasets": datasets})
    counts = summary.metrics(heard, found)
    write_metrics(metrics, counts)
    for line in summary.lines(counts, found, config):
        typer.echo(f"audit: {line}")


if __name__ == "__main__":
    run(main)
