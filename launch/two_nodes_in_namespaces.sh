#!/usr/bin/env bash
# Two nodes on one Linux machine, to try a cluster's behaviour without one: two network namespaces joined by a cable
# (veth), one torchrun in each, CPU only. Needs root (for `ip netns`); cleans up after itself.
#
#   sudo RUN=NAME launch/two_nodes_in_namespaces.sh [words of `train.py fit`]
#
# Without words it trains a small quickstart. In another terminal, end a node or pull its cable and watch the other:
#
#   sudo launch/two_nodes_in_namespaces.sh kill 1      # kill -9 of all that runs on node 1
#   sudo launch/two_nodes_in_namespaces.sh cut 1       # pull node 1's cable; `mend 1` plugs it in again
#   sudo RUN=NAME launch/two_nodes_in_namespaces.sh start 1 [words]   # node 1 comes back
#
# Settings (environment):
#   RUN       name of the run, by default two-nodes
#   LAUNCHER  nodes_elastic.sh (the default; survives the loss of node 1) or nodes_static.sh
#   PREFIX    of the namespaces' names, by default ocrnet
#   RUNS, PYTHON, RESTARTS  see attempt.sh and nodes_elastic.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RUN="${RUN:-two-nodes}" PROCESSES=1 RESTARTS="${RESTARTS:-10}"
launcher="${LAUNCHER:-nodes_elastic.sh}"
prefix="${PREFIX:-ocrnet}"

# Words that let two idle cores train it in minutes; later words win.
small=(--config configs/quickstart.yaml --config configs/overlays/distributed/ddp.yaml
    --data.train.init_args.length 64 --data.val.init_args.length 8 --data.size 64 --data.batch_size 4
    --trainer.check_val_every_n_epoch 1 --trainer.max_epochs 20 --trainer.enable_progress_bar false)

node() {
    local number="$1"
    shift
    # gloo and the rendezvous have to take the cable, not whatever the machine's host name leads to.
    export GLOO_SOCKET_IFNAME="$prefix$number" TP_SOCKET_IFNAME="$prefix$number" LOCAL_ADDR="10.77.0.$((number + 1))"
    export HEAD=10.77.0.1 NODE="$number" IS_HEAD=$((number == 0)) OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    if [[ "$launcher" == nodes_static.sh ]]; then export NODES=2; else export NODES=1:2; fi
    exec ip netns exec "$prefix-$number" "launch/$launcher" "${small[@]}" --trainer.accelerator cpu "$@"
}

clean() {
    for number in 0 1; do
        # shellcheck disable=SC2046 # one word for each process
        kill -9 $(ip netns pids "$prefix-$number" 2>/dev/null) 2>/dev/null || true
        ip netns delete "$prefix-$number" 2>/dev/null || true
    done
}

case "${1:-}" in
    # shellcheck disable=SC2046
    kill) kill -9 $(ip netns pids "$prefix-$2") && exit ;;
    cut) ip -n "$prefix-$2" link set "$prefix$2" down && exit ;;
    mend) ip -n "$prefix-$2" link set "$prefix$2" up && exit ;;
    start) number="$2" && shift 2 && node "$number" "$@" ;;
esac

trap clean EXIT
trap 'exit 130' INT TERM
for number in 0 1; do ip netns add "$prefix-$number"; done
ip link add "${prefix}0" netns "$prefix-0" type veth peer name "${prefix}1" netns "$prefix-1"
for number in 0 1; do
    ip -n "$prefix-$number" address add "10.77.0.$((number + 1))/24" dev "$prefix$number"
    ip -n "$prefix-$number" link set "$prefix$number" up
    ip -n "$prefix-$number" link set lo up
done

node 1 "$@" &
second=$!
status=0
(node 0 "$@") || status=$?
echo "node 0 ended with status $status" >&2
# The other one ends by itself, or has been killed.
status_of_second=0
wait "$second" || status_of_second=$?
echo "node 1 ended with status $status_of_second" >&2
exit "$status"
