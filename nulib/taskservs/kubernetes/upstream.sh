# What is installed from its makers' servers, for scripts that read this file with `.`, after apt.sh.

# Whether others ask the network for this server.
has_proxy() {
    [ -n "${https_proxy:-}${HTTPS_PROXY:-}" ] || apt-config dump | grep -qiE '^Acquire::https?::Proxy.* "[^"]+"'
}

# Refuses at once where a name cannot be found, before anything is installed.
find_upstream() {
    has_proxy || timeout 5 getent hosts "$1" >/dev/null ||
        refuse "$1 cannot be reached, its name is not known here: this server needs the network, or a \`bundle\`"
}

# Fetches a file, within so many seconds. Apt has a program for it, which knows its proxies too.
fetch() {
    timeout "$3" /usr/lib/apt/apt-helper -o Acquire::Retries=0 -o Acquire::http::Timeout=5 \
        -o Acquire::https::Timeout=5 -o APT::Sandbox::User=root download-file "$1" "$2" </dev/null
}

# Says that a file cannot be fetched.
refuse_upstream() {
    refuse "$1 cannot be fetched: this server needs the network, or a \`bundle\`"
}
