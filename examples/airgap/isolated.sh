#!/usr/bin/env bash
# The isolated side of the demo: isolated.sh STICK FINGERPRINT, with SEALIFT_HOME set.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/say.sh"
stick=$1 fingerprint=$2
python "$here/loopback.py" # a fresh namespace has its loopback down

tell "Pin the publisher's root. The fingerprint on the paper decides, not the stick."
show bundle trust init --root "$stick/root.json" --fingerprint "$fingerprint"
tell "Check every signature and every byte. Nothing is installed yet."
show bundle verify "$stick/models.bundle.tar"
tell "Check it all again, and install."
show bundle import "$stick/models.bundle.tar"
show sealift list

title "Serve"
tell "The server listens on loopback alone. Its front-end cannot connect out; each model runs in a" \
    "worker process that has no network at all."
echo '$ sealift serve &'
sealift serve 2>serve.log &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    grep -q "listening on" serve.log && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
cat serve.log
grep -q "listening on" serve.log

tell "Ask it something; the answer streams."
show sealift run library/smollm2:135m "What is the capital of France? Answer in one sentence."
tell "The same through the OpenAI SDK, unmodified."
show python "$here/ask_openai.py" "What is the capital of France? Answer in one sentence."

title "Egress is off"
tell "Every way out is tried, inside the front-end and inside the worker."
show sealift doctor --egress
