#!/usr/bin/env bash
#SBATCH --job-name=svit
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@180
# sbatch [--nodes=N ...] slurm.sh ARGUMENTS...: `svit train ARGUMENTS`, from the checkout, with .venv.
#
# A task for each GPU: on Slurm JAX gives every process the one GPU of its number on the node. Three
# minutes before the time is up SIGTERM lets the run save; what a new start mends is queued again, up
# to MAX_RESTARTS times: srun tells the largest code alone, and one task's 1 hides behind others' 76.
# PROGRAM=tpu_scripts.experiments runs that in the place of `svit train`.
set -uo pipefail
if [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "slurm.sh: this is no job of Slurm; start it as sbatch --nodes=N slurm.sh ARGUMENTS..." >&2
    exit 2
fi
read -ra program <<<"${PROGRAM:-svit_jax.cli train}"
srun --kill-on-bad-exit=0 .venv/bin/python -m "${program[@]}" "$@"
code=$?
case $code in
75 | 76 | 137 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_RESTARTS:-10}" ]; then
        echo "ended with $code: queued again"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
esac
exit "$code"
