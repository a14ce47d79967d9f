"""Reading MELS, in place or from a store: stubs, copies within a size limit, and single rows."""
