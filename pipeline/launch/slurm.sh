#!/bin/bash
# Run the whole graph on a Slurm cluster. The nodes share this folder with its .venv:
#
#   sbatch --nodes=4 --gpus-per-node=8 --time=2-00 pipeline/launch/slurm.sh
#
# Options of sbatch override those below. A job that was killed or preempted and is queued again
# resumes from its finished shards or its last checkpoint.
#SBATCH --job-name=flap
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --output=slurm-%j.log
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH"

dvc repro audit tagger captions # the inputs of training, on the first node
if ! dvc status --quiet pretrain; then
  # srun starts one launcher on each node. Slurm's variables connect the launchers. Only the first
  # launcher runs under DVC.
  # shellcheck disable=SC2016
  srun --ntasks-per-node=1 bash -c '
    if [ "$SLURM_NODEID" = 0 ]; then exec dvc repro --single-item pretrain; fi
    exec python -m pipeline.launch.join'
fi
dvc repro
