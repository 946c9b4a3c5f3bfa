# Starts and stops a daemon, for scripts that read this file with `.`: through systemd where that runs,
# and by itself elsewhere. They set `service`, its name, and `program`, the path of what runs.

has_systemd() { [ -d /run/systemd/system ]; }

# What a daemon that systemd does not run prints.
# shellcheck disable=SC2154 # They set it.
log_file() { echo "/var/log/$service.log"; }

# Calls start-stop-daemon for it. The number of a process alone says nothing: after a restart of the
# machine another may have it. Its name does; its path can be read by those only who may trace it.
# shellcheck disable=SC2154
daemon() {
    start-stop-daemon --quiet --pidfile "/run/$service.pid" --name "${program##*/}" "$@"
}

# Whether it runs, or is about to.
is_running() {
    if has_systemd; then
        case $(systemctl is-active "$service" || true) in
        active | activating | reloading) return 0 ;;
        esac
        return 1
    fi
    daemon --status 2>/dev/null
}

# Ends it, and waits until it has ended.
stop_it() {
    if has_systemd; then
        systemctl stop "$service"
    else
        daemon --stop --oknodo --retry TERM/20/KILL/5
    fi
}

# Starts it as this user, and returns at once: what waits for other machines must not hold up those who
# bring it there.
start_it() {
    if has_systemd; then
        systemctl daemon-reload
        systemctl --quiet enable "$service"
        systemctl start --no-block "$service"
    else
        daemon --start --background --make-pidfile --output "$(log_file)" --chuid "$1" --startas "$program"
        # It is another process for a moment, which must not be taken for one that has ended.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            is_running && break
            sleep 0.1
        done
    fi
}

# The last line that it has printed.
last_words() {
    if has_systemd; then
        journalctl --quiet --no-pager --output cat --lines 1 --unit "$service" 2>/dev/null
    else
        tail -n 1 "$(log_file)" 2>/dev/null
    fi
}
