"""Stage `audit`: CLIPS and MELS of all corpora → AUDIT."""

import typer

from flap.audit.config import AuditConfig
from flap.core.config import load_section
from flap.core.metrics import write_metrics
from flap.core.schemas import AUDIT
from flap.core.shards import shard_name, write_rows
from flap.sources.config import DatasetsConfig
from pipeline.stage import PARAMS, PathOption, run


def main(clips: PathOption, mels: PathOption, out: PathOption, metrics: PathOption) -> None:
    """Find leaks, duplicates, and missing or long captions over all corpora."""
    config = load_section(PARAMS, "audit", AuditConfig)
    datasets = list(load_section(PARAMS, "datasets", DatasetsConfig).root)

    from flap.audit import summary  # imports pandas, which --help does not need
    from flap.audit.clips import read_clips
    from flap.audit.findings import find_problems

    audited = read_clips(clips, mels, datasets)
    found = find_problems(audited, config)
    # The provenance leaves out the parameters: the stages that train depend on the bytes of this
    # file, and must not run again if another limit gives the same findings.
    rows = (dict(zip(found.columns, row, strict=True)) for row in found.itertuples(index=False))
    write_rows(out / shard_name(0), rows, AUDIT, {"stage": "audit", "datasets": datasets})
    counts = summary.metrics(audited, found)
    write_metrics(metrics, counts)
    for line in summary.summary_lines(counts, found, config):
        typer.echo(f"audit: {line}")


if __name__ == "__main__":
    run(main)
