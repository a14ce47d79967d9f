"""Read the table of enriched captions with pandas, and the same with DuckDB.

    python examples/read_captions.py [data/captions/demo]

DuckDB is optional: `uv pip install duckdb`.
"""

import argparse
from pathlib import Path

import pandas as pd


def with_pandas(folder: Path) -> None:
    """How many were kept, why the others were not, and the most faithful ones."""
    captions = pd.read_parquet(folder)
    print(f"{captions.kept.sum()} of {len(captions)} captions kept")
    print(captions[~captions.kept].reason.value_counts().to_string())
    best = captions[captions.kept].nlargest(3, ["tag_coverage", "faithfulness"])
    for row in best.itertuples():
        print(f"\n{row.original}  +  {', '.join(row.tags)}\n  {row.enriched}")


def with_duckdb(folder: Path) -> None:
    """What each prompt and model gave, by SQL on the files themselves."""
    try:
        import duckdb
    except ModuleNotFoundError:
        raise SystemExit("duckdb is not installed: uv pip install duckdb") from None
    query = """
        SELECT prompt_id, model, count(*) AS captions, round(avg(kept::int), 3) AS kept_share,
               sum(prompt_tokens + answer_tokens) AS tokens
        FROM read_parquet(?) GROUP BY ALL ORDER BY kept_share DESC
    """
    print(duckdb.execute(query, [str(folder / "shard-*.parquet")]).df().to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/captions/demo"))
    folder: Path = parser.parse_args().folder
    with_pandas(folder)
    print()
    with_duckdb(folder)


if __name__ == "__main__":
    main()
