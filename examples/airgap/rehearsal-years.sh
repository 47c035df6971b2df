#!/usr/bin/env bash
# Five years in one minute: what happens to one publisher and one isolated site between 2027 and 2031.
# Everything that is believed, and everything that must not be, is checked: it ends with an error where
# that goes wrong. Needs the project's virtual environment, and faketime (Debian: faketime), which tells
# single commands another time; Sealift itself has no switch for the clock.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/rehearse.sh"
export DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
"$repository/tools/need.sh" faketime

# year DATE TEXT: what is told and done from now on happens then.
year() {
    clock=$1
    title "$clock: ${*:2}"
}
# The commands, with the clock of the story.
bundle() { faketime "$clock 09:00:00" bundle "$@"; }
sealift() { faketime "$clock 09:00:00" sealift "$@"; }

mkdir -p stick office/safe
model office/alpha.gguf "Alpha"
model office/beta.gguf "Beta"
model office/evil.gguf "Beta, changed by a thief"

# rotate_root KEY: the yearly rotation. The old key signs once more, the new one from then on.
rotate_root() {
    local old
    old=$(bundle keys list --json | python -c 'import json, sys
print(next(r for r in json.load(sys.stdin) if r["role"] == "root")["keys"][0]["id"])')
    bundle keys generate -o "office/safe/$1.pem" >/dev/null
    show bundle keys rotate root --key-id "$old" --key "office/safe/$1.pub" \
        --sign-with office/safe "${@:2}"
    rm "office/safe/${previous:-root}.pem"
    previous=$1
}
# make FILE OPTION...: a bundle, at the office
make() {
    in_office publisher
    show bundle create "${@:2}" -o "stick/$1"
}
# arrives FILE: the stick reaches the site, and is believed.
arrives() {
    in_office site
    show bundle import "stick/$1"
}

year 2027-01-11 "a publisher, a site, a piece of paper"
tell "The keys that decide about other keys, root and targets, lie on a medium in a safe. The" \
    "bundling host holds only those that it needs for bundles."
in_office publisher
show bundle keys init --name acme --namespace acme --offline office/safe
bundle keys root -o stick/root.json >/dev/null
paper=$(fingerprint)
tell "The site pins this root. Its fingerprint comes on paper: a root with another one is refused."
in_office site
refused 22 bundle trust init --root stick/root.json --name acme \
    --fingerprint "$(printf '0%.0s' {1..64})"
show bundle trust init --root stick/root.json --name acme --fingerprint "$paper"
make first.tar office/alpha.gguf --name acme/alpha:1
arrives first.tar

year 2027-06-14 "a stick gets lost"
make lost.tar office/beta.gguf --name acme/beta:1
tell "It never arrives. Whoever found it changes the model's weights, and sends it on."
python - stick <<'PY'
import pathlib, sys
stick = pathlib.Path(sys.argv[1])
data = bytearray((stick / "lost.tar").read_bytes())
data[data.rfind(b"GGUF") + 1000] ^= 1  # in the model file
(stick / "found.tar").write_bytes(data)
PY
in_office site
refused 11 bundle import stick/found.tar
tell "One bit was enough. What was loaded before is unharmed, and the refusal is on record."

year 2028-01-10 "the first new root; the lost model travels again"
in_office publisher
rotate_root root-2028
make second.tar office/beta.gguf --name acme/beta:1
tell "The bundle carries every root. Nobody travels to the site to pin the new one: the old root" \
    "key signed it."
arrives second.tar
holds bundle trust show -- "  root                  2"
tell "Now the stick of last year turns up, untouched. Its metadata is older than what the site has" \
    "seen by now: nobody can lead the site back to it."
refused 25 bundle import stick/lost.tar

year 2028-07-10 "three bundles miss the site"
tell "The courier cannot come for a year and a half. Three bundles and another root pass it by."
make missed-1.tar office/alpha.gguf --name acme/alpha:2
clock=2029-01-08
in_office publisher
rotate_root root-2029
show bundle keys renew targets --sign-with office/safe
make missed-2.tar office/alpha.gguf --name acme/alpha:3
clock=2029-07-09
make missed-3.tar office/alpha.gguf --name acme/alpha:4

year 2029-10-01 "the bundling host is broken into"
tell "The thief copies all keys that lie there, passphrase too: the publisher's, the bundle's, those of" \
    "snapshot and timestamp. The safe is not there. Then the thief makes a bundle of a model that" \
    "looks like the publisher's."
cp -a publisher thief
in_office thief
show bundle create office/evil.gguf --name acme/beta:2 -o stick/thief.tar
tell "To be honest about it: a site that has not heard of the theft cannot know. This is what" \
    "\"bundle verify\" says there, without importing anything:"
in_office site
show bundle verify stick/thief.tar
tell "So the publisher must be faster. With the keys from the safe it gives the role to new keys, and" \
    "replaces those of the bundling host. Replaced, not added to: only that makes numbers that the" \
    "thief may have pushed far ahead count for nothing."
in_office publisher
for role in timestamp snapshot bundle; do
    show bundle keys rotate $role --sign-with office/safe
done
show bundle publisher rotate acme --sign-with office/safe
make news.tar office/beta.gguf --name acme/beta:3
tell "The site jumps from 2028 to now: three bundles and three roots later, with one stick."
arrives news.tar
holds sealift list -- "acme/beta:3"
tell "From now on the thief is late: what the stolen keys signed rests on a root that the site has left" \
    "behind, and under the new one they may sign nothing."
refused 25 bundle import stick/thief.tar
lacks sealift list -- "acme/beta:2"

year 2030-02-04 "a model is withdrawn"
in_office publisher
rotate_root root-2030
show bundle withdraw acme/alpha:1 --reason "its training data were poisoned"
make advisory.tar --advisories-only
tell "No model is in it, so it fits into a mail. All that it changes is what the site may use."
arrives advisory.tar
holds sealift list -- "withdrawn"
tell "The server refuses it at once. No engine is started for it."
SEALIFT_HOST=127.0.0.1:$(python -c 'import socket
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    print(free.getsockname()[1])')
export SEALIFT_HOST
command sealift serve 2>serve.log &
server=$!
for _ in $(seq 200); do
    if grep -q "listening on" serve.log || ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 0.1
done
grep -q "listening on" serve.log || fail "the server does not start: $(cat serve.log)"
refused 32 sealift run acme/alpha:1 "Hello?"
kill "$server" && wait "$server" || true
tell "Old bundles do not bring it back, even where they would be believed otherwise: a new one with the" \
    "same weights under another name is refused too."
make again.tar office/alpha.gguf --name acme/harmless:1
in_office site
refused 29 bundle import stick/again.tar
lacks sealift list -- "acme/harmless"

year 2031-01-13 "the site's clock dies"
in_office publisher
rotate_root root-2031
show bundle keys renew targets --sign-with office/safe
model office/gamma.gguf "Gamma"
make last.tar office/gamma.gguf --name acme/gamma:1
make late.tar office/gamma.gguf --name acme/gamma:2
tell "Its battery is empty: every start is on 1 January 1970. By that clock nothing ever expires." \
    "The site takes for now what it has proof of: the time of its latest import."
clock=1970-01-01
in_office site
refused 25 bundle import stick/news.tar
arrives last.tar
holds sealift list -- "acme/gamma:1"
tell "Half a year on, somebody has set the clock. A bundle that was held back meanwhile is too old."
clock=2031-12-01
refused 24 bundle import stick/late.tar
tell "Only its timestamp and snapshot have run out, which say how fresh it is. A person may take it, with" \
    "a reason, which the receipt keeps; who signed what is asked as strictly as ever."
show bundle import stick/late.tar --accept-stale --reason "the courier was ill"
holds sealift list -- "acme/gamma:2"

title "What the site can prove of these five years"
tell "Every import and every refusal left a receipt and an entry; the log is a Merkle tree, signed at" \
    "every step."
show bundle receipt list
show bundle audit show 0 --count 40
show bundle audit verify
holds bundle audit show 0 --count 40 --json -- "clock_rollback"
holds bundle audit show 0 --count 40 --json -- "model.refuse"
bundle receipt list --json >receipts.json
python - <<'PY'
import collections, json, sys

verdicts = [each["verdict"] for each in json.load(open("receipts.json"))]
found = collections.Counter(each.get("code", each["outcome"]) for each in verdicts)
told = {"accepted": 7, "rollback-detected": 3, "content-mismatch": 1, "expired-metadata": 1}
if found != told:
    sys.exit(f"FAILED: the receipts tell another story: {dict(found)}")
PY
tell "Nothing of it can be changed unnoticed: in a copy, somebody turns a refused import into one that" \
    "was done."
cp -a site forged
in_office forged
python - forged/catalog.db <<'PY'
import sqlite3, sys

catalogue = sqlite3.connect(sys.argv[1])
catalogue.execute("DROP TRIGGER audit_log_keeps")
seq, document = next(
    row
    for row in catalogue.execute("SELECT seq, document FROM audit_log ORDER BY seq")
    if b'"refused"' in row[1]
)
catalogue.execute(
    "UPDATE audit_log SET document = ? WHERE seq = ?", (document.replace(b"refused", b"done"), seq)
)
catalogue.commit()
PY
refused 60 bundle audit verify

title "Done: five years, and nothing was believed that must not be"
