#!/bin/sh
# Prepares one machine for node {{node}} of cluster {{cluster}}, once, as root. Afterwards everyday work
# needs no root but for starting and stopping this very unit. It may be run again.
#
#   paxosctl gen bootstrap -n {{node}} | ssh root@{{address}} sh
set -eu

[ "$(id -u)" = 0 ] || { echo 'error: this script prepares a machine and must run as root' >&2; exit 1; }

# The account that the node runs under and that paxosctl logs in as.
if ! getent passwd {{user}} > /dev/null; then
    useradd --system --create-home --home-dir /home/{{user}} --shell /bin/sh --user-group {{user}}
fi
{{keys}}
# Releases and configuration, readable by others; data and keys, for nobody else.
install -d -o {{user}} -g {{user}} -m 0755 {{deploy_dir}} {{deploy_dir}}/releases
install -d -o {{user}} -g {{user}} -m 0700 {{data_dir}}

if [ -d /run/systemd/system ]; then
    cat > /etc/systemd/system/{{unit}} <<'END_OF_UNIT'
{{unit_text}}END_OF_UNIT
    systemctl daemon-reload
    # Not `--now`: the node has no program and no identity yet.
    systemctl enable {{unit}}
fi

# Exactly three commands, for exactly this unit.
if [ -d /etc/sudoers.d ] && command -v visudo > /dev/null; then
    systemctl=$(command -v systemctl || echo /usr/bin/systemctl)
    rule=$(mktemp)
    for verb in start stop restart; do
        echo "{{user}} ALL=(root) NOPASSWD: $systemctl $verb {{unit}}"
    done > "$rule"
    # A mistake in sudoers locks everybody out: it is checked before it is put in place.
    visudo -c -q -f "$rule"
    install -o root -g root -m 0440 "$rule" /etc/sudoers.d/{{sudoers}}
    rm -f "$rule"
else
    echo 'warning: sudo is not installed, so {{user}} cannot start and stop the unit' >&2
fi

echo 'ready: {{deploy_dir}} and {{data_dir}} belong to {{user}}'
