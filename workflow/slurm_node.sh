#!/usr/bin/env bash
# A SLURM of one node on this machine, for tests: everything it writes lies in one folder.
#
#   workflow/slurm_node.sh start FOLDER     start it, wait until the node is idle, print what to export
#   workflow/slurm_node.sh stop FOLDER      kill its jobs and stop its daemons, by their process ids
#
# What it prints sets SLURM_CONF, and PATH: an srun in the folder puts SLURM_CONF back, which Snakemake's job step takes
# away (on a cluster the configuration lies where SLURM looks for it by itself).
#
# Needs root and Debian's packages slurm-wlm and munge.  Ports are chosen free, so that several may run at once.
set -euo pipefail

usage() { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
mkdir -p "$2"
folder=$(cd "$2" && pwd -P)
conf=$folder/slurm.conf

stop() {
    if [ -s "$folder/slurmctld.pid" ]; then
        SLURM_CONF=$conf timeout 10 scancel --full --signal=KILL --state=RUNNING || true
        SLURM_CONF=$conf timeout 10 scancel --state=PENDING || true
    fi
    for name in slurmd slurmctld munged; do
        stop_one "$name" "$folder/$name.pid"
    done
}

# Ends the process whose id the file holds, if it is still the daemon of that name, and waits until it is gone.
stop_one() {
    local pid
    [ -s "$2" ] || return 0
    pid=$(cat "$2")
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ]; then
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$2"
}

free_ports() {
    python3 -c 'import socket
held = [socket.socket() for _ in range(2)]
[one.bind(("127.0.0.1", 0)) for one in held]
print(*[one.getsockname()[1] for one in held])'
}

configure() {
    local host ctld_port d_port
    host=$(hostname -s)
    read -r ctld_port d_port < <(free_ports)
    mkdir -p "$folder/state" "$folder/spool" "$folder/bin"
    (umask 077 && head -c 1024 /dev/urandom > "$folder/munge.key")
    # Memory is not counted and may be asked for beyond what is there: the jobs of a test are small.
    cat > "$conf" <<CONF
ClusterName=ddlib
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$ctld_port
SlurmdPort=$d_port
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    printf '#!/bin/sh\nSLURM_CONF="%s" exec "%s" "$@"\n' "$conf" "$(command -v srun)" > "$folder/bin/srun"
    chmod +x "$folder/bin/srun"
}

start() {
    for needed in munged slurmctld slurmd sinfo; do
        command -v "$needed" > /dev/null || { echo "$needed is not installed (packages slurm-wlm, munge)" >&2; exit 1; }
    done
    [ "$(id -u)" -eq 0 ] || { echo "the daemons must be started by root" >&2; exit 1; }
    stop
    configure
    export SLURM_CONF=$conf
    if daemons && idle; then
        echo "export SLURM_CONF=$conf PATH=$folder/bin:\$PATH"
    else
        echo "the node did not come up; the ends of its logs:" >&2
        tail -n 5 "$folder"/*.log >&2
        stop
        exit 1
    fi
}

daemons() {
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" &&
        slurmctld -c -f "$conf" && slurmd -N localhost -f "$conf"
}

# Waits up to 30 seconds until the node takes jobs.
idle() {
    for _ in $(seq 60); do
        [ "$(sinfo --noheader --format=%T 2>/dev/null)" != idle ] || return 0
        sleep 0.5
    done
    return 1
}

case $1 in
    start) start ;;
    stop) stop ;;
    *) usage ;;
esac
