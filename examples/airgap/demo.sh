#!/usr/bin/env bash
# From a real model to a chat, across a simulated gap. `make demo` runs it with everything installed:
# `bundle` and `sealift` on PATH, MODEL_GGUF naming a GGUF file.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/say.sh"

: "${MODEL_GGUF:?run it with: make demo}"
work=$(mktemp -d "${TMPDIR:-/tmp}/sealift-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
connected=$work/connected stick=$work/stick isolated=$work/isolated
mkdir "$connected" "$stick" "$isolated"
ln "$MODEL_GGUF" "$connected/" 2>/dev/null || cp "$MODEL_GGUF" "$connected/"
model=$(basename "$MODEL_GGUF")

title "Connected side: a machine that can download"
cd "$connected"
export SEALIFT_HOME=$connected/home SEALIFT_PASSPHRASE_FILE=$connected/passphrase
(umask 077 && head -c 24 /dev/urandom | base64 >"$SEALIFT_PASSPHRASE_FILE")

tell "Make the signing keys, once. They stay here, encrypted."
show bundle keys init
tell "Export the root that isolated machines will pin."
show bundle keys root -o root.json
fingerprint=$(bundle keys show --json | python -c 'import json, sys; print(json.load(sys.stdin)["rootFingerprint"])')
tell "Hash the model, describe it as an OCI artifact, sign it, write ONE file."
show bundle create "./$model" --name library/smollm2:135m -o models.bundle.tar

title "The gap: one file on a stick"
tell "The root's fingerprint travels another way: on paper, by telephone."
show cp models.bundle.tar root.json "$stick/"
show ls -l "$stick"

title "Isolated side: a machine that reaches nothing"
export SEALIFT_HOME=$isolated/home
unset SEALIFT_PASSPHRASE_FILE
cd "$isolated"
if [ "$(id -u)" = 0 ]; then enter=(unshare --net); else enter=(unshare --net --map-root-user); fi
if "${enter[@]}" true 2>/dev/null; then
    tell "It runs in an empty network namespace: no interface but its own loopback."
else
    tell "This system allows no network namespace, so the isolated side shares the machine's network."
    enter=()
fi
"${enter[@]}" "$here/isolated.sh" "$stick" "$fingerprint"

title "Done"
tell "A model crossed a gap and answered. Everything that was made lies in $work and goes now."
