#!/usr/bin/env bash
# Two organisations send models to one site, which has rules of its own: who may bring which names,
# which licences are allowed, and that two persons agree to every import. It ends with an error if
# anything is let in that must not be. Needs the project's virtual environment.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/rehearse.sh"

mkdir acme-office uni-office stick
model acme-office/vision.gguf "Vision"
model acme-office/copyleft.gguf "Copyleft" cc-by-nc-4.0
model uni-office/parser.gguf "Parser"
model uni-office/vision.gguf "A vision of its own"

title "Two publishers who know nothing of each other"
for who in acme uni; do
    in_office $who
    show bundle keys init --name $who --namespace $who
    bundle keys root -o stick/$who.json >/dev/null
    fingerprint >$who.paper
done
tell "The university also signs models under acme's name. Nothing on its side can forbid that; the" \
    "site has to."
show bundle keys add-namespace acme

title "The site pins both roots, each by the fingerprint on its own paper"
in_office site
for who in acme uni; do
    show bundle trust init --root stick/$who.json --name $who --fingerprint "$(cat $who.paper)"
done

title "Its rules"
tell "Two operators make a key each. Public keys stand in the policy; private keys stay with the" \
    "persons."
mkdir anna bert
bundle operator keygen --name anna -o anna/key.pem --json >anna.json
bundle operator keygen --name bert -o bert/key.pem --json >bert.json
cat >site/policy.toml <<POLICY
schema_version = 1

[[publisher]]
anchor = "acme"
names = ["acme/*"]

[[publisher]]
anchor = "uni"
names = ["uni/*"]

[licences]
allow = ["Apache-2.0", "MIT"]
refuse = ["CC-BY-NC-4.0"]
others = "refuse"
unknown = "refuse"

[models]
formats = ["gguf"]
architectures = ["llama"]
max_bytes = "10M"

[approval]
required = 1
actions = ["import"]
valid_days = 7

$(field policy <anna.json)
$(field policy <bert.json)
POLICY
show cat site/policy.toml
show bundle policy check site/policy.toml

title "An honest bundle: asked for by one, approved by another"
in_office acme
show bundle create acme-office/vision.gguf --name acme/vision:1 -o stick/vision.tar
in_office site
tell "Nobody imports alone."
refused 28 bundle import stick/vision.tar
tell "Anna reads the stick at the site and asks. Her request names the bundle by its digest."
show bundle import stick/vision.tar --request vision.request --key anna/key.pem
tell "She cannot approve what she asked for."
refused 28 bundle approve vision.request --key anna/key.pem --yes
tell "Bert reads it, on a machine of his, and signs."
show bundle approve vision.request --key bert/key.pem --yes -o vision.approval
tell "A stranger's approval counts for nothing."
bundle operator keygen --name bert -o stranger.pem --json >/dev/null
bundle approve vision.request --key stranger.pem --yes -o stranger.approval >/dev/null
refused 28 bundle import stick/vision.tar --approval stranger.approval
show bundle import stick/vision.tar --approval vision.approval
holds sealift list -- "acme/vision:1"

title "What the rules keep out"
tell "An approval for another bundle: this one has a second model in it."
in_office acme
model acme-office/second.gguf "Second"
show bundle create acme-office/second.gguf --name acme/second:1 -o stick/second.tar
in_office site
refused 28 bundle import stick/second.tar --approval vision.approval
lacks sealift list -- "acme/second"

tell "A name of the other publisher. The signature is right: the university may sign that name in its" \
    "own metadata. Here the name is acme's."
in_office uni
show bundle create uni-office/vision.gguf --name acme/vision:2 -o stick/foreign.tar
in_office site
refused 28 bundle import stick/foreign.tar --request foreign.request --key anna/key.pem
lacks sealift list -- "acme/vision:2"

tell "A licence that the site refuses. Nobody can approve it: rules come before persons."
in_office acme
show bundle create acme-office/copyleft.gguf --name acme/copyleft:1 -o stick/copyleft.tar
in_office site
refused 28 bundle import stick/copyleft.tar --request copyleft.request --key anna/key.pem
lacks sealift list -- "acme/copyleft"

title "None of it is in the way of the next good bundle"
in_office uni
show bundle create uni-office/parser.gguf --name uni/parser:1 -o stick/parser.tar
in_office site
show bundle import stick/parser.tar --request parser.request --key bert/key.pem
show bundle approve parser.request --key anna/key.pem --yes -o parser.approval
show bundle import stick/parser.tar --approval parser.approval
show sealift list
show bundle trust list

title "What is on record"
tell "Who asked, who approved, and what was refused, in receipts that the site has signed."
show bundle receipt list
show bundle audit verify
title "Done: two publishers, one site, two persons; nothing came in that must not"
