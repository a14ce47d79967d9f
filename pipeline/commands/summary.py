"""Print the last lines of `make repro`: the scores of the last run and the path of the report."""

import json
from pathlib import Path

from flap.core.config import load_section
from flap.retrieval.config import BenchmarksConfig
from flap.retrieval.scores import describe
from flap.sources.config import DatasetsConfig
from pipeline.stage import PARAMS, run

METRICS, REPORT = Path("metrics"), Path("data/report/page/index.html")


def main() -> None:
    """Print tagger mAP, captions kept, retrieval scores, and the report's path."""
    tagger = _read("tagger.json")
    print(f"tagger: mAP {tagger['mAP']:.3f}" if "mAP" in tagger else "tagger: released, not scored")
    for dataset in load_section(PARAMS, "datasets", DatasetsConfig).root:
        captions = _read(f"captions/{dataset}.json")
        print(f"captions {dataset}: {captions['kept']} of {captions['rows']} kept")
    for name in load_section(PARAMS, "benchmarks", BenchmarksConfig).root:
        print(describe(name, _read(f"retrieval/{name}.json")))
    print(f"report: {REPORT}")


def _read(name: str) -> dict[str, float]:
    return json.loads((METRICS / name).read_text())


if __name__ == "__main__":
    run(main)
