"""Stage `captions`: CLIPS, TAGS and a language model → CAPTIONS."""

import typer

from flap.captions.config import CaptionsConfig
from flap.captions.run import CaptionsRun, LanguageModel
from flap.core.config import load_section
from flap.core.metrics import write_metrics
from flap.core.shards import count_rows
from flap.llm.checkpoint import read_manifest
from pipeline.stage import PARAMS, PathOption, print_counts, run


def main(
    clips: PathOption, tags: PathOption, llm: PathOption, out: PathOption, metrics: PathOption
) -> None:
    """Enrich captions with the detected sound events, and check the answers.

    The stage starts vLLM from the serving environment, unless FLAP_LLM_ENDPOINTS names running
    servers (comma-separated base URLs; FLAP_LLM_API_KEY is their key).
    """
    config = load_section(PARAMS, "captions", CaptionsConfig)
    manifest = read_manifest(llm)
    model = LanguageModel(
        folder=llm,
        name=manifest.name,
        weights_sha256=manifest.sha256,
        has_chat_template=manifest.has_chat_template,
        manifest=manifest.model_dump(),
    )
    captions = CaptionsRun.open(clips, tags, model, out, config)
    for line in captions.enrich():
        typer.echo(f"captions: {line}")
    n_clips, n_inputs = captions.count()
    n_rows = count_rows(captions.work.folder)
    print_counts("captions", n_clips, n_rows, rejected=n_clips - n_inputs)
    measured = captions.measure()
    write_metrics(metrics, measured)
    captions.work.publish()
    failed = measured["rejected"]["request_failed"]
    typer.echo(f"captions: kept {measured['kept']} of {measured['rows']}, {failed} requests failed")


if __name__ == "__main__":
    run(main)
