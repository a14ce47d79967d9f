"""Imports checkpoints into the audio encoder, and accounts for every tensor.

Supported are AudioMAE, pre-trained and fine-tuned, its timm ports on the hub, the audio branch of
MAViL, and this project's tagger and FLAP folders. All of them name tensors as `AudioEncoder` does.
Each tensor is loaded or skipped for a stated reason; any other tensor is an error, because a
partly loaded model would train and score without a warning.
"""

import argparse
import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from flap.core.errors import UserError, first_line
from flap.model.audio_encoder import AudioEncoder
from flap.model.config import EncoderConfig, WeightsConfig
from flap.model.tagger import Tagger

State = dict[str, torch.Tensor]
Reason = tuple[str, str]  # pattern of the start of a tensor's name, explanation

_HUB, _HUB_FILES = "hf://", ("model.safetensors", "pytorch_model.bin")
_RELEASED_MELS = 128  # mel bins of the released checkpoints
_NORMALISATION = ("mel_mean", "mel_std", "n_mels", "patch")

_DECODER = r"(decoder_.*|mask_token)$", "decoder of its pre-training"
_VIDEO = r"(\w+\.)*\w+_v(\.|$)", "MAViL's video branch"
_OTHER_PARTS = (
    r"(audio_decoder|audio_head|text_encoder|text_head)\.|logit_scale$",
    "FLAP's parts beside the audio encoder",
)
_HEAD = r"(fc_norm|head)\.", "the tagger's head"
_NORM = r"norm\.", "a tagger uses fc_norm after pooling instead"
_FUSION = r"patch_embed\.(local_proj|fusion)\.", "feature fusion"


@dataclass(frozen=True)
class ImportReport:
    """The tensors of an import; the dictionaries map names to explanations."""

    source: str
    loaded: list[str]
    fresh: dict[str, str]  # the encoder's tensors that the checkpoint lacks: newly initialised
    left_out: dict[str, str]  # the checkpoint's tensors that the encoder does not use
    reshaped: dict[str, str]

    def __str__(self) -> str:
        lines = [f"weights of {self.source}: {len(self.loaded)} tensors loaded"]
        for what, entries in (("fresh", self.fresh), ("left out", self.left_out)):
            for reason in dict.fromkeys(entries.values()):
                number = sum(entry == reason for entry in entries.values())
                lines.append(f"  {number} {what}: {reason}")
        lines += [f"  reshaped: {name}, {how}" for name, how in self.reshaped.items()]
        return "\n".join(lines)


def import_weights(encoder: AudioEncoder, weights: WeightsConfig) -> ImportReport:
    """Load `weights` into an audio encoder, or into a tagger, with the head if there is one.

    A table of positions that fits is loaded unchanged, even AudioMAE's, which was built on a grid
    turned by 90°: the other weights were trained with that table.

    Raises:
        UserError: the checkpoint does not exist or has another hash, or a tensor does not fit.
    """
    file = _find_file(weights)
    found, saved = _read_state(file), _saved_encoder(file.parent)
    reshaped = _fit_positions(found, encoder.config, saved, str(file))
    wanted = encoder.state_dict()
    fresh = _explain(wanted.keys() - found.keys(), _may_be_fresh(found))
    spare = _NORM if isinstance(encoder, Tagger) else _HEAD
    spare_parts = [_DECODER, _VIDEO, _OTHER_PARTS, _FUSION, spare]
    left_out = _explain(found.keys() - wanted.keys(), spare_parts)
    loaded = sorted(wanted.keys() & found.keys())
    problems = [f"{name} is missing" for name, reason in fresh.items() if not reason]
    problems += [f"{name} is unknown" for name, reason in left_out.items() if not reason]
    problems += [
        f"{name} has the shape {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in loaded
        if found[name].shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; {len(problems)} in all" if problems[5:] else "")
        raise UserError(
            f"{file}: does not fit section 'encoder' ({_sizes(encoder.config)}), while the "
            f"checkpoint has {_sizes_of(found)}: {shown}"
        )
    encoder.load_state_dict({name: found[name] for name in loaded}, strict=False)
    return ImportReport(weights.source, loaded, fresh, left_out, reshaped)


def _may_be_fresh(found: State) -> list[Reason]:
    """The parts that a checkpoint may lack: only completely, never in part."""
    has_head = any(re.match(_HEAD[0], name) for name in found)
    is_tagger = {"fc_norm.weight", "fc_norm.bias"} <= found.keys()
    has_norm = any(re.match(_NORM[0], name) for name in found)
    has_fusion = any(re.match(_FUSION[0], name) for name in found)
    allowed = [] if has_head else [_HEAD]
    allowed += [] if has_fusion else [_FUSION]
    return allowed + ([_NORM] if is_tagger and not has_norm else [])


def _explain(names: set[str], reasons: list[Reason]) -> dict[str, str]:
    """Each name with the explanation of the first pattern that matches its start, or ''."""
    return {
        name: next((why for pattern, why in reasons if re.match(pattern, name)), "")
        for name in sorted(names)
    }


def _find_file(weights: WeightsConfig) -> Path:
    source = Path(weights.source)
    if weights.source.startswith(_HUB):
        file = _download(weights.source.removeprefix(_HUB), weights.revision)
    else:
        file = source / "model.safetensors" if source.is_dir() else source
    if not file.is_file():
        raise UserError(
            f"{file}: no such checkpoint; set source to a file, a directory with "
            f"model.safetensors, or {_HUB}owner/name"
        )
    if weights.sha256 and (digest := _sha256(file)) != weights.sha256:
        raise UserError(f"{file}: SHA-256 is {digest}, but sha256 says {weights.sha256}")
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    with suppress(EntryNotFoundError, HfHubHTTPError, OSError):
        hf_hub_download(repository, "config.json", revision=revision)  # for `_saved_encoder`
    for name in _HUB_FILES:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except LocalEntryNotFoundError as error:
            raise _no_download(repository, error) from error
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise _no_download(repository, error) from error
    raise UserError(f"{_HUB}{repository}: has none of {', '.join(_HUB_FILES)}")


def _no_download(repository: str, error: Exception) -> UserError:
    return UserError(
        f"{_HUB}{repository}: download failed; download {' or '.join(_HUB_FILES)} by other means "
        f"and set source to that file ({first_line(error)})"
    )


def _read_state(file: Path) -> State:
    """Tensors by their names in `AudioEncoder`, without the wrappers of training scripts."""
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:  # AudioMAE's files also hold their command line, as a Namespace of plain values
            with torch.serialization.safe_globals([argparse.Namespace]):
                found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or foreign file can raise any error
        raise UserError(f"{file}: not a readable file of weights only: {error}") from error
    while isinstance(found, dict) and (inner := _inner(found)) is not None:
        found = inner
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise UserError(f"{file}: no state dict, neither directly nor in 'model' or 'state_dict'")
    return {re.sub(r"^(module\.)?(audio_encoder\.)?", "", name): t for name, t in found.items()}


def _inner(found: dict[str, Any]) -> Any:
    return next((found[key] for key in ("model", "state_dict") if key in found), None)


def _saved_encoder(folder: Path) -> EncoderConfig | None:
    """The section `encoder` in `config.json` if this project saved the folder; else None."""
    try:
        content = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    if content.get("model_type") == "flap":
        return EncoderConfig.model_validate(content["audio_config"])
    if {"encoder", "labels"} == content.keys():  # a tagger
        return EncoderConfig.model_validate(content["encoder"])
    return None


def _fit_positions(
    found: State, config: EncoderConfig, saved: EncoderConfig | None, where: str
) -> dict[str, str]:
    """Fit the table of positions to the encoder's grid, in place; returns what was done.

    For a shorter window the table is cut, since a patch still covers the same time. For a longer
    window or another number of mel bins it is interpolated.
    """
    if saved is not None:
        for key in _NORMALISATION:
            if getattr(saved, key) != getattr(config, key):
                raise UserError(
                    f"{where}: trained with {key} {getattr(saved, key)}, but section 'encoder' has "
                    f"{getattr(config, key)}; set encoder.{key} to the trained value"
                )
    table = found.get("pos_embed")
    if table is None or table.ndim != 3:
        return {}
    tokens = table.shape[1] - 1
    if saved is None and tokens == config.grid[0] * config.grid[1]:
        return {}
    n_freq = saved.grid[1] if saved else _RELEASED_MELS // config.patch
    steps, rest = divmod(tokens, n_freq)
    if rest:
        raise UserError(f"{where}: pos_embed has {tokens} positions, not a multiple of {n_freq}")
    if (steps, n_freq) == config.grid:
        return {}
    cls_11D, grid_1TFD = table[:, :1], table[:, 1:].unflatten(1, (steps, n_freq))
    if n_freq == config.grid[1] and steps > config.grid[0]:
        fitted, how = grid_1TFD[:, : config.grid[0]], "cut"
    else:
        image_1DTF = grid_1TFD.permute(0, 3, 1, 2)
        image_1DTF = F.interpolate(image_1DTF, config.grid, mode="bicubic", align_corners=False)
        fitted, how = image_1DTF.permute(0, 2, 3, 1), "interpolated"
    found["pos_embed"] = torch.cat([cls_11D, fitted.flatten(1, 2)], dim=1)
    return {"pos_embed": f"{how} from {steps} x {n_freq} to {config.grid[0]} x {config.grid[1]}"}


def _sizes(config: EncoderConfig) -> str:
    return f"width {config.width}, depth {config.depth}, patch {config.patch}"


def _sizes_of(found: State) -> str:
    """Width, depth and patch, read from the shapes of the tensors."""
    proj = found.get("patch_embed.proj.weight")
    if proj is None:
        return "no patch_embed.proj.weight"
    depth = len({name.split(".")[1] for name in found if name.startswith("blocks.")})
    return f"width {proj.shape[0]}, depth {depth}, patch {proj.shape[-1]}"
