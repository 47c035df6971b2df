#!/bin/sh
# Makes sure that commands of Debian packages are there: need.sh COMMAND|COMMAND=PACKAGE...
# Installs what is missing where it may (root with apt-get); else says what to install.
set -eu

missing=""
for name in "$@"; do
    command -v "${name%%=*}" >/dev/null 2>&1 || missing="$missing ${name#*=}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    # Word splitting is meant: one argument per package.
    # shellcheck disable=SC2086
    apt-get install -qq -y --no-install-recommends $missing </dev/null >/dev/null
else
    echo "error: the tests need$missing." >&2
    echo "Install with: sudo apt-get install$missing" >&2
    exit 1
fi
