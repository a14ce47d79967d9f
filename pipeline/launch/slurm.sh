#!/bin/bash
# The whole graph on a Slurm cluster whose nodes share this folder, with its .venv:
#
#   sbatch --nodes=4 --gpus-per-node=8 --time=2-00 pipeline/launch/slurm.sh
#
# Options given to sbatch win over those below. A job that is killed or preempted goes on, when
# it is queued again, from its finished shards or its last checkpoint.
#SBATCH --job-name=flap
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --output=slurm-%j.log
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH"

dvc repro audit tagger captions # what training needs, on the first node
if ! dvc status --quiet pretrain; then
  # One launcher a node finds the others by Slurm's variables; only the first goes through DVC.
  # shellcheck disable=SC2016
  srun --ntasks-per-node=1 bash -c '
    if [ "$SLURM_NODEID" = 0 ]; then exec dvc repro --single-item pretrain; fi
    exec python -m pipeline.launch.join'
fi
dvc repro
