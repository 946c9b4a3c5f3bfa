# Finds the cluster, for scripts that read this file with `.`.

# Sets `version` to that of the newest cluster `main`. Fails where there is none.
find_cluster() {
    version=$(pg_lsclusters --no-header 2>/dev/null | awk '$2 == "main" { print $1 }' | sort -V | tail -n 1)
    [ -n "$version" ]
}

# What the cluster's settings say of one thing.
setting() {
    pg_conftool --short "$version" main show "$1" 2>/dev/null || true
}

is_running() {
    pg_ctlcluster "$version" main status >/dev/null 2>&1
}
