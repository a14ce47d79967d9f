"""MFU: the counted FLOPs are those of the passes, and counting does not change results."""

import math
from typing import Any

import pytest
import torch
from conftest import Corpus
from small_models import FUSED, mels
from test_pretrain import project
from test_pretrain_sharding import trainer_of
from test_pretrain_step import ALONE, BATCH, STEP, batches, make_step
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import ModernBertConfig

from flap.core.errors import UserError
from flap.model.flap import FlapModel
from flap.model.flap_config import FlapConfig
from flap.pretrain.step import Step
from flap.pretrain.step_flops import StepFlops
from flap.training.meter import StepMeter
from flap.training.peak import peak_flops

CPU = torch.device("cpu")


def counted(step: Step, channels: int = 1) -> float:
    flops = StepFlops(step.model)
    step.backward(STEP, batches(step, channels))
    return flops.take()


def measured(step: Step) -> int:
    """FLOPs that PyTorch counts in a step, without the matrix products of the loss."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step.backward(STEP, batches(step))
    if step.config.captions == "none":
        return counter.get_total_flops()
    logits = 2 * BATCH * BATCH * step.model.config.projection_dim
    views = 1 if step._masks(STEP) is None else step.config.views
    return counter.get_total_flops() - 2 * views * 3 * logits  # two directions, each three products


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"views": 1, "reconstruction_weight": 0.0},
        {"unmasked_steps": 1, "total_steps": STEP + 1},
    ],
)
def test_counted_flops_are_those_of_the_passes(changes: dict[str, Any]) -> None:
    assert counted(make_step(**changes)) == measured(make_step(**changes)) > 0


def test_frozen_and_unused_parts_are_not_counted() -> None:
    def reconstruction() -> Step:
        step = make_step(captions="none")
        for part in (step.model.text_encoder, step.model.text_head, step.model.audio_head):
            part.requires_grad_(False)
        return step

    assert counted(reconstruction()) == measured(reconstruction()) < counted(make_step())


def test_recomputations_are_not_counted() -> None:
    once = counted(make_step(micro_batch=BATCH))
    recomputing = make_step()
    recomputing.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert counted(recomputing) == once
    assert measured(make_step(micro_batch=5)) > 1.2 * once
    step = make_step(micro_batch=5)
    flops = StepFlops(step.model)
    step.backward(STEP, batches(step))
    assert flops.take() == pytest.approx(once, rel=0.05)  # shorter captions need less padding
    assert flops.take() == 0
    assert counted(make_step(model=FUSED), channels=4) == once


def test_flops_that_depend_on_values_are_nan() -> None:
    text = ModernBertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    known = make_step().model.config.to_dict()
    config = FlapConfig.from_dict(known | {"text_config": text.to_dict(), "text_pooling": "mean"})
    model = FlapModel(config).train()
    flops = StepFlops(model)
    model(input_features=mels(2), input_ids=torch.ones(2, 7, dtype=torch.long))
    assert math.isnan(flops.take())
    assert math.isnan(flops.take())


def test_counting_leaves_random_numbers_alone() -> None:
    step = make_step()
    flops = StepFlops(step.model)
    step.backward(STEP, batches(step))
    before = torch.get_rng_state()
    assert flops.take() > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_mfu_is_in_the_history_and_changes_no_result(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = project(corpus, epochs=2, dropout=0.1).joinpath("data")

    def train(folder: str) -> tuple[dict[str, torch.Tensor], list[str]]:
        trainer, cells = trainer_of(data, ALONE), list[str]()
        trainer.run(data / folder, lambda row: cells.append(row["mfu"]))
        return trainer.full_model().state_dict(), cells

    weights, cells = train("unknown")
    assert set(cells) == {""}
    monkeypatch.setenv("FLAP_PEAK_TFLOPS", "0.5")
    others, cells = train("known")
    assert all(0 < float(cell) < 1 for cell in cells)
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name


def test_mfu_is_the_share_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAP_PEAK_TFLOPS", "2")
    clock = iter([10.0, 10.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    meter = StepMeter(CPU, lambda: 10**11)
    meter.start()
    assert meter.stop(8).mfu == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("Tesla V100-SXM2-16GB", 125),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA B200", 2250),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
    ],
)
def test_peaks_of_known_cards(
    monkeypatch: pytest.MonkeyPatch, card: str, tflops: float | None
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: card)
    found = peak_flops(torch.device("cuda", 0))
    assert math.isnan(found) if tflops is None else found == tflops * 1e12


def test_the_environment_names_the_peak_of_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert math.isnan(peak_flops(CPU))
    monkeypatch.setenv("FLAP_PEAK_TFLOPS", "1.5")
    assert peak_flops(CPU) == 1.5e12
    for wrong in ("fast", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("FLAP_PEAK_TFLOPS", wrong)
        with pytest.raises(UserError, match=f"FLAP_PEAK_TFLOPS={wrong}"):
            peak_flops(CPU)
