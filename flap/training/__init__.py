"""The mechanics of training: data order, batches, schedule, ranks, checkpoints."""

RANKS_FOLDER = "FLAP_RANKS_FOLDER"  # set by the launcher where all ranks are on one machine
