#!/bin/bash
# Installs, uses, upgrades and purges the package, on a machine that systemd runs. Every step is told on
# the second serial port: `ok NAME`, or `failed NAME: WHY`.
export PATH=/usr/sbin:/usr/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
exec 3>/dev/ttyS1
unit=splitlock-agent.service

say() { printf '%s\n' "$*" >&3; }

step() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        say "ok $name"
    else
        say "failed $name: $(printf '%s' "$output" | tail -n 40 | tr '\n' '|')"
        say "log: $(journalctl --no-pager -o cat -n 12 -u $unit 2>&1 | tr '\n' '|')"
    fi
}

until_true() {
    local left=$1
    shift
    until "$@"; do
        [ "$((left--))" -gt 0 ] || return 1
        sleep 1
    done
}

metrics() {
    exec 4<>"/dev/tcp/127.0.0.1/${1:-9839}" || return 1
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&4
    cat <&4
    exec 4>&-
}

property() { systemctl show --value --property "$1" $unit; }
active() { [ "$(systemctl is-active $unit)" = active ]; }
serves() { metrics "$1" 2>/dev/null | grep -q '^splitlock_build_info{'; }

# Names of all files, but for logs, locks, and the old state of dpkg and of the accounts, which each change
# leaves beside the new one.
files() {
    find / -xdev \( -path /rig -o -path /var/log -o -path /tmp -o -path /var/tmp \) -prune -o \
        ! -path '/etc/*-' ! -name .pwd.lock ! -path '/var/lib/dpkg/*-old' \
        ! -path '/var/lib/dpkg/lock*' ! -path '/var/lib/dpkg/triggers/*' -print | sort
}

accounts() { sort /etc/passwd /etc/group; }
# systemd has programs of other types, for its cgroups.
tracing_programs() { bpftool prog list | grep -cE 'tracing|tracepoint|kprobe'; }

install() {
    dpkg --install /rig/packages/splitlock-agent.deb && active &&
        [ "$(property Type)" = notify ] && [ "$(systemctl is-enabled $unit)" = enabled ] &&
        [ "$(systemctl is-enabled splitlock-agent.socket)" = disabled ] &&
        [ "$(property StatusText)" = 'serving on http://127.0.0.1:9839/metrics' ] &&
        id splitlock-agent
}

restart() {
    local before
    before=$(property MainPID)
    systemctl restart $unit && active && serves && [ "$(property MainPID)" != "$before" ]
}

crash() {
    local before
    before=$(property NRestarts)
    kill -KILL "$(property MainPID)"
    restarted() { [ "$(property NRestarts)" -gt "$before" ] && serves; }
    until_true 30 restarted
}

# An agent that stands still is killed and comes back.
watchdog() {
    local before
    mkdir -p /run/systemd/system/$unit.d
    printf '[Service]\nWatchdogSec=4\nTimeoutStopSec=2\n' >/run/systemd/system/$unit.d/test.conf
    systemctl daemon-reload && systemctl restart $unit || return 1
    before=$(property NRestarts)
    # It is fed: longer than the watchdog waits.
    sleep 10
    [ "$(property NRestarts)" = "$before" ] || { echo 'it was killed though it worked'; return 1; }
    kill -STOP "$(property MainPID)"
    fed_up() { [ "$(property NRestarts)" -gt "$before" ] && active; }
    until_true 40 fed_up || return 1
    rm -r /run/systemd/system/$unit.d
    systemctl daemon-reload && systemctl restart $unit
}

policy() {
    [ "$(property RestartForceExitStatus)" = 75 ] && [ "$(property Restart)" = on-failure ]
}

# ProtectHome hides /home from the agent, and not what it is to read there of a process.
home() {
    local process agent
    mkdir -p /home/tenant && cp /usr/bin/sleep /home/tenant/program
    /home/tenant/program 600 &
    process=$!
    agent=$(property MainPID)
    nsenter --mount --target "$agent" test ! -e /home/tenant &&
        nsenter --mount --target "$agent" cmp "/proc/$process/root/home/tenant/program" /usr/bin/sleep
    local result=$?
    kill $process
    rm -r /home/tenant
    return $result
}

upgrade() {
    local before
    before=$(property MainPID)
    echo 'SPLITLOCK_LIMIT_VMS=77' >>/etc/default/splitlock-agent
    dpkg --install --force-confold /rig/packages/next.deb || return 1
    dpkg-query --show --showformat '${Version}\n' splitlock-agent | grep -q '~next' || return 1
    grep -q =77 /etc/default/splitlock-agent && active && [ "$(property MainPID)" != "$before" ] &&
        metrics | grep '^splitlock_tracked_subjects_limit{kind="vm"} 77'
}

# The image with the rights that the DaemonSet has, and nothing else.
image() {
    systemctl stop $unit
    systemd-run --quiet --unit image --property RootDirectory=/rig/packages/image \
        --property MountAPIVFS=yes --property BindReadOnlyPaths=/sys/kernel/tracing \
        --property BindReadOnlyPaths=/sys/fs/cgroup:/host/sys/fs/cgroup \
        --property ProtectSystem=strict --property NoNewPrivileges=yes \
        --property "CapabilityBoundingSet=$CAPABILITIES" \
        /usr/bin/splitlock-agent run --web.listen-address 127.0.0.1:9840 --path.sysfs /host/sys
    until_true 30 serves 9840 || { journalctl --no-pager -o cat -u image; return 1; }
    systemctl stop image.service
    systemctl start $unit
}

remove() {
    dpkg --remove splitlock-agent && ! active && ! pgrep -x splitlock-agent &&
        [ ! -e /usr/bin/splitlock-agent ] && grep -q =77 /etc/default/splitlock-agent
}

purge() {
    dpkg --purge splitlock-agent || return 1
    diff <(echo "$files_before") <(files) && diff <(echo "$accounts_before") <(accounts) &&
        [ "$(systemctl show --value --property LoadState $unit)" = not-found ] &&
        [ "$(tracing_programs)" = 0 ]
}

again() { dpkg --install /rig/packages/splitlock-agent.deb && active && serves; }

. /rig/packages/environment
for module in $MODULES; do insmod "/rig/packages/$module"; done
# What systemd itself writes at the first start of anything has to be there before.
systemd-run --quiet --wait --unit before /usr/bin/true
files_before=$(files)
accounts_before=$(accounts)
step 'nothing before' test "$(tracing_programs)" = 0
step install install
step metrics until_true 10 serves
step policy policy
step restart restart
step crash crash
step watchdog watchdog
step home home
step image image
step upgrade upgrade
say "note $(systemd-analyze security --no-pager $unit | tail -n 1)"
step remove remove
step purge purge
step 'install again' again
step 'purge again' purge
say done
systemctl poweroff --force --force
