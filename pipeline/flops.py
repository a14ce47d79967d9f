"""Stage `flops`: the sizes of the audio encoder → its GFLOPs under each mask."""

import csv

from flap.core.config import load_section
from flap.core.shards import atomic_path
from flap.flops.config import FlopsConfig
from flap.model.config import EncoderConfig
from pipeline.stage import PARAMS, PathOption, run


def main(out: PathOption) -> None:
    """Count the audio encoder's FLOPs without a mask and with 1-D and 2-D masks."""
    config = load_section(PARAMS, "flops", FlopsConfig)
    encoder = load_section(PARAMS, "encoder", EncoderConfig)

    from flap.flops.count import flops_table  # loads torch: after --help and errors of parameters

    rows = flops_table(encoder, config.batch, config.ratios)
    with atomic_path(out) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(f"flops: {row['mask']} {row['ratio']}: {row['tokens']} tokens, {row['gflops']} G")


if __name__ == "__main__":
    run(main)
