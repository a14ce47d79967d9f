"""Sections on what goes with the steps: precision, the loader, log-mels, ranks."""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from benchmarks.gpu.setting import Setting, captions_of
from benchmarks.gpu.speed import Bench
from benchmarks.gpu.training import CPU, Speed, Training, release, speed_of
from benchmarks.loader import write_noise
from benchmarks.scoring import embeddings
from flap.audio.fbank import fbank as fbank_on
from flap.model.flap import FlapModel
from flap.model.masking import draw_mask
from flap.pretrain.inputs import InputBuilder
from flap.pretrain.objective import global_contrastive_loss
from flap.retrieval.positives import own_captions
from flap.retrieval.ranks import rank_right_answers

CAPTIONS_OF_CLIP = 5
Gradients = dict[str, torch.Tensor]


def ceilings(bench: Bench) -> None:
    """Peak rates of this card: matrix products, and copies from the CPU."""
    device, size = bench.setting.device, 256 if bench.setting.tiny else 8192
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    windows = bench.setting.windows(bench.setting.batch).mel_BCTF
    pinned = windows.pin_memory() if device.type == "cuda" else windows

    def copied(tensor: torch.Tensor) -> float:
        return tensor.nbytes / _seconds(lambda: _done(tensor.to(device)), rounds=5) / 1e9

    product = _seconds(lambda: _done(left @ right), rounds=20)
    found = {"matmul_bf16_tflops": 2 * size**3 / product / 1e12}
    found |= {"to_gpu_gb_a_second": copied(windows), "pinned_gb_a_second": copied(pinned)}
    bench.report.note("ceilings", **found)


def _done(result: torch.Tensor) -> None:
    """Wait until the device has computed `result`."""
    if result.is_cuda:
        torch.cuda.synchronize()


def precision(bench: Bench) -> None:
    """Errors against float32 on the CPU. Without a GPU, bf16 is autocast on the CPU."""
    setting = bench.setting
    release(setting.device)
    model = setting.fresh_model(dropout=False).train()
    arguments = _arguments(bench, model)
    loss, gradients = _loss_and_gradients(model, arguments, CPU, bf16=False)
    for name, bf16 in (("bf16", True), ("fp32", False)):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            other, theirs = _loss_and_gradients(model, arguments, setting.device, bf16=bf16)
        bench.report.ratios[f"loss_error_{name}"] = abs(other / loss - 1)
        bench.report.ratios[f"gradient_error_{name}"] = _error(theirs, gradients)
        parts = {
            part: _error(*({n: g for n, g in of.items() if n.startswith(part)} for of in both))
            for both in ((theirs, gradients),)
            for part in ("audio_encoder", "text_encoder", "audio_head", "text_head")
        }
        bench.report.note("precision", **{name: parts}, loss=loss, pairs=setting.precise_batch)


def _arguments(bench: Bench, model: FlapModel) -> dict[str, torch.Tensor]:
    """Arguments of the model for a small masked batch, on the CPU."""
    setting = bench.setting
    pairs = setting.precise_batch
    mask = setting.pretrain("2d", pairs).mask
    torch.manual_seed(0)
    keep_BK = draw_mask(mask, setting.encoder.grid, pairs, torch.Generator().manual_seed(0))
    windows = setting.windows(pairs)
    inputs = InputBuilder(setting.tokenizer, model.config, CPU)
    return inputs.build(windows, captions_of(pairs, setting.tokens), keep_BK)


def _loss_and_gradients(
    model: FlapModel, arguments: dict[str, torch.Tensor], device: torch.device, *, bf16: bool
) -> tuple[float, Gradients]:
    """Computed on `device`; the gradients on the CPU."""
    model = model.to(device)
    model.zero_grad(set_to_none=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        output = model(**{name: tensor.to(device) for name, tensor in arguments.items()})
    loss = global_contrastive_loss(output)
    loss.backward()
    found = {
        n: w.grad.to(CPU, copy=True) for n, w in model.named_parameters() if w.grad is not None
    }
    return loss.item(), found


def _error(ours: Gradients, theirs: Gradients) -> float:
    """‖ours - theirs‖ / ‖theirs‖ over all of them."""
    difference = sum(_square(ours[name] - theirs[name]) for name in theirs)
    return (difference / sum(_square(each) for each in theirs.values())) ** 0.5


def _square(values: torch.Tensor) -> float:
    return values.double().square().sum().item()


def loader(bench: Bench) -> None:
    compiled = bench.is_measured("2d", compiled=True)
    speed, waited = _from_disk(bench.setting, compiled)
    fed = bench.speed("2d", compiled=compiled)
    bench.report.ratios["data_wait"] = waited
    bench.report.ratios["loaded"] = speed.clips_per_second / fed.clips_per_second
    workers = bench.setting.loader_workers
    bench.report.note("loader", **speed.as_dict(), compiled=compiled, workers=workers)


def fused(bench: Bench) -> None:
    compiled = bench.is_measured("2d", compiled=True)
    speed, waited = _from_disk(dataclasses.replace(bench.setting, fusion=True), compiled)
    fed = bench.speed("2d", compiled=compiled)
    bench.report.ratios["fused_data_wait"] = waited
    bench.report.ratios["fused"] = speed.clips_per_second / fed.clips_per_second
    bench.report.note("fused", **speed.as_dict(), compiled=compiled)


def _from_disk(setting: Setting, compiled: bool) -> tuple[Speed, float]:
    """Speed under the 2-D mask, and the share of time that steps waited for data.

    Only the second half of the steps counts: the first half uses batches that were read ahead.
    """
    steps = setting.loader_steps
    with tempfile.TemporaryDirectory() as name:
        table = write_noise(Path(name), setting.corpus)
        table["captions"] = [[each] for each in captions_of(len(table), setting.tokens)]
        training = Training(setting, "2d", batch=setting.batch, compiled=compiled, clips=table)
        first, *readings = training.run(steps, training.from_disk(steps))
    steady = readings[len(readings) // 2 :]
    seconds = [setting.batch / each.pairs_per_second for each in steady]
    waited = sum(each.data_wait * took for each, took in zip(steady, seconds, strict=True))
    return speed_of(steady, setting.batch, first), waited / sum(seconds)


def fbank(bench: Bench) -> None:
    """From waveforms in the CPU's memory to log-mels there."""
    setting, config = bench.setting, bench.setting.audio
    samples = 10 * config.sample_rate_hz
    waveforms = list(0.1 * torch.randn(setting.waveforms, samples))

    def on(device: torch.device) -> list[torch.Tensor]:
        mels = fbank_on(config, device)([waveform.to(device) for waveform in waveforms])
        return [mel_TF.to(CPU) for mel_TF in mels]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one_by_one = fbank_on(config, CPU)
    reference = [one_by_one([waveform])[0] for waveform in waveforms]
    on_cpu = _seconds(lambda: [one_by_one([waveform]) for waveform in waveforms], rounds=1)
    torch.set_num_threads(threads)
    found = on(setting.device)
    on_gpu = _seconds(lambda: on(setting.device), rounds=5)
    numbered = [{str(i): mel for i, mel in enumerate(mels)} for mels in (found, reference)]
    bench.report.ratios["fbank_gpu"] = on_cpu / on_gpu
    bench.report.ratios["fbank_error"] = _error(*numbered)
    rates = {"cpu": len(waveforms) / on_cpu, "gpu": len(waveforms) / on_gpu}
    bench.report.note("fbank", clips_per_second=rates)


def ranking(bench: Bench) -> None:
    """Clips for captions, and captions for clips."""
    clips = bench.setting.ranked_clips
    audio_CE, text_ME = embeddings(clips)
    own_CM = own_captions([[""] * CAPTIONS_OF_CLIP] * clips)

    def on(device: torch.device) -> np.ndarray:
        to_audio = rank_right_answers(text_ME, audio_CE, csr_array(own_CM.T), device)
        return np.concatenate(
            [to_audio.rank_Q, rank_right_answers(audio_CE, text_ME, own_CM, device).rank_Q]
        )

    found: dict[str, Any] = {}
    on_gpu = _seconds(lambda: found.update(gpu=on(bench.setting.device)), rounds=3)
    start = time.perf_counter()
    found["cpu"] = on(CPU)
    on_cpu = time.perf_counter() - start
    differ = found["cpu"] != found["gpu"]
    bench.report.ratios["ranking_gpu"] = on_cpu / on_gpu
    bench.report.ratios["ranking_same"] = 1 - differ.mean()
    most = int(np.abs(found["cpu"] - found["gpu"]).max())
    bench.report.note("ranking", seconds={"cpu": on_cpu, "gpu": on_gpu}, differ_at_most=most)


def _seconds(call: Callable[[], object], rounds: int) -> float:
    """Median of `rounds` calls, which wait for the device, after one that warms up."""
    taken = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return median(taken[1:])
