# Real SSH servers for tests: containers with sshd, each with a host key of its own.

use bench.nu *

const WORKER = path self ../worker

# The image of the containers: the tests' own with an SSH server and sudo. It is made once and kept under
# the identity of what it was made from.
export def sshd-image []: nothing -> string {
    let base = ^docker image inspect (image) --format "{{.Id}}" | str trim | str replace "sha256:" "" | str substring 0..11
    let name = $"orchestrator-test-sshd:($base)"
    let make = '
        docker image inspect "$1" >/dev/null 2>&1 && exit 0
        made=$(docker run --detach "$2" sleep infinity) || exit 1
        trap "docker rm --force $made >/dev/null" EXIT
        docker exec "$made" sh -c "
            apt-get update -q &&
            DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends openssh-server sudo &&
            rm -f /etc/ssh/ssh_host_* && mkdir -p /run/sshd &&
            useradd -m deploy && useradd -m plain &&
            echo \"deploy ALL=(ALL) NOPASSWD: ALL\" >/etc/sudoers.d/deploy" >&2 || exit 1
        docker commit "$made" "$1"'
    # Several tests may want it first.
    let answer = ^flock ($nu.temp-dir | path join orchestrator-test-sshd.lock) sh -c $make make $name (image) | complete
    if $answer.exit_code != 0 { error make --unspanned {msg: $"no image with an SSH server: ($answer.stderr)"} }
    $name
}

# A key pair of the test's, and the file of known keys, both in the place's directory.
export def make-keys []: record -> nothing {
    let place = $in
    ^ssh-keygen -q -t ed25519 -N "" -f ($place.directory | path join key)
    ^ssh-keygen -q -t ed25519 -N "" -f ($place.directory | path join other-key)
    "" | save ($place.directory | path join known_hosts)
}

# Starts an SSH server that lets `root`, `deploy` (who may use sudo) and `plain` (who may not) in with the
# place's key, and returns its address. Its key is known unless told otherwise.
export def start-sshd [
    name: string
    --unknown           # Do not write its key down
    --network: string   # The network that it is on
]: record -> record<name: string, container: string, address: string> {
    let place = $in
    let container = $"($place.infra).($name)"
    let network = if $network == null { [] } else { [--network $network] }
    ^docker run --detach --init --name $container ...$network (sshd-image) sh -c '
        ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key && exec /usr/sbin/sshd -D -e -o LogLevel=VERBOSE' | ignore
    let public = open --raw ($place.directory | path join key.pub)
    for user in [root deploy plain] {
        $public | ^docker exec --interactive $container sh -c $"home=$\(getent passwd ($user) | cut -d: -f6\) && mkdir -p -m 700 $home/.ssh && cat >$home/.ssh/authorized_keys && chown -R ($user): $home/.ssh"
    }
    let address = address-of $container
    until "the SSH server listens" { (^docker logs $container | complete).stderr =~ "Server listening" }
    if not $unknown { $place | know $container $address }
    {name: $name, container: $container, address: $address}
}

# The address of a container.
export def address-of [container: string]: nothing -> string {
    ^docker inspect $container --format "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}" | str trim
}

# Writes the key of a container down as that of an address.
export def know [container: string, address: string]: record -> nothing {
    let file = $in.directory | path join known_hosts
    let key = ^docker exec $container cat /etc/ssh/ssh_host_ed25519_key.pub | str trim
    $"($address) ($key)\n" | save --append $file
}

# Waits for a condition, and fails where it does not come about.
export def until [what: string, condition: closure]: nothing -> nothing {
    for look in 1..600 {
        if (do $condition) { return }
        if $look == 600 { error make --unspanned {msg: $"it did not come about: ($what)"} }
        sleep 50ms
    }
}

# A server of a settings file that is reached as root with the place's key.
export def ssh-server [host: record, --with: record = {}]: record -> record {
    let directory = $in.directory
    {
        name: $host.name
        provider: ssh
        host: $host.address
        ssh: ({user: root, identity_file: ($directory | path join key), known_hosts_file: ($directory | path join known_hosts)} | merge $with)
    }
}

# Gives a provider an order, as the worker does, and reads its words.
export def ask [provider: string, operation: string, order: record]: record -> record {
    let place = $in
    let program = if ($provider | path type) == "file" { $provider } else { $WORKER | path join providers $"($provider).nu" }
    ({infra: $place.infra, networks: []} | merge $order | to json --raw
        | ^$nu.current-exe -n --no-std-lib --stdin -I $WORKER $program $operation | complete | read-words)
}
