"""Stage `report`: all that the stages left → one HTML page."""

from flap.config import load_section
from flap.report.config import ReportConfig
from flap.retrieval.config import BenchmarksConfig
from flap.shards import Work, atomic_path, fingerprint
from flap.sources.config import DatasetsConfig
from pipeline.stage import PARAMS, PathOption, run


def main(data: PathOption, metrics: PathOption, out: PathOption) -> None:
    """Write OUT/index.html, a page that needs no other file."""
    config = load_section(PARAMS, "report", ReportConfig)
    datasets = list(load_section(PARAMS, "datasets", DatasetsConfig).root)
    benchmarks = list(load_section(PARAMS, "benchmarks", BenchmarksConfig).root)

    from flap.report.page import read_facts, render  # loads pandas and the template engine

    page = render(read_facts(data, metrics, datasets, benchmarks, config))
    work = Work.open(out, fingerprint([], config, page=page))
    with atomic_path(work.folder / "index.html") as temporary:
        temporary.write_text(page)
    work.publish()
    print(f"report: {out / 'index.html'}, {len(page) // 1024} KiB")


if __name__ == "__main__":
    run(main)
