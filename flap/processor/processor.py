"""`FlapFeatureExtractor` and `FlapProcessor`: waveform + text → the inputs of `FlapModel`.

The log-mel is the one of the stage `audio`, the windows are those of evaluation, so a waveform
gets the embedding that retrieval scored. Importing this module registers both classes with the
Auto classes.
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
_MAX_CHANNELS = 32  # an axis this short is one of channels, not of time


class FlapFeatureExtractor(FeatureExtractionMixin):
    """Waveforms → un-normalised log-mel windows.

    Args:
        front_end: values of `AudioConfig`, section `audio` of params.yaml.
        clip_frames: frames of a window.
        fusion: whether windows have LS-CLAP's four channels.
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
        """`input_features` (B, C, T, F) and `is_longer` (B,) as tensors.

        Args:
            audio: one mono waveform or several, full scale = 1, of any rate.
            sampling_rate: of all of them, Hz; another than the front end's is resampled.
            return_tensors: PyTorch's alone.
            device: where the log-mels are computed; the tensors are on the CPU.

        Raises:
            ValueError: a waveform is not mono, not of floats, not finite, or shorter than a frame.
        """
        _check_tensors(return_tensors)
        config = AudioConfig.model_validate(self.front_end)
        heard = [_heard(one, sampling_rate, config) for one in _batch(audio)]
        mels = fbank(config, torch.device(device))([one.to(device) for one in heard])
        windows = middle_windows(
            (mel_TF.cpu().numpy() for mel_TF in mels), self.clip_frames, self.fusion
        )
        return BatchFeature({"input_features": windows.mel_BCTF, "is_longer": windows.longer_B})


def _batch(audio: Any) -> list[np.ndarray]:
    several = len(audio) > 0 and np.ndim(audio[0]) > 0
    return [np.asarray(one) for one in (audio if several else [audio])]


def _check_tensors(return_tensors: str) -> None:
    if return_tensors != "pt":
        raise ValueError(f"return_tensors is '{return_tensors}': only PyTorch's, 'pt', are made")


def _heard(samples: np.ndarray, rate_hz: int, config: AudioConfig) -> torch.Tensor:
    """A waveform at the front end's rate, up to its cap."""
    if samples.ndim != 1 or len(samples) <= _MAX_CHANNELS:
        raise ValueError(f"a waveform has the shape {samples.shape}: average its channels first")
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"a waveform holds {samples.dtype}: divide it, so that full scale is 1")
    if len(samples) * 1000 < config.frame_ms * rate_hz:
        raise ValueError(f"a waveform of {len(samples)} samples is shorter than one frame")
    if not np.isfinite(samples).all():
        raise ValueError("a waveform holds NaN or infinity")
    heard = samples[: round(config.max_seconds * rate_hz)].astype(np.float32)
    return torch.from_numpy(resample(heard, rate_hz, config.sample_rate_hz))


class FlapProcessor(ProcessorMixin):
    """Feature extractor and tokenizer in one; kept in the model's folder."""

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
        """Tensors for `FlapModel`: of the captions, padded and cut at the model's length, of the
        waveforms, or of both.
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
                raise ValueError("sampling_rate is missing: of how many samples a second is audio?")
            inputs |= self.feature_extractor(audio, sampling_rate)
        return BatchFeature(inputs)


def build_processor(
    model: FlapModel, tokenizer: PreTrainedTokenizerBase, front_end: Mapping[str, Any]
) -> FlapProcessor:
    """The processor that belongs to a trained model.

    Args:
        front_end: the provenance of the MELS that it was trained on.
    """
    tokenizer.model_max_length = model.config.max_text_tokens
    extractor = FlapFeatureExtractor(
        front_end, model.config.encoder.clip_frames, model.config.fusion
    )
    return FlapProcessor(extractor, tokenizer)


AutoFeatureExtractor.register(FlapConfig, FlapFeatureExtractor)
AutoProcessor.register(FlapConfig, FlapProcessor)
