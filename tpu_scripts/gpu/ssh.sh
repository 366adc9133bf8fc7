#!/usr/bin/env bash
# One run on machines that ssh reaches, one process a machine with all its GPUs:
#   ssh.sh start HOSTS FOLDER ARGUMENTS...   `svit train ARGUMENTS` on all of them
#   ssh.sh state|stop|log HOSTS FOLDER       what each says; SIGTERM, so that it saves; its last lines
# HOSTS is a file with a name a line, the first one's port 8476 reachable from the others; FOLDER is
# this checkout on each of them, with .venv in it. The workdir must be shared by all.
# PROGRAM=tpu_scripts.experiments runs that in the place of `svit train`.
set -euo pipefail
wrong() {
    echo "ssh.sh: $1" >&2
    exit 2
}
[ $# -ge 3 ] || wrong "give start, state, stop or log, a file of hosts, and this checkout's folder on them."
action=$1 file=$2 folder=$3
shift 3
case $action in
start | state | stop | log) ;;
*) wrong "$action is not a command; give start, state, stop or log." ;;
esac
[ -r "$file" ] || wrong "the file of hosts, $file, cannot be read; give one with a name a line."
mapfile -t hosts < <(grep -v '^ *$' "$file")
[ ${#hosts[@]} -gt 0 ] || wrong "the file of hosts, $file, is empty; give one with a name a line."
read -ra program <<<"${PROGRAM:-svit_jax.cli train}"
code=0
for index in "${!hosts[@]}"; do
    command=(bash tpu_scripts/host/job.sh "$action")
    if [ "$action" = start ]; then
        command+=(.venv/bin/python -m "${program[@]}" "--coordinator=${hosts[0]}:8476"
            "--processes=${#hosts[@]}" "--process=$index" "$@")
    fi
    printf -v quoted '%q ' "${command[@]}"
    printf '%s: ' "${hosts[index]}"
    # -n: ssh would read the terminal, and BatchMode: nobody is there to type a password.
    ssh -n -o BatchMode=yes "${hosts[index]}" "cd $(printf %q "$folder") && $quoted" || code=1
done
exit "$code"
