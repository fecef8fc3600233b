#!/usr/bin/env bash
# All GPUs of one machine; after a process dies, all are restarted, up to RESTARTS times, from the last checkpoint.
#
#   RUN=NAME launch/one_machine.sh --config C [--config configs/overlays/distributed/ddp.yaml ...]
#
# Settings (environment):
#   RUN        name of the run
#   PROCESSES  by default `gpu`, one for each GPU; a number without GPUs (add --trainer.accelerator cpu)
#   RESTARTS   by default 3; 0 to stop at the first failure
#   RUNS, PYTHON  see attempt.sh
set -euo pipefail
: "${RUN:?set RUN to the name of the run}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# torch 2.15 keeps the processes' addresses in a store that outlives them. Restarted processes find them there and
# connect to ports that no longer exist; with a separate store for each start it works.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Seconds that processes have to save after SIGTERM before torchrun kills them, by default 30; an older torch ignores it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"
exec "${PYTHON:-python}" -m torch.distributed.run --standalone \
    --nproc-per-node "${PROCESSES:-gpu}" --max-restarts "${RESTARTS:-3}" \
    --no-python launch/attempt.sh "$@"
