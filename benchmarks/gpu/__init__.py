"""What training costs on one GPU: speed under each mask, memory, data, precision.

    python -m benchmarks.gpu [--out gpu.json] [--minutes 7] [--sections step,largest] [--tiny]

ViT-B/16 on windows of 1024 x 128 beside a RoBERTa of base size, fresh weights, clips of 10 s,
captions of 10 to 40 tokens, all else as params.paper.yaml has it but for feature fusion; bf16
autocast. A step is a step of the training loop: windows go to the device, captions are tokenised,
forward, contrastive loss, backward, clipping, optimiser. Speeds are medians over steps. `2d` is
the mask 2-D 0.2/0.2 (306 of 512 tokens), `1d` 1-D 0.4 (307). MFU is as the training loop says it.

Sections, in this order; one that fails is named in `errors`, one without time in `skipped`. Keys
of `ratios`, with what is expected of them:

ceilings, none: what the card does of matrix products, and of copies to it
step, 256 pairs:
    masked_1d, masked_2d    clips a second over unmasked: at least 1.6
    mfu_unmasked, mfu_1d, mfu_2d
largest, the most pairs in memory at a time, to a sixteenth of `step`'s:
    largest_1d, largest_2d  those pairs over unmasked: above 1.5
    largest_masked_1d, largest_masked_2d    clips a second over unmasked, each at its largest:
                            at least 1.6
    mfu_largest_unmasked, mfu_largest_1d, mfu_largest_2d
cached, a batch of 2304 by gradient cache:
    cached_2304             clips a second over `step`'s 2d: about 0.75, a third pass to two
reconstruction, a decoder of 4 blocks of 512 beside:
    reconstruction          clips a second over without: about 0.8
precision, of loss and gradient against float32 on the CPU, ‖a - b‖ / ‖b‖:
    loss_error_bf16, gradient_error_bf16    below 0.01 and 0.1
    loss_error_fp32, gradient_error_fp32    without tf32: below 1e-5 and 1e-3
compiled, `step` by torch.compile as `pretrain.compile` does it:
    compiled_masked_2d      clips a second over unmasked, both compiled: at least 1.6
    compiled_2d, compiled_unmasked          over not compiled: above 1
    mfu_compiled_2d, mfu_compiled_unmasked  at least 0.45
loader, training from MELS on the disk, compiled if that went:
    data_wait               share of the time that steps wait for data: below 0.02
    loaded                  clips a second over the same from memory: above 0.9
fbank:
    fbank_gpu               clips a second over one thread of the CPU
    fbank_error             ‖a - b‖ / ‖b‖: below 1e-4
ranking, 10,000 clips and their 50,000 captions, both ways:
    ranking_gpu             seconds on the CPU over those on the GPU
    ranking_same            share of queries with the same rank: 1 but for rounding, above 0.999
long_captions, of up to 77 tokens:
    long_captions_masked_2d clips a second over unmasked
resident, windows that are on the GPU already:
    resident_2d             clips a second over `step`'s 2d: what copying them costs
fused, `loader` with feature fusion, so with windows of four channels:
    fused_data_wait, fused  as data_wait; clips a second over `step`'s or `compiled`'s 2d
compiled_1d:
    compiled_1d, compiled_masked_1d, mfu_compiled_1d

Beside stand card, versions, seconds and what each section found: clips a second, seconds a step,
peak GiB, the kernels that take the most of a step. `--tiny` is for tests: small sizes, on any
device, and nothing is compiled.
"""
