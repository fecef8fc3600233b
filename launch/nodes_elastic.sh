#!/usr/bin/env bash
# Several nodes of which some may die or join later. The same command on every node, in any order:
#
#   RUN=NAME NODES=1:4 HEAD=node0.cluster launch/nodes_elastic.sh --config C [...]
#
# Training starts with the nodes that are available (at least the first number, at most the second). When one dies or
# joins, all processes are restarted on the current nodes, from the last checkpoint. The head keeps the list of nodes:
# if it dies, the run ends; run it on a node that will not be removed. data.batch_size is that of a process, so with
# fewer nodes a step has fewer images.
#
# Settings (environment):
#   RUN        name of the run
#   NODES      least and most, such as 1:4
#   HEAD       name or address of the node that keeps the list; one of them
#   PORT       on the head, by default 29400
#   PROCESSES  a node, by default `gpu`, one for each GPU
#   RESTARTS   by default 10
#   LOCAL_ADDR this node's address, where its host name does not lead to it
#   IS_HEAD    1 on the head and 0 on the others, where the head does not know itself by HEAD
#   RUNS, PYTHON  see attempt.sh; RUNS has to be on storage that all nodes share
set -euo pipefail
: "${RUN:?set RUN to the name of the run}" "${NODES:?set NODES to the least and the most nodes, such as 1:4}"
: "${HEAD:?set HEAD to the address of the node that keeps the list}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# torch 2.15 does not tell a node that joins later about the store that the others share (its rendezvous keeps what it
# published in the first round), and all fail after a minute; with a separate store for each round it works.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Seconds that processes have to save after SIGTERM before torchrun kills them, by default 30; an older torch ignores it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29400}" --rdzv-id "$RUN" \
    ${LOCAL_ADDR:+--local-addr "$LOCAL_ADDR"} ${IS_HEAD:+--rdzv-conf "is_host=$IS_HEAD"} \
    --nproc-per-node "${PROCESSES:-gpu}" --max-restarts "${RESTARTS:-10}" \
    --no-python launch/attempt.sh "$@"
