"""Experiments, stage `page`: RANKS and histories of the runs → the paper's tables and Figure 3."""

from flap.core.config import load_section
from flap.experiments.config import ExperimentsConfig
from flap.retrieval.config import RetrievalConfig
from pipeline.stage import PARAMS, PathOption, run


def main(
    rows: PathOption,
    variants: PathOption,
    ranks: PathOption,
    histories: PathOption,
    findings: PathOption,
    out: PathOption,
) -> None:
    """Write OUT/README.md and its figures; FINDINGS is a Markdown text about the numbers."""
    config = load_section(rows, "experiments", ExperimentsConfig)
    retrieval = load_section(PARAMS, "retrieval", RetrievalConfig)

    from flap.experiments.page import Study, write_page  # loads torch

    write_page(Study(config, retrieval, variants, ranks, histories), findings.read_text(), out)
    print(f"page: {out / 'README.md'}")


if __name__ == "__main__":
    run(main)
