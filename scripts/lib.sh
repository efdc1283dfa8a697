# shellcheck shell=sh
# Functions that scripts/serve, scripts/test, scripts/bench, scripts/docs and scripts/lock share.
: "${root:?the script that reads this file must set it to the checkout}"

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
warn() { say "$@" >&2; }
die() {
    warn "$@"
    exit 1
}

# --- packages of the system ---------------------------------------------------------------------------------

# Sets $as_root to the prefix that runs a command as root. Fails if there is none.
# With the argument "ask", and only at a terminal, sudo may ask for a password.
find_root() {
    if [ "$(id -u)" = 0 ]; then
        as_root='env'
    elif ! command -v sudo >/dev/null 2>&1; then
        return 1
    elif sudo -n true 2>/dev/null; then
        as_root='sudo -n env'
    elif [ "${1:-}" = ask ] && [ -t 0 ]; then
        as_root='sudo env'
    else
        return 1
    fi
}

apt_run() {
    # $as_root has several words, so it is not quoted. apt-get must not wait for an answer.
    # shellcheck disable=SC2086
    $as_root DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" </dev/null
}

# apt_install package...: installs packages. If that fails, updates the package lists once and tries again.
# Prints nothing if it succeeds. show_apt_log prints the output of apt-get.
apt_install() {
    apt_log=${apt_log:-$(mktemp)}
    apt_run install --no-install-recommends "$@" >"$apt_log" 2>&1 && return 0
    if [ -z "${apt_updated:-}" ]; then
        apt_updated=yes
        say "updating the package lists"
        apt_run update >"$apt_log" 2>&1 || warn "apt-get update failed; using the old package lists"
        apt_run install --no-install-recommends "$@" >"$apt_log" 2>&1 && return 0
    fi
    return 1
}
show_apt_log() { sed 's/^/    apt: /' "$apt_log" >&2; }
drop_apt_log() {
    [ -z "${apt_log:-}" ] || rm -f "$apt_log"
    apt_log=
}

# --- Python ------------------------------------------------------------------------------------------------

# Sets $python to an interpreter that can create a virtual environment with pip. Fails if there is none.
# On Debian, ensurepip is in the package python3-venv, which may be missing.
find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        "$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
            2>/dev/null && return 0
    done
    return 1
}

has_certificates() {
    for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
        /etc/ssl/cert.pem; do
        if [ -n "$bundle" ] && [ -s "$bundle" ]; then return 0; fi
    done
    return 1
}

need_python() {
    if find_python && has_certificates; then return 0; fi
    if command -v apt-get >/dev/null 2>&1 && find_root ask; then
        say "installing Python and certificates from the system's packages"
        if ! apt_install python3 python3-venv ca-certificates; then
            show_apt_log
            drop_apt_log
            die "apt-get could not install python3, python3-venv and ca-certificates"
        fi
        drop_apt_log
    fi
    find_python || die "Python 3.11 to 3.14 with venv and ensurepip (Debian: python3-venv) was not found and could" \
        "not be installed; if it is in another place, name it in the variable PYTHON"
    has_certificates || warn "no CA certificates found: the mirror may not reach registries over TLS"
}

# --- programs of the system --------------------------------------------------------------------------------

policy=/usr/sbin/policy-rc.d
policy_is_ours=

# Debian starts a service as soon as it is installed, unless this file forbids it. An existing file is not changed.
forbid_services() {
    if [ -e "$policy" ] || [ -L "$policy" ]; then return 0; fi
    policy_is_ours=yes
    # shellcheck disable=SC2016,SC2086
    $as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 755 "$1"' sh "$policy"
}

# end_parts: removes the file and the log. The caller calls it after the last part and in its EXIT trap.
end_parts() {
    # shellcheck disable=SC2086
    [ -z "$policy_is_ours" ] || $as_root rm -f "$policy"
    policy_is_ours=
    drop_apt_log
}

# part command unit,unit package...: installs the packages if the command is missing. If that fails, sets $why to the
# reason and fails.
part() {
    part_command=$1
    part_units=$(printf '%s' "$2" | tr ',' ' ')
    why=
    shift 2
    if command -v "$part_command" >/dev/null 2>&1; then return 0; fi
    if ! command -v apt-get >/dev/null 2>&1; then
        why=no-apt-get
    elif ! find_root; then
        why=no-root
    else
        forbid_services
        say "installing $*"
        if ! apt_install "$@" || ! command -v "$part_command" >/dev/null 2>&1; then
            tail -n 3 "$apt_log" | sed 's/^/    apt: /'
            why=not-installable
        # The services must not start at the next boot either.
        elif command -v systemctl >/dev/null 2>&1; then
            # shellcheck disable=SC2086
            $as_root systemctl disable $part_units >/dev/null 2>&1 || true
        fi
    fi
    [ -z "$why" ]
}

# Installs dockerd and the docker client. Since Debian 13 the client is in the package docker-cli, which docker.io only
# recommends.
part_dockerd() {
    docker_cli=
    if apt-cache show docker-cli >/dev/null 2>&1; then docker_cli=docker-cli; fi
    docker_units=docker.service,docker.socket
    command -v containerd >/dev/null 2>&1 || docker_units=$docker_units,containerd.service
    # shellcheck disable=SC2086
    part dockerd "$docker_units" docker.io $docker_cli
}

# --- the virtual environment -------------------------------------------------------------------------------

# state_of file...: a hash of everything that an environment depends on. If it is the same as before, there is nothing
# to install. It includes the path of the checkout, which the scripts of an environment contain, and the version of
# Python, for which its packages were built.
state_of() { { printf '%s\n' "$root" "$("$python" -VV)" && cat "$@"; } | sha256sum | cut -d ' ' -f 1; }
is_state() { [ "$(cat "$root/.venv/.state-$1" 2>/dev/null)" = "$2" ]; }

pip_install() {
    # --no-deps: the locks name all packages, so pip must not look for others.
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps "$@" </dev/null
}

# make_venv runtime|dev: installs the packages of this lock into .venv. The dev lock contains all packages of the
# runtime lock in the same versions (scripts/lock ensures this), so the service also runs in a dev environment.
make_venv() {
    need_python
    # If two scripts run at the same time, the second waits here until the first has installed the packages.
    if command -v flock >/dev/null 2>&1; then
        exec 9<"$root/requirements"
        flock -n 9 || say "waiting for another script that installs packages in this checkout"
        flock 9
    fi
    venv_runtime=$(state_of "$root/requirements/runtime.lock")
    venv_dev=$(state_of "$root/requirements/dev.lock")
    venv_project=$(state_of "$root/pyproject.toml" "$root/requirements/build.lock" "$root/entrypoints/version.py")

    # If a lock has changed, creates the environment again, so that packages which were removed from the lock are gone.
    if ! is_state runtime "$venv_runtime" || ! "$root/.venv/bin/python" -c '' 2>/dev/null ||
        { [ -e "$root/.venv/.state-dev" ] && ! is_state dev "$venv_dev"; }; then
        say "creating .venv with $("$python" -V)"
        rm -rf "$root/.venv"
        "$python" -m venv "$root/.venv"
    fi
    if [ "$1" = dev ] && ! is_state dev "$venv_dev"; then
        say "installing requirements/dev.lock"
        pip_install --require-hashes --only-binary :all: -r "$root/requirements/dev.lock"
        printf '%s\n' "$venv_dev" >"$root/.venv/.state-dev"
        printf '%s\n' "$venv_runtime" >"$root/.venv/.state-runtime"
    elif ! is_state runtime "$venv_runtime"; then
        say "installing requirements/runtime.lock"
        pip_install --require-hashes --only-binary :all: -r "$root/requirements/runtime.lock"
        printf '%s\n' "$venv_runtime" >"$root/.venv/.state-runtime"
    fi
    if ! is_state project "$venv_project"; then
        say "installing the project in editable mode"
        pip_install --require-hashes --only-binary :all: -r "$root/requirements/build.lock"
        pip_install --no-build-isolation --editable "$root"
        printf '%s\n' "$venv_project" >"$root/.venv/.state-project"
    fi
    exec 9<&-
}

# --- the documentation -------------------------------------------------------------------------------------

# Builds docs/ into build/docs, with the dev environment. Sphinx must read every file again (--fresh-env), because it
# does not repeat the warnings of files that it has in its cache.
build_docs() {
    "$root/.venv/bin/sphinx-build" --fresh-env --fail-on-warning --keep-going --quiet \
        -d "$root/build/doctrees" "$root/docs" "$root/build/docs"
}
