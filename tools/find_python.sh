#!/bin/sh
# Prints the Python that the virtual environment is made with: 3.11 or newer, able to make one.
# PYTHON=/path/to/python overrides the search.
set -eu

fit='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
new='import sys; sys.exit(sys.version_info < (3, 11))'
old=""
bare=""
for name in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14}; do
    path=$(command -v "$name" 2>/dev/null) || continue
    if "$path" -c "$fit" 2>/dev/null; then
        echo "$path"
        exit 0
    elif "$path" -c "$new" 2>/dev/null; then
        bare=$path
    else
        old=$path
    fi
done

if [ -n "$bare" ]; then
    echo "error: $bare cannot make a virtual environment." >&2
    echo "Install its venv module: apt-get install python3-venv" >&2
elif [ -n "$old" ]; then
    echo "error: $old is older than Python 3.11, which Sealift needs." >&2
    echo "Install Python 3.11, or name one: make PYTHON=/path/to/python3.11" >&2
else
    echo "error: no Python found; Sealift needs 3.11 or newer." >&2
    echo "Install it: apt-get install python3 python3-venv" >&2
fi
exit 1
