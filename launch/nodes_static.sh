#!/usr/bin/env bash
# A fixed number of nodes. Run it on every node, with its own number:
#
#   RUN=NAME NODES=2 NODE=0 HEAD=node0.cluster launch/nodes_static.sh --config C [...]    # on the first node
#   RUN=NAME NODES=2 NODE=1 HEAD=node0.cluster launch/nodes_static.sh --config C [...]    # on the second
#
# If a process dies, all nodes restart their processes, up to RESTARTS times; if a node dies, the others wait for it
# until their connection times out, and then end. Use nodes_elastic.sh to continue without it.
#
# Settings (environment):
#   RUN        name of the run
#   NODES      how many
#   NODE       this one's number, from 0
#   HEAD       name or address of node 0, reachable from all
#   PORT       on the head, by default 29500; open between the nodes, as are the ports that NCCL chooses
#   PROCESSES  a node, by default `gpu`, one for each GPU
#   RESTARTS   by default 3
#   RUNS, PYTHON  see attempt.sh; RUNS has to be on storage that all nodes share
set -euo pipefail
: "${RUN:?set RUN to the name of the run}" "${NODES:?set NODES to the number of nodes}"
: "${NODE:?set NODE to this node\'s number, from 0}" "${HEAD:?set HEAD to the address of node 0}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# torch 2.15 keeps the processes' addresses in a store that outlives them. Restarted processes find them there and
# connect to ports that no longer exist; with a separate store for each start it works.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Seconds that processes have to save after SIGTERM before torchrun kills them, by default 30; an older torch ignores it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NODES" --node-rank "$NODE" --master-addr "$HEAD" --master-port "${PORT:-29500}" \
    --nproc-per-node "${PROCESSES:-gpu}" --max-restarts "${RESTARTS:-3}" \
    --no-python launch/attempt.sh "$@"
