"""`FlapFeatureExtractor` and `FlapProcessor`: waveforms and captions → inputs of `FlapModel`.

Log-mels are those of the stage `audio`, and windows are those of evaluation. So a waveform gets the
same embedding as in the stage `retrieval`. Importing this module registers both classes with the
Auto classes of transformers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoProcessor,
    BatchFeature,
    FeatureExtractionMixin,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from flap.audio.config import AudioConfig
from flap.audio.fbank import fbank
from flap.audio.resample import resample
from flap.model.flap import FlapModel
from flap.model.flap_config import FlapConfig
from flap.model.text_encoder import tokenize
from flap.model.windows import middle_windows

Waveform = np.ndarray | Sequence[float]
_MAX_CHANNELS = 32  # an axis this short holds channels, not time


class FlapFeatureExtractor(FeatureExtractionMixin):
    """Waveforms → un-normalised log-mel windows.

    Args:
        front_end: values of `AudioConfig`, section `audio` of params.yaml.
        clip_frames: frames of a window.
        fusion: whether windows have the four channels of LS-CLAP's feature fusion.
    """

    model_input_names: ClassVar[list[str]] = ["input_features", "is_longer"]

    def __init__(
        self, front_end: Mapping[str, Any], clip_frames: int, fusion: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        known = {name: front_end[name] for name in AudioConfig.model_fields}
        self.front_end = AudioConfig.model_validate(known).model_dump()
        self.clip_frames, self.fusion = clip_frames, fusion

    def __call__(
        self,
        audio: Waveform | Sequence[Waveform],
        sampling_rate: int,
        return_tensors: str = "pt",
        device: str = "cpu",
    ) -> BatchFeature:
        """Compute `input_features` (B, C, T, F) and `is_longer` (B,) as tensors on the CPU.

        Args:
            audio: a mono waveform or several, with full scale 1.
            sampling_rate: Hz, of all waveforms; they are resampled to the front end's rate.
            return_tensors: only "pt", PyTorch.
            device: device that computes the log-mels.

        Raises:
            ValueError: a waveform is not mono, not of floats, not finite, or shorter than a frame.
        """
        _check_tensors(return_tensors)
        config = AudioConfig.model_validate(self.front_end)
        waveforms = [_prepare(samples, sampling_rate, config) for samples in _as_list(audio)]
        mels = fbank(config, torch.device(device))([samples.to(device) for samples in waveforms])
        windows = middle_windows(
            (mel_TF.cpu().numpy() for mel_TF in mels), self.clip_frames, self.fusion
        )
        return BatchFeature({"input_features": windows.mel_BCTF, "is_longer": windows.longer_B})


def _as_list(audio: Any) -> list[np.ndarray]:
    is_batch = len(audio) > 0 and np.ndim(audio[0]) > 0
    return [np.asarray(samples) for samples in (audio if is_batch else [audio])]


def _check_tensors(return_tensors: str) -> None:
    if return_tensors != "pt":
        raise ValueError(f"return_tensors is '{return_tensors}'; only PyTorch's 'pt' is supported")


def _prepare(samples: np.ndarray, rate_hz: int, config: AudioConfig) -> torch.Tensor:
    """Check a waveform, cut it to `max_seconds`, and resample it to the front end's rate."""
    if samples.ndim != 1 or len(samples) <= _MAX_CHANNELS:
        raise ValueError(f"a waveform has the shape {samples.shape}: average its channels first")
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"a waveform is of {samples.dtype}: convert it to floats in -1..1")
    if len(samples) * 1000 < config.frame_ms * rate_hz:
        raise ValueError(f"a waveform of {len(samples)} samples is shorter than one frame")
    if not np.isfinite(samples).all():
        raise ValueError("a waveform contains NaN or infinity")
    start = samples[: round(config.max_seconds * rate_hz)].astype(np.float32)
    return torch.from_numpy(resample(start, rate_hz, config.sample_rate_hz))


class FlapProcessor(ProcessorMixin):
    """Feature extractor and tokenizer of a model; saved in the model's folder."""

    def __init__(
        self, feature_extractor: FlapFeatureExtractor, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(feature_extractor, tokenizer)  # type: ignore[no-untyped-call]

    def __call__(
        self,
        text: str | list[str] | None = None,
        audio: Waveform | Sequence[Waveform] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Inputs of `FlapModel` for captions, waveforms or both, as PyTorch tensors.

        Args:
            text: captions, padded to the longest and cut to the model's maximum length.
            audio: mono waveforms, see `FlapFeatureExtractor`.
            sampling_rate: Hz; required with `audio`.

        Raises:
            ValueError: there is no input, or `sampling_rate` is missing, or a waveform is invalid.
        """
        _check_tensors(return_tensors)
        if text is None and audio is None:
            raise ValueError("nothing to process: give text, audio or both")
        inputs: dict[str, Any] = {}
        if text is not None:
            captions = [text] if isinstance(text, str) else list(text)
            inputs |= tokenize(self.tokenizer, captions, self.tokenizer.model_max_length)
        if audio is not None:
            if sampling_rate is None:
                raise ValueError("sampling_rate is missing: give the rate of audio in Hz")
            inputs |= self.feature_extractor(audio, sampling_rate)
        return BatchFeature(inputs)


def build_processor(
    model: FlapModel, tokenizer: PreTrainedTokenizerBase, front_end: Mapping[str, Any]
) -> FlapProcessor:
    """The processor of a trained model.

    Args:
        front_end: provenance of the MELS that the model was trained on.
    """
    tokenizer.model_max_length = model.config.max_text_tokens
    extractor = FlapFeatureExtractor(
        front_end, model.config.encoder.clip_frames, model.config.fusion
    )
    return FlapProcessor(extractor, tokenizer)


AutoFeatureExtractor.register(FlapConfig, FlapFeatureExtractor)
AutoProcessor.register(FlapConfig, FlapProcessor)
