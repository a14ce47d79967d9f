"""Text encoders: from scratch, and pretrained ones of transformers, with each pooling."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_models import CAPTIONS, ENCODER, MODEL, TEXT
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from flap.core.errors import UserError
from flap.model.config import PretrainedText
from flap.model.flap import FlapModel, build_flap
from flap.model.text_encoder import build_tokenizer, tokenize

SMALL = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MODELS: dict[str, Any] = {
    "roberta": lambda: RobertaModel(RobertaConfig(**SMALL, intermediate_size=32)),
    "bert": lambda: BertModel(BertConfig(**SMALL, intermediate_size=32)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=300, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    ),
    "t5": lambda: T5Model(
        T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ),
}


def pretrained(folder: Path, model: PreTrainedModel, pooling: str) -> PretrainedText:
    model.save_pretrained(folder)
    build_tokenizer(TEXT, CAPTIONS).save_pretrained(folder)
    return PretrainedText(
        kind="pretrained", source=str(folder), revision="main", pooling=pooling, max_tokens=16
    )


def flap_with(text: PretrainedText) -> FlapModel:
    model = MODEL.model_copy(update={"text": text})
    return build_flap(ENCODER, model, with_decoder=False).eval()


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("roberta", "pooler"),
        ("roberta", "mean"),
        ("bert", "first"),
        ("distilbert", "mean"),
        ("t5", "mean"),
    ],
)
def test_any_transformers_encoder(tmp_path: Path, name: str, pooling: str) -> None:
    source = MODELS[name]()
    text = pretrained(tmp_path / "text", source, pooling)
    flap = flap_with(text)
    encoder = source.get_encoder() if name == "t5" else source
    for key, parameter in encoder.named_parameters():
        found = flap.text_encoder.get_parameter(key)
        assert torch.equal(parameter, found), f"{key} is not the pretrained tensor"
    tokens = tokenize(build_tokenizer(text, []), CAPTIONS, 16)
    embedded = flap.get_text_features(**tokens).pooler_output
    assert embedded is not None
    flap.save_pretrained(tmp_path / "flap")
    loaded = FlapModel.from_pretrained(tmp_path / "flap").eval()
    torch.testing.assert_close(loaded.get_text_features(**tokens).pooler_output, embedded)
    embedded.sum().backward()
    trained = [*flap.text_encoder.named_parameters(), *flap.text_head.named_parameters()]
    assert not [n for n, p in trained if p.requires_grad and p.grad is None]


def test_an_incomplete_text_encoder_is_refused(tmp_path: Path) -> None:
    source = MODELS["roberta"]()
    text = pretrained(tmp_path, source, "pooler")
    state = {k: v.clone() for k, v in source.state_dict().items() if "layer.0.output" not in k}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 4 tensors of its model.*layer\.0\.output"):
        flap_with(text)
    no_pooler = {k: v.clone() for k, v in source.state_dict().items() if "pooler" not in k}
    save_file(no_pooler, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert flap_with(text).text_encoder.pooler.dense.weight.std() > 0  # as for RoBERTa-base


def test_pooler_of_a_model_that_has_none_is_named(tmp_path: Path) -> None:
    flap = flap_with(pretrained(tmp_path, MODELS["distilbert"](), "pooler"))
    with pytest.raises(UserError, match=r"model\.text\.pooling.*choose mean or first"):
        flap.get_text_features(torch.ones(1, 3, dtype=torch.long))


@pytest.mark.parametrize("pooling", ["pooler", "mean", "first"])
def test_text_does_not_depend_on_its_batch(pooling: str) -> None:
    text = TEXT.model_copy(update={"pooling": pooling})
    tokenizer = build_tokenizer(TEXT, CAPTIONS)
    flap = build_flap(ENCODER, MODEL.model_copy(update={"text": text}), with_decoder=False).eval()

    def embed(captions: list[str]) -> torch.Tensor:
        found = flap.get_text_features(**tokenize(tokenizer, captions, 16)).pooler_output
        assert found is not None
        return found

    alone = torch.cat([embed([caption]) for caption in CAPTIONS])
    torch.testing.assert_close(embed(CAPTIONS), alone, atol=1e-5, rtol=1e-4)


def test_long_captions_are_cut_and_case_does_not_matter() -> None:
    tokenizer = build_tokenizer(TEXT, CAPTIONS)
    tokens = tokenize(tokenizer, ["dog " * 100, "DOG"], 16)
    assert tokens["input_ids"].shape == (2, 16)
    lower = tokenize(tokenizer, ["dog"], 16)["input_ids"]
    assert torch.equal(tokenize(tokenizer, ["DOG"], 16)["input_ids"], lower)


def test_unknown_pretrained_text_encoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text = PretrainedText(
        kind="pretrained", source="no/such-model", revision="main", pooling="mean", max_tokens=9
    )
    with pytest.raises(UserError, match=r"model\.text\.source: 'no/such-model'"):
        build_tokenizer(text, CAPTIONS)
