#!/bin/bash
# Install what a fresh Debian 12 machine lacks for this project, start Docker, make the base image.
# Run it as root as often as you like: what is there already is left alone.
#
#   DOCKERD_LOG   log of the dockerd that this script starts (default /var/log/jupyter-sandbox-dockerd.log)
set -euo pipefail

LOG=${DOCKERD_LOG:-/var/log/jupyter-sandbox-dockerd.log}
BASE=debian:bookworm-slim
# chromium and a font of each kind: tests/browser. postgresql: tests/postgresql start one of their own.
PACKAGES=(docker.io runsc mmdebstrap bubblewrap ca-certificates debian-archive-keyring
    chromium fonts-dejavu-core fonts-liberation postgresql)
DAEMON_SETTINGS=/etc/docker/daemon.json

say() { echo "bootstrap: $*"; }

# A client of another version may lie earlier on PATH (/usr/local/bin): it speaks the daemon's version.
docker_answers() { timeout 10 docker info >/dev/null 2>&1; }

install_packages() {
    local package missing=()
    for package in "${PACKAGES[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' \
            || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Wait for another apt instead of failing: a new machine may still be configuring itself.
    apt-get -o DPkg::Lock::Timeout=120 -qq update
    apt-get -o DPkg::Lock::Timeout=120 -qq install --yes --no-install-recommends "${missing[@]}" \
        >/dev/null
}

# A pid file that outlived its daemon (a machine that was switched off) names a process that may be
# something else by now; the daemon would then refuse to start.
remove_stale_pid_file() {
    local file=$1 name=$2 pid
    [ -f "$file" ] || return 0
    pid=$(cat "$file")
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] || rm -f "$file"
}

# Make Docker know gVisor as the runtime "runsc". dockerd takes new runtimes on SIGHUP, without a
# restart. host-uds: the guest connects to the server's socket. network: Debian's runsc of 2022 takes
# every network namespace of a new kernel for the host's and refuses; sandboxes have no network anyway.
register_gvisor() {
    [ -f "$DAEMON_SETTINGS" ] && grep -q '"runsc"' "$DAEMON_SETTINGS" && return
    say "registering runsc in $DAEMON_SETTINGS"
    mkdir -p "$(dirname "$DAEMON_SETTINGS")"
    python3 - "$DAEMON_SETTINGS" <<'END'
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
settings = json.loads(path.read_text()) if path.exists() else {}
settings.setdefault("runtimes", {})["runsc"] = {
    "path": "/usr/bin/runsc",
    "runtimeArgs": ["--host-uds=open", "--network=none"],
}
path.write_text(json.dumps(settings, indent=2) + "\n")
END
}

knows_gvisor() { docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"runsc"'; }

# Up to 60 seconds; gives up at once when the daemon has ended (pid 0: one that we did not start).
wait_for_docker() {
    local pid=$1 deadline=$((SECONDS + 60))
    while ((SECONDS < deadline)); do
        docker_answers && return 0
        [ "$pid" = 0 ] || kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.5
    done
    return 1
}

# Plain dockerd copes with cgroup v1 and v2. Where the kernel has no netfilter, no bridge can be made:
# sandboxes have no network and the image is built on the host's, so nothing here misses it.
# --bridge=none also deletes docker0, so it must stay the second choice, and never run beside another
# daemon. Where overlay cannot be stacked (a container on overlay), vfs works: slow, with one
# copy for each layer.
start_docker() {
    local pid flags no_bridge="--iptables=false --ip6tables=false --bridge=none"
    for flags in "" "$no_bridge" "$no_bridge --storage-driver=vfs"; do
        remove_stale_pid_file /var/run/docker.pid dockerd
        remove_stale_pid_file /var/run/docker/containerd/containerd.pid containerd
        say "starting dockerd $flags (log: $LOG)"
        # A session of its own and no inherited streams: it survives this script, and nobody who reads
        # this script's output waits for it.
        # shellcheck disable=SC2086  # flags are words
        setsid nohup dockerd $flags >>"$LOG" 2>&1 </dev/null &
        pid=$!
        disown
        wait_for_docker "$pid" && return
        kill "$pid" 2>/dev/null || true
        # Two daemons must not share /var/lib/docker: the next try waits for the end of this one.
        for _ in $(seq 20); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.5
        done
    done
    say "dockerd does not start; the end of $LOG:"
    tail -n 30 "$LOG"
    return 1
}

# The same as `jupyter sandbox build-image --bootstrap-base` does (jupyter_sandbox/cli/base_image.py):
# here without Python packages, so that tests of the engine have an image before anything is installed.
# apt in the image has the sources of this host: their hosts are what the egress preset allows.
make_base_image() {
    local name excludes=() sources=/etc/apt/sources.list.d/debian.sources
    [ -s "$sources" ] || sources=/etc/apt/sources.list
    docker image inspect "$BASE" >/dev/null 2>&1 && return
    say "making $BASE with mmdebstrap"
    for name in doc info lintian locale man; do
        excludes+=("--dpkgopt=path-exclude=/usr/share/$name/*")
    done
    mmdebstrap --quiet --variant=minbase --include=ca-certificates "${excludes[@]}" \
        '--dpkgopt=path-include=/usr/share/doc/*/copyright' bookworm - "$sources" \
        | docker import - "$BASE" >/dev/null
}

if [ "$(id -u)" != 0 ]; then
    say "must run as root"
    exit 1
fi
install_packages
register_gvisor
if ! docker_answers; then
    pid=$(cat /var/run/docker.pid 2>/dev/null || echo 0)
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
        say "a dockerd is starting already"
        wait_for_docker "$pid" || { say "process $pid does not answer"; exit 1; }
    else
        start_docker
    fi
fi
if ! knows_gvisor; then  # a daemon that was running already
    pid=$(cat /var/run/docker.pid 2>/dev/null || echo 0)
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] && kill -HUP "$pid"
    for _ in $(seq 20); do
        knows_gvisor && break
        sleep 0.5
    done
    knows_gvisor || { say "Docker does not know the runtime runsc of $DAEMON_SETTINGS"; exit 1; }
fi
make_base_image
say "ready: Docker $(docker version --format '{{.Server.Version}}'), $BASE"
