# shellcheck shell=sh
# Functions that make a fresh Debian or Ubuntu system in a folder. scripts/try-in-bare-root and scripts/test share them.
# They use the functions say and die. debootstrap must run as root.

# make_bare_root suite folder [cache [mirror]]: makes the system in an empty folder. With a cache folder, it takes the
# system from an archive there, and writes this archive if it is missing.
make_bare_root() {
    bare_suite=$1 bare_folder=$2 bare_archive=${3:+$3/$1-$(uname -m).tar} bare_began=$(date +%s)
    if [ -n "$bare_archive" ] && [ -s "$bare_archive" ]; then
        tar -C "$bare_folder" -xpf "$bare_archive"
        say "fresh $bare_suite from the cache in $(($(date +%s) - bare_began)) s"
        return
    fi
    # On Ubuntu, docker-registry and the clients are in "universe", which an installed system has enabled. debootstrap's
    # script of an Ubuntu release is a link to "gutsy".
    bare_components=main
    bare_script=$(readlink -f "${DEBOOTSTRAP_DIR:-/usr/share/debootstrap}/scripts/$bare_suite" || true)
    case $bare_script in */gutsy) bare_components=main,universe ;; esac
    bare_log=$(mktemp)
    # shellcheck disable=SC2086
    debootstrap --variant=minbase --components="$bare_components" ${DEBOOTSTRAP_OPTIONS:-} "$bare_suite" \
        "$bare_folder" ${4:-} >"$bare_log" 2>&1 || {
        tail -n 15 "$bare_log" >&2
        rm -f "$bare_log"
        die "debootstrap failed"
    }
    rm -f "$bare_log"
    say "fresh $bare_suite by debootstrap in $(($(date +%s) - bare_began)) s"
    if [ -n "$bare_archive" ]; then
        mkdir -p "$3"
        tar -C "$bare_folder" -cpf "$bare_archive.part" . && mv "$bare_archive.part" "$bare_archive"
    fi
}

# copy_network folder: copies the network configuration of this machine into the system, and nothing else of its
# configuration.
copy_network() {
    for file in /etc/resolv.conf /etc/pip.conf /usr/local/share/ca-certificates/*.crt; do
        [ -e "$file" ] || continue
        mkdir -p "$1$(dirname "$file")"
        cp -L "$file" "$1$file"
    done
    apt-config dump 2>/dev/null | grep -iE '^Acquire::(https?::|ForceIPv|Check-(Valid-Until|Date) )' \
        >"$1/etc/apt/apt.conf.d/99network" || true
    [ -s "$1/etc/hosts" ] || printf '127.0.0.1 localhost\n::1 localhost\n' >"$1/etc/hosts"
}
