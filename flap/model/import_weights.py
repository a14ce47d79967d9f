"""Released checkpoints → our audio encoder, with an account of every tensor.

Read: AudioMAE as pre-trained and as fine-tuned, its timm ports on the hub, the audio branch of
MAViL, and what this project saves (a tagger's folder, a FLAP model's). All of them name their
tensors as `AudioEncoder` does. A tensor that neither finds its place nor is left out for a
stated reason is an error: a model half loaded trains and scores without complaint.
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
Reason = tuple[str, str]  # what such names begin with, and why they are to be expected

_HUB, _HUB_FILES = "hf://", ("model.safetensors", "pytorch_model.bin")
_FAMILY_MELS = 128  # the released checkpoints' mel bins
_NORMALISATION = ("mel_mean", "mel_std", "n_mels", "patch")

_DECODER = r"(decoder_.*|mask_token)$", "decoder of its pre-training"
_VIDEO = r"(\w+\.)*\w+_v(\.|$)", "MAViL's video branch"
_OWN_REST = (
    r"(audio_decoder|audio_head|text_encoder|text_head)\.|logit_scale$",
    "FLAP's parts beside the audio encoder",
)
_HEAD = r"(fc_norm|head)\.", "the tagger's head"
_NORM = r"norm\.", "a tagger normalises after pooling, by fc_norm"
_FUSION = r"patch_embed\.(local_proj|fusion)\.", "feature fusion"


@dataclass(frozen=True)
class ImportReport:
    """What became of every tensor; names to reasons where there is something to say."""

    source: str
    loaded: list[str]
    fresh: dict[str, str]  # ours that the checkpoint lacks
    left_out: dict[str, str]  # the checkpoint's that we do not use
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
    """Load `weights` into an audio encoder, or into a tagger with its head if there is one.

    The table of positions is taken as it is, also where it was built on a grid turned by 90°
    as AudioMAE's was: the other weights were trained with it.

    Raises:
        UserError: no such checkpoint, another hash, or a tensor that is not accounted for.
    """
    file = _find_file(weights)
    found, own_config = _read_state(file), _own_encoder(file.parent)
    reshaped = _fit_positions(found, encoder.config, own_config, str(file))
    wanted = encoder.state_dict()
    fresh = _explain(wanted.keys() - found.keys(), _may_be_fresh(found))
    spare = _NORM if isinstance(encoder, Tagger) else _HEAD
    left_out = _explain(found.keys() - wanted.keys(), [_DECODER, _VIDEO, _OWN_REST, _FUSION, spare])
    loaded = sorted(wanted.keys() & found.keys())
    problems = [f"{name} is missing" for name, reason in fresh.items() if not reason]
    problems += [f"{name} is not known" for name, reason in left_out.items() if not reason]
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
    """A part may be missing as a whole, never in pieces."""
    has_head = any(re.match(_HEAD[0], name) for name in found)
    is_tagger = {"fc_norm.weight", "fc_norm.bias"} <= found.keys()
    has_norm = any(re.match(_NORM[0], name) for name in found)
    has_fusion = any(re.match(_FUSION[0], name) for name in found)
    allowed = [] if has_head else [_HEAD]
    allowed += [] if has_fusion else [_FUSION]
    return allowed + ([_NORM] if is_tagger and not has_norm else [])


def _explain(names: set[str], reasons: list[Reason]) -> dict[str, str]:
    """Each name with the first reason whose pattern begins it, or with ''."""
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
            f"{file}: no such checkpoint; name a file, a directory with model.safetensors, "
            f"or {_HUB}owner/name"
        )
    if weights.sha256 and (digest := _sha256(file)) != weights.sha256:
        raise UserError(f"{file}: has SHA-256 {digest}, not {weights.sha256} as sha256 says")
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    with suppress(EntryNotFoundError, HfHubHTTPError, OSError):
        hf_hub_download(repository, "config.json", revision=revision)  # read beside the weights
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
        f"{_HUB}{repository}: the hub did not give it; download its {' or '.join(_HUB_FILES)} "
        f"and name that file ({first_line(error)})"
    )


def _read_state(file: Path) -> State:
    """Tensors by the names of `AudioEncoder`; wrappers of training scripts are taken off."""
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:  # AudioMAE's files hold their command line, a Namespace of plain values, as well
            with torch.serialization.safe_globals([argparse.Namespace]):
                found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or foreign file may fail in any way
        raise UserError(f"{file}: cannot be read as weights alone: {error}") from error
    while isinstance(found, dict) and (inner := _inner(found)) is not None:
        found = inner
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise UserError(f"{file}: holds no state dict, nor one under 'model' or 'state_dict'")
    return {re.sub(r"^(module\.)?(audio_encoder\.)?", "", name): t for name, t in found.items()}


def _inner(found: dict[str, Any]) -> Any:
    return next((found[key] for key in ("model", "state_dict") if key in found), None)


def _own_encoder(folder: Path) -> EncoderConfig | None:
    """The encoder's section as this project saved it beside the weights, if it did."""
    try:
        content = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    if content.get("model_type") == "flap":
        return EncoderConfig.model_validate(content["audio_config"])
    if {"encoder", "labels"} == content.keys():  # a tagger's folder
        return EncoderConfig.model_validate(content["encoder"])
    return None


def _fit_positions(
    found: State, config: EncoderConfig, own: EncoderConfig | None, where: str
) -> dict[str, str]:
    """Make the table of positions fit our grid, in place; say what was done, if anything.

    A patch of a shorter window covers the same 160 ms as before, so the table is cut. Longer
    windows and other numbers of mel bins are interpolated.
    """
    if own is not None:
        for key in _NORMALISATION:
            if getattr(own, key) != getattr(config, key):
                raise UserError(
                    f"{where}: was trained with {key} {getattr(own, key)}, section 'encoder' has "
                    f"{getattr(config, key)}"
                )
    table = found.get("pos_embed")
    if table is None or table.ndim != 3:
        return {}
    tokens = table.shape[1] - 1
    if own is None and tokens == config.grid[0] * config.grid[1]:
        return {}
    n_freq = own.grid[1] if own else _FAMILY_MELS // config.patch
    steps, rest = divmod(tokens, n_freq)
    if rest:
        raise UserError(f"{where}: {tokens} positions are not {n_freq} a time step")
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
    """Width, depth and patch as the tensors tell them."""
    proj = found.get("patch_embed.proj.weight")
    if proj is None:
        return "no patch_embed.proj.weight"
    depth = len({name.split(".")[1] for name in found if name.startswith("blocks.")})
    return f"width {proj.shape[0]}, depth {depth}, patch {proj.shape[-1]}"
