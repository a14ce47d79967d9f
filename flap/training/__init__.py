"""The mechanics of training: data order, batches, schedule, ranks, checkpoints."""
