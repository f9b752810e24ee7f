# What ./check and ./demo need before anything else, for a bare Debian 12: packages, programs, the test guest.
# Sourced; expects $top. Everything said by the tools goes to build/prepare.log, one line per step to the terminal.

prepare_log=$top/build/prepare.log

prepare_fail() {
    echo "$1" >&2
    [ -s "$prepare_log" ] && tail -n 15 "$prepare_log" | sed 's/^/    /' >&2
    echo "whole log: $prepare_log" >&2
    exit 1
}

# prepare_step SENTENCE COMMAND…: runs it quietly and says how long it took.
prepare_step() {
    local what=$1 start=$SECONDS
    shift
    printf '%-58s' "$what …"
    if "$@" >> "$prepare_log" 2>&1; then
        printf '%4d s\n' $((SECONDS - start))
    else
        printf 'failed\n'
        return 1
    fi
}

prepare_missing_packages() {
    local package
    sed 's/#.*//' "$top/tests/packages.txt" | while read -r package; do
        [ -z "$package" ] || [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || echo "$package"
    done
}

# The lab starts its own corosync and libvirt: the ones that the packages bring must stay off.
prepare_install() {
    local policy=/usr/sbin/policy-rc.d made=no result=0
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
        made=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o Dpkg::Use-Pty=0 install "$@" < /dev/null || result=$?
    [ $made = no ] || rm -f $policy
    return $result
}

prepare_packages() {
    local missing
    missing=$(prepare_missing_packages)
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086 # a list of words
    { prepare_step "package lists" apt-get -q update &&
        prepare_step "installing $(echo $missing | wc -w) packages" prepare_install $missing; } ||
        prepare_fail "The packages of tests/packages.txt could not be installed: look at the log, then run this again."
}

# prepare_build PRESET
prepare_build() {
    prepare_configure_and_build() { (cd "$top" && cmake --preset "$1" && cmake --build --preset "$1"); }
    prepare_step "building, preset $1" prepare_configure_and_build "$1"
}

# prepare_guest [SCRIPT]: one of tests/guest
prepare_guest() {
    local script=${1:-build}
    [ -n "$(apt-cache depends linux-image-cloud-amd64 2> /dev/null)" ] || prepare_step "package lists" apt-get -q update || true
    prepare_step "test guest ($script)" "$top/tests/guest/$script" && return
    # The mirror may have replaced the kernel that our lists still name.
    { prepare_step "package lists" apt-get -q update && prepare_step "test guest ($script)" "$top/tests/guest/$script"; } ||
        prepare_fail "The test guest could not be made: tests/guest/$script says why."
}

prepare_start() {
    if [ "$(id -u)" != 0 ]; then
        echo "$(basename "$0") makes namespaces and installs packages: run it as root, sudo ./$(basename "$0")" >&2
        exit 1
    fi
    mkdir -p "$top/build"
    : > "$prepare_log"
    export PYTHONDONTWRITEBYTECODE=1
}
