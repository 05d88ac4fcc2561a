#!/bin/bash
# Trains on several nodes and continues by itself after preemption or the end of the time limit.
#   sbatch docs/cluster/slurm.sh --model mobilenet_v2 --dataset /data/flowers --out /shared/runs/flowers
#SBATCH --job-name=lightnets
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -u

port=2222
workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/:$port/" | paste -sd, -)
export workers

# SIGTERM makes all workers save after the same step. `--resume` without a directory continues
# the run in --out, or starts it. One dead worker ends the step for all.
srun --kill-on-bad-exit=0 bash -c \
  'exec lightnets train "$@" --resume --workers "$workers" --worker-index "$SLURM_PROCID"' \
  lightnets "$@"
code=$?

# 143: told to stop, and saved.
if [ "$code" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
