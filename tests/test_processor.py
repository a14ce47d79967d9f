"""The processor gives a waveform the same window, and so the same embedding, as the pipeline."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FRONT_END
from small_models import CAPTIONS, ENCODER, FUSED, TEXT
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor

from flap import FlapFeatureExtractor, FlapProcessor
from flap.audio.config import AudioConfig
from flap.audio.fbank import log_mel
from flap.model.flap import build_flap
from flap.model.text_encoder import build_tokenizer, tokenize
from flap.model.windows import middle_windows
from flap.processor.processor import build_processor

RATE_HZ = 16000


def tone(seconds: float, rate_hz: int = RATE_HZ) -> np.ndarray:
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * 440 * time * (1 + time))).astype(np.float32)


@pytest.fixture
def processor() -> FlapProcessor:
    torch.manual_seed(0)
    model = build_flap(ENCODER, FUSED, with_decoder=False)
    return build_processor(model, build_tokenizer(TEXT, CAPTIONS), FRONT_END)


def test_windows_are_those_of_the_stage_audio(processor: FlapProcessor) -> None:
    clips = [tone(0.3), tone(2.0)]
    found = processor(audio=clips, sampling_rate=RATE_HZ)
    config = AudioConfig.model_validate(FRONT_END)
    expected = middle_windows([log_mel(clip, config) for clip in clips], 64, fusion=True)
    assert torch.equal(found["input_features"], expected.mel_BCTF)
    assert found["is_longer"].tolist() == [False, True]


def test_other_rates_are_resampled_and_one_waveform_is_a_batch(processor: FlapProcessor) -> None:
    at_44k = processor(audio=tone(1.0, 44100), sampling_rate=44100)["input_features"]
    at_16k = processor(audio=torch.from_numpy(tone(1.0)), sampling_rate=RATE_HZ)["input_features"]
    assert at_44k.shape == at_16k.shape == (1, 4, 64, 32)
    loud = at_16k > -6
    assert (at_44k - at_16k)[loud].abs().mean() < 0.3
    as_list = processor(audio=tone(1.0).tolist(), sampling_rate=RATE_HZ)["input_features"]
    assert torch.equal(as_list, at_16k)
    assert len(processor(audio=np.stack([tone(1.0)] * 3), sampling_rate=RATE_HZ)["is_longer"]) == 3


def test_text_is_tokenised_and_cut_as_in_training(processor: FlapProcessor) -> None:
    found = processor(text=[*CAPTIONS, "dog " * 100])
    assert found["input_ids"].shape == (4, TEXT.max_tokens)
    expected = tokenize(processor.tokenizer, CAPTIONS, TEXT.max_tokens)
    assert torch.equal(processor(text=CAPTIONS)["input_ids"], expected["input_ids"])
    assert processor(text="A dog.")["input_ids"].shape[0] == 1


def test_a_folder_holds_all_that_a_user_needs(tmp_path: Path, processor: FlapProcessor) -> None:
    model = build_flap(ENCODER, FUSED, with_decoder=False).eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is FlapProcessor
    assert type(AutoFeatureExtractor.from_pretrained(tmp_path)) is FlapFeatureExtractor
    inputs = processor(text=CAPTIONS, audio=[tone(2.0)] * 3, sampling_rate=RATE_HZ)
    reloaded = again(text=CAPTIONS, audio=[tone(2.0)] * 3, sampling_rate=RATE_HZ)
    assert inputs.keys() == reloaded.keys()
    assert all(torch.equal(inputs[name], reloaded[name]) for name in inputs)
    with torch.no_grad():
        scores = AutoModel.from_pretrained(tmp_path).eval()(**reloaded).logits_per_audio
        torch.testing.assert_close(scores, model(**inputs).logits_per_audio)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 2, 900)), "average its channels first"),
        (np.zeros(100), "shorter than one frame"),
        (np.full(9000, np.nan), "NaN"),
        (np.zeros((9000, 2)), "average its channels first"),
        (np.zeros(9000, np.int16), "int16"),
    ],
)
def test_invalid_waveforms_are_refused(
    processor: FlapProcessor, audio: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        processor(audio=audio, sampling_rate=RATE_HZ)


def test_importing_one_class_registers_all_auto_classes(
    tmp_path: Path, processor: FlapProcessor
) -> None:
    build_flap(ENCODER, FUSED, with_decoder=False).config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    program = (
        "from flap import FlapConfig; from transformers import AutoProcessor; "
        "print(type(AutoProcessor.from_pretrained('.')).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "FlapProcessor"


def test_invalid_arguments_are_refused(processor: FlapProcessor) -> None:
    with pytest.raises(ValueError, match="nothing to process"):
        processor()
    with pytest.raises(TypeError, match="audios"):
        processor(text="A dog.", audios=tone(1.0))  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="only PyTorch's"):
        processor(text="A dog.", return_tensors="np")


def test_the_sampling_rate_is_required(processor: FlapProcessor) -> None:
    with pytest.raises(ValueError, match="sampling_rate"):
        processor(audio=tone(1.0))
