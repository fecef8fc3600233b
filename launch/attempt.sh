#!/usr/bin/env bash
# One process of a run that may be restarted: torchrun, SLURM and Kubernetes run this on every GPU.
#
#   RUN=NAME launch/attempt.sh --config C [more words of `train.py fit`]
#
# Every start writes into its own folder, runs/<RUN>/<name in the config>/attempt-<N>. A start after the first one
# continues from the newest last.ckpt of those before it, and no longer starts from --init_from. All processes look before
# the first of them writes, so they agree; several nodes need the same runs folder, on shared storage.
#
# Settings (environment):
#   RUN      name of the run: the same at every start, different for every run
#   RUNS     folder of all runs, by default `runs`; from the repository's root, or absolute
#   PYTHON   by default `python`
set -euo pipefail
: "${RUN:?set RUN to the name of the run}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root="${RUNS:-runs}/$RUN"

# By number, not by time: the clocks of nodes differ.
last=-1
newest=""
newest_number=-1
for folder in "$root"/*/attempt-*; do
    number="${folder##*/attempt-}"
    [[ -d "$folder" && "$number" =~ ^[0-9]+$ ]] || continue
    number=$((10#$number))
    ((number <= last)) || last=$number
    if [[ -f "$folder/checkpoints/last.ckpt" ]] && ((number > newest_number)); then
        newest="$folder/checkpoints/last.ckpt"
        newest_number=$number
    fi
done
words=(--trainer.default_root_dir "$root" --version "$(printf 'attempt-%03d' $((last + 1)))")
rank="${RANK:-${SLURM_PROCID:-0}}"
if [[ -n "$newest" ]]; then
    # What only the first start begins from, which a command line may not name as well.
    words+=(--ckpt_path "$newest" --init_from null)
    [[ "$rank" != 0 ]] || echo "attempt $((last + 1)) continues from $newest" >&2
fi
# The launcher knows the number of processes; after a restart there may be fewer.
if [[ -n "${LOCAL_WORLD_SIZE:-}" ]]; then
    words+=(--trainer.devices "$LOCAL_WORLD_SIZE" --trainer.num_nodes "$((WORLD_SIZE / LOCAL_WORLD_SIZE))")
elif [[ -n "${SLURM_NTASKS_PER_NODE:-}" ]]; then
    words+=(--trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.num_nodes "$SLURM_NNODES")
fi
exec "${PYTHON:-python}" train.py fit "$@" "${words[@]}"
