"""The mechanics of training: data order, batches, learning rate, processes, checkpoints."""

# The launcher sets this variable to a private folder if all ranks run on one machine.
RENDEZVOUS_FOLDER = "FLAP_RANKS_FOLDER"
