"""Small CLIPS, TAGS, checkpoint and params.yaml for the tests of `captions`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_llm_server import MODEL
from ruamel.yaml import YAML

from flap.captions.config import CaptionsConfig
from flap.core.config import load_section, read_params
from flap.core.schemas import CLIPS, TAGS
from flap.core.shards import shard_name, write_rows
from flap.llm.checkpoint import Manifest

PARAMS = Path(__file__).parents[1] / "params.yaml"
SOUNDS = ("Rain", "Siren", "Dog", "Bell", "Wind", "Cat", "Train", "Engine", "Knock", "Owl")


@dataclass(frozen=True)
class Inputs:
    """Paths of one run of the stage."""

    root: Path
    params: Path

    def arguments(self) -> dict[str, Path]:
        data = self.root / "data"
        return {
            "clips": data / "sources/demo",
            "tags": data / "tagging/demo",
            "llm": data / "llm/model",
            "out": data / "captions/demo",
            "metrics": self.root / "metrics.json",
            "params": self.params,
        }

    def command_line(self) -> list[str]:
        return [part for k, v in self.arguments().items() for part in (f"--{k}", str(v))]


def config(**changes: Any) -> CaptionsConfig:
    return load_section(PARAMS, "captions", CaptionsConfig).model_copy(update=changes)


def write_inputs(root: Path, *, clips: int = 24, shard_clips: int = 8, **changes: Any) -> Inputs:
    """Every fifth clip is of `test`, every seventh has no TAGS row; the last shard has no train."""
    rows = [_clip(index) for index in range(clips)]
    shards = [rows[at : at + shard_clips] for at in range(0, clips, shard_clips)]
    shards.append([_clip(clips) | {"split": "val"}])
    for index, shard in enumerate(shards):
        name = shard_name(index)
        write_rows(root / "data/sources/demo" / name, shard, CLIPS, {})
        tags = [_tags(row) for row in shard if not row["clip_id"].endswith("7")]
        write_rows(root / "data/tagging/demo" / name, tags, TAGS, {})
    write_checkpoint(root / "data/llm/model")
    sections = read_params(PARAMS)
    sections["captions"] |= {"concurrency": 4, "splits": ["train"], **changes}
    params = root / "params.yaml"
    with params.open("w") as file:
        YAML().dump({"captions": sections["captions"]}, file)
    return Inputs(root, params)


def _clip(index: int) -> dict[str, Any]:
    return {
        "clip_id": f"demo/{index:04d}",
        "dataset": "demo",
        "split": "test" if index % 5 == 4 else "train",
        "uri": f"{index}.wav",
        "offset": None,
        "n_bytes": None,
        "captions": [f"A {SOUNDS[index % 10].lower()} is heard {index} times.", "Another one."],
        "labels": [],
        "duration_s": None,
        "licence": "",
        "source": "",
        "origin": "",
    }


def _tags(row: dict[str, Any]) -> dict[str, Any]:
    index = int(row["clip_id"][-4:])
    labels = [SOUNDS[index % 10], SOUNDS[(index + 3) % 10]]
    return {"clip_id": row["clip_id"], "labels": labels, "scores": [0.9, 0.5], "tagger_id": "t"}


def write_checkpoint(folder: Path) -> None:
    manifest = Manifest(
        name=MODEL,
        kind="local",
        source="tests",
        revision="",
        sha256="0" * 64,
        licence="",
        has_chat_template=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flap_llm.json").write_text(manifest.model_dump_json())
