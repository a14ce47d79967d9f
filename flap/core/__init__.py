"""What every stage uses: parameters, tables, shards, unfinished work, executors, processes."""
