#!/usr/bin/env bash
# The metadata of every package that this Debian machine knows, in and out of cortexd: import, query,
# reading as another user, export, import into a second daemon, and a comparison of the two.
#
#   examples/debian-packages.sh [BIN_DIR]
#
# BIN_DIR holds cortexd, cortex and examples/debian_packages (default: target/release, built first).
# It starts two daemons in a directory of its own, ends them and removes it. Run as root, each side is an
# ordinary user of its own; as an ordinary user, the part that needs a second one is left out and named.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
    cargo build --release --bins --example debian_packages
fi
bin=${1:-${CARGO_TARGET_DIR:-target}/release}

dir=$(mktemp -d)
daemons=()
end() {
    for pid in "${daemons[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap end EXIT

# Ordinary users may not be able to look into the source tree, so the binaries come along.
cp "$bin/cortexd" "$bin/cortex" "$bin/examples/debian_packages" "$dir/"
chmod 755 "$dir"
unset CORTEX_SOCKET CORTEX_DATA_DIR

# Uids need no entry in /etc/passwd to be somebody.
daemon_uid=64001 owner_uid=64002 reader_uid=64003
if [ "$(id -u)" = 0 ]; then
    become() { local uid=$1; shift; exec setpriv --reuid="$uid" --regid="$uid" --clear-groups -- "$@"; }
else
    owner_uid=$(id -u)
    become() { shift; exec "$@"; }
fi
as() { (become "$@"); }

say() { printf '\n# %s\n' "$*"; }
milliseconds() { date +%s%3N; }
owner() { local host=$1; shift; as "$owner_uid" "$dir/cortex" --socket "$dir/$host/cortex.sock" "$@"; }
reader() { as "$reader_uid" "$dir/cortex" --socket "$dir/here/cortex.sock" "$@"; }

# Runs a command that must be denied access: cortex then ends with 4.
refused() {
    local status=0
    "$@" || status=$?
    if [ "$status" != 4 ]; then
        echo "expected a refusal, and the exit status is $status: $*" >&2
        exit 1
    fi
}

# Starts a daemon called $1 and waits until it says that it listens.
start() {
    mkdir "$dir/$1"
    if [ "$(id -u)" = 0 ]; then
        chown "$daemon_uid:$daemon_uid" "$dir/$1"
    fi
    mkfifo "$dir/$1.out"
    become "$daemon_uid" "$dir/cortexd" --socket "$dir/$1/cortex.sock" --data-dir "$dir/$1/data" --log warn \
        >"$dir/$1.out" &
    daemons+=($!)
    head -1 "$dir/$1.out"
}

say "the metadata, as records"
apt-cache dumpavail >"$dir/available"
"$dir/debian_packages" <"$dir/available" >"$dir/packages.ndjson"
records=$(wc -l <"$dir/packages.ndjson")

say "import, as uid $owner_uid"
start here
begun=$(milliseconds)
owner here import packages - --create id,Package,Tag <"$dir/packages.ndjson"
took=$(($(milliseconds) - begun))

say "the package bash"
owner here query packages '{"Package":"bash"}' --pretty | head -12
say "how many are tagged game::strategy"
owner here query packages '{"Tag":"game::strategy"}' --pretty | grep -c '^    "Package"'

if [ "$(id -u)" = 0 ]; then
    say "uid $reader_uid asks for a record and is refused"
    key=$(head -1 "$dir/packages.ndjson" | cut -d '"' -f 4)
    refused reader get "$owner_uid:packages" "$key"
    say "uid $owner_uid grants, and uid $reader_uid reads"
    owner here acl grant "uid:$reader_uid" packages read
    reader get "$owner_uid:packages" "$key" | cut -c 1-100
    say "reading is not writing"
    refused reader put "$owner_uid:packages" '{"id":"mine"}'
fi

say "export, import into a second daemon, export there, compare"
start elsewhere
for format in ndjson msgpack; do
    owner here export packages --format "$format" >"$dir/here.$format"
    owner elsewhere import "packages_$format" - --create id --format "$format" <"$dir/here.$format"
    owner elsewhere export "packages_$format" --format "$format" >"$dir/elsewhere.$format"
    cmp "$dir/here.$format" "$dir/elsewhere.$format"
done
cmp <(sort "$dir/packages.ndjson") <(sort "$dir/here.ndjson")
echo "equal, byte for byte: both exports in both formats, and what was imported"

say "figures"
printf '%-28s %s\n' \
    "records" "$records" \
    "import, seconds" "$((took / 1000)).$(printf '%03d' $((took % 1000)))" \
    "records per second" "$((records * 1000 / took))" \
    "NDJSON, bytes" "$(stat -c %s "$dir/packages.ndjson")" \
    "MessagePack, bytes" "$(stat -c %s "$dir/here.msgpack")" \
    "disk, bytes" "$(owner here status --pretty | sed -n 's/.*"disk_bytes": \([0-9]*\).*/\1/p')"
if [ "$(id -u)" != 0 ]; then
    echo "not run: reading as another uid: needs root, to be two users"
fi
