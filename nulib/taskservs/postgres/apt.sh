# Installs packages with apt, for scripts that read this file with `.`. It expects to run as root.
#
# A run that was broken off, by a cut connection or a power failure, is completed first: then dpkg has
# half-configured packages, and refuses everything until they are dealt with.

# Held by whoever installs packages for a taskserv, and not by the daemons that packages start.
LOCK=/var/lib/apt/taskserv.lock

# Ends the script for good: trying again would not help.
refuse() {
    echo "::fail permanent $*"
    exit 1
}

is_installed() {
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Whether apt knows a version of the package that it could install.
is_known() {
    apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [^(]'
}

# One at a time on a machine: apt waits for another apt's lock on packages, not for that on lists.
apt() {
    flock --close "$LOCK" \
        apt-get --quiet=2 --yes -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# Installs what of these packages is not there. Sets `changed` to `true` where it did something.
apt_install() {
    { command -v apt-get && command -v dpkg-query; } >/dev/null ||
        refuse "this system has no apt-get: only Debian and Ubuntu are known here"
    [ "$(id -u)" = 0 ] || refuse "packages can be installed by root only"
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
    # Under the lock, so that another's work in progress is not taken for work that was broken off.
    if [ -n "$(flock --close "$LOCK" dpkg --audit)" ]; then
        echo "completing an installation that was broken off"
        flock --close "$LOCK" dpkg --configure --pending --force-confold </dev/null || true
        apt --fix-broken install || return 1
        changed=true
    fi
    missing=
    known=true
    for package in "$@"; do
        is_installed "$package" && continue
        missing="$missing $package"
        is_known "$package" || known=false
    done
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2034 # The script that reads this file says it.
    changed=true
    "$known" || apt update || return 1
    # Lists that are old name versions that are gone from the mirror: those are fetched anew.
    # shellcheck disable=SC2086 # Names of packages are words.
    apt install --no-install-recommends $missing || { apt update && apt install --no-install-recommends $missing; }
}
