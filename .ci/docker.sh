# shellcheck shell=sh disable=SC2154 # `home` and `log` are set there
# Docker and the base image, for `setup`, which reads this file: a daemon that answers, and an image from
# which containers run. Uses the words that are defined there.

docker_log=$home/log/dockerd.log
docker_pid=$home/dockerd.pid

docker_answers() { have docker && timeout 10 docker version >/dev/null 2>&1; }

# Mounts the hierarchies of control groups where a small machine's own init has left them out.
mount_cgroups() {
    groups=/sys/fs/cgroup
    if [ ! -e /proc/cgroups ] || [ -s $groups/cgroup.controllers ]; then return 0; fi
    if ! mountpoint -q $groups; then
        # The unified one has all controllers, or none where something else holds them.
        if mount -t cgroup2 none $groups 2>/dev/null; then
            if [ -s $groups/cgroup.controllers ]; then return 0; fi
            umount $groups
        fi
        mount -t tmpfs -o mode=755 none $groups || return 1
    fi
    awk '!/^#/ && $4 == 1 { print $1 }' /proc/cgroups | while read -r controller; do
        mkdir -p "$groups/$controller"
        mountpoint -q "$groups/$controller" || mount -t cgroup -o "$controller" none "$groups/$controller" || true
    done
}

# Puts the older kind of packet filter first on the path of the daemon, and leaves the system's choice alone.
use_legacy_filter() {
    mkdir -p "$home/filter"
    for name in iptables ip6tables; do
        ln -sf "$(command -v "$name-legacy")" "$home/filter/$name"
    done
    dockerd_path=$home/filter:$PATH
}

# Starts the daemon in the background and waits until it answers. Fails when it ends or takes too long.
launch_dockerd() {
    : >"$docker_log"
    # shellcheck disable=SC2086 # the options are words
    PATH=$dockerd_path setsid nohup dockerd $dockerd_options </dev/null >>"$docker_log" 2>&1 9>&- &
    pid=$!
    echo "$pid" >"$docker_pid"
    for _ in $(seq 60); do
        if docker_answers; then return 0; fi
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.5
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    echo 'the daemon does not answer after 30 s' >>"$docker_log"
    return 1
}

# Why the daemon could not start, in its own words.
why_no_docker() {
    grep -iE 'failed to start|level=(fatal|error)|does not answer|denied|not permitted' "$docker_log" | tail -n 1 |
        sed -e 's/^time=[^ ]* *//' -e 's/^level=[a-z]* *//' -e 's/^msg=//' | cut -c 1-300
}

# Starts a daemon. Kernels and containers lack different things, so that each failure says what to try next,
# and each is tried once.
start_dockerd() {
    if [ -d /run/systemd/system ]; then
        quietly dockerd 'starting Docker' systemctl enable --now docker && docker_answers
        return
    fi
    printf '  %-12s %s ...\n' '' "starting dockerd, log in $docker_log"
    dockerd_options=''
    dockerd_path=$PATH
    tried=''
    while ! launch_dockerd; do
        if complains_of iptables && have iptables-legacy && untried legacy-iptables; then
            use_legacy_filter
        elif complains_of iptables && untried no-iptables; then
            say '               no packet filter can be used: containers will reach each other by address only'
            dockerd_options="$dockerd_options --iptables=false --ip-masq=false"
        elif complains_of cgroup && untried cgroups; then
            quietly cgroups 'mounting control groups' mount_cgroups || true
        elif complains_of 'graphdriver|storage-driver|overlay' && untried vfs; then
            dockerd_options="$dockerd_options --storage-driver=vfs"
        else
            return 1
        fi
    done
}

complains_of() { grep -E 'failed to start|level=(fatal|error)' "$docker_log" | grep -qiE "$1"; }

# Whether this has not been tried yet; now it has.
untried() {
    case " $tried " in *" $1 "*) return 1 ;; esac
    tried="$tried $1"
}

docker_engine() {
    if docker_answers; then
        found Docker "$(docker version --format '{{.Server.Version}}')"
        return 0
    fi
    if [ -n "${DOCKER_HOST:-}" ]; then
        missing Docker "nothing answers at DOCKER_HOST=$DOCKER_HOST"
        return 0
    fi
    if have docker && [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; then
        missing Docker "$(id -un) may not use /var/run/docker.sock: run as root, or join the group that owns it"
        return 0
    fi
    if ! is_root; then
        missing Docker "$(ask_for docker.io), then run ./setup as root once, or start dockerd"
        return 0
    fi
    if ! have dockerd || ! have docker; then
        # Newer releases have the client in a package of its own.
        packages docker.io || true
        if ! have docker; then packages docker-cli || true; fi
    fi
    if ! have dockerd || ! have docker; then
        missing Docker "$(ask_for docker.io)"
    elif start_dockerd; then
        found Docker "$(docker version --format '{{.Server.Version}}')${tried:+ (it needed:$tried)}"
    else
        missing Docker "dockerd does not start here: $(why_no_docker)"
    fi
}

# ---- base image --------------------------------------------------------------------------------------

IMAGE=orchestrator-base:bookworm
IMAGE_SUITE=bookworm
# What a node needs beside the smallest system: to look at its network and processes, and to speak TLS.
IMAGE_PACKAGES=ca-certificates,iproute2,procps

have_image() { docker image inspect "$IMAGE" >/dev/null 2>&1; }

# Pulls an image, and gives up soon where no registry answers: the first line comes only from an answer.
pull() {
    docker pull "$1" </dev/null 9>&- &
    pid=$!
    for _ in $(seq 20); do
        kill -0 "$pid" 2>/dev/null || break
        if grep -q 'Pulling from' "$log"; then
            wait "$pid"
            return
        fi
        sleep 0.5
    done
    if kill "$pid" 2>/dev/null; then echo 'no image registry answers'; fi
    wait "$pid"
}

# From the registry: the distribution's image, with the packages that a node needs.
image_from_registry() {
    pull "debian:$IMAGE_SUITE-slim" || return 1
    container=$(docker create "debian:$IMAGE_SUITE-slim" sh -c "apt-get update && \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(echo "$IMAGE_PACKAGES" | tr , ' ') && \
        rm -rf /var/lib/apt/lists/*") || return 1
    status=0
    docker start --attach "$container" && docker commit --change 'CMD ["bash"]' "$container" "$IMAGE" || status=1
    docker rm --force "$container"
    return $status
}

# The mirror that this machine uses, if it is one of the right distribution.
debian_mirror() {
    # shellcheck disable=SC2016 # these are apt's variables
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1
}

# From the distribution's packages.
image_from_packages() {
    mirror=$(debian_mirror)
    proxy=$(apt-config shell proxy Acquire::http::Proxy | sed -n "s/^proxy='\(.*\)'$/\1/p")
    # Without a mirror the tool takes the distribution's own; it needs that one's key on another distribution.
    mmdebstrap --variant=minbase --include="$IMAGE_PACKAGES" \
        ${proxy:+--aptopt="Acquire::http { Proxy \"$proxy\"; }"} \
        "$IMAGE_SUITE" "$home/image.tar" ${mirror:+"$mirror"} || return 1
    status=0
    docker import --change 'CMD ["bash"]' "$home/image.tar" "$IMAGE" || status=1
    rm -f "$home/image.tar"
    return $status
}

image_runs() { docker run --rm --network none "$IMAGE" true; }

base_image() {
    if ! docker_answers; then
        missing 'base image' 'it needs Docker'
        return 0
    fi
    if ! have_image && ! quietly image-pull "fetching debian:$IMAGE_SUITE-slim" image_from_registry; then
        if ! have mmdebstrap; then packages mmdebstrap || true; fi
        [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages debian-archive-keyring || true
        if have mmdebstrap; then
            quietly image-make "making an image from packages of $IMAGE_SUITE" image_from_packages || true
        fi
    fi
    if ! have_image; then
        missing 'base image' "neither a registry nor the distribution's packages gave one; docker tag one of your own as $IMAGE"
    elif quietly image-run 'trying it' image_runs; then
        found 'base image' "$IMAGE"
    else
        missing 'base image' "containers do not run here: $(tail -n 1 "$home/log/image-run.log" | cut -c 1-300)"
    fi
}
