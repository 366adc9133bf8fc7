#!/usr/bin/env bash
# The one job of a host. It outlives the connection that starts it.
#   job.sh start COMMAND...   starts it, unless it runs already
#   job.sh state              prints "svit-job HOST running|none|ended [EXIT CODE]"
#   job.sh stop               SIGTERM, so that it saves; SIGKILL after the seconds of STOP_SECONDS (120)
#   job.sh log [LINES]        the last lines of what it wrote
set -euo pipefail
run=$HOME/svit/run
mkdir -p "$run"

alive() {
    [ -e "$run/pid" ] && kill -0 "$(cat "$run/pid")" 2>/dev/null
}

start() {
    if alive; then
        echo "runs already as process $(cat "$run/pid")"
        return
    fi
    rm -f "$run/exit_code" "$run/pid"
    printf '\n=== %s: %s\n' "$(date -u +%FT%TZ)" "$*" >>"$run/log"
    # In a session of its own: neither the hang-up of this connection nor Ctrl-C reaches it.
    # shellcheck disable=SC2016
    RUN=$run setsid bash -c '
        "$@" &
        echo $! >"$RUN/pid"
        code=0
        wait $! || code=$?
        echo "$code" >"$RUN/exit_code.partial"
        mv "$RUN/exit_code.partial" "$RUN/exit_code"
    ' job "$@" >>"$run/log" 2>&1 </dev/null &
    for _ in $(seq 100); do
        [ -e "$run/pid" ] && break
        sleep 0.1
    done
    echo "started as process $(cat "$run/pid")"
}

state() {
    # Between the end of the command and the writing of its exit code there is a moment.
    [ -e "$run/exit_code" ] || alive || sleep 1
    if [ -e "$run/exit_code" ]; then
        echo "svit-job $(hostname) ended $(cat "$run/exit_code")"
    elif alive; then
        echo "svit-job $(hostname) running"
    elif [ -e "$run/pid" ]; then
        # Whoever was to write its exit code is gone too: the host was restarted.
        echo "svit-job $(hostname) ended 137"
    else
        echo "svit-job $(hostname) none"
    fi
}

stop() {
    alive || return 0
    pid=$(cat "$run/pid")
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in $(seq "$((10 * ${STOP_SECONDS:-120}))"); do
        alive || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

action=$1
shift
case $action in
start) start "$@" ;;
state) state ;;
stop) stop ;;
log) tail -n "${1:-200}" "$run/log" ;;
*)
    echo "job.sh: there is no '$action'" >&2
    exit 2
    ;;
esac
