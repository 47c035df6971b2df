# Sourced by the rehearsals: places, a clock that can be set, and expectations that end them if they
# are not met. Commands come from the project's virtual environment.
. "$here/say.sh"

repository=$(cd "$here/../.." && pwd)
if [ -x "$repository/.venv/bin/bundle" ]; then PATH=$repository/.venv/bin:$PATH; fi
work=$(mktemp -d "${TMPDIR:-/tmp}/sealift-rehearsal.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
unset SEALIFT_POLICY PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=$work/compiled # many short commands
export SEALIFT_PASSPHRASE_FILE=$work/passphrase NO_COLOR=1 COLUMNS=80
(umask 077 && echo "rehearsals only" >"$SEALIFT_PASSPHRASE_FILE")

fail() {
    printf '\nFAILED: %s\n' "$*" >&2
    exit 1
}

# in_office DIR: the commands that follow run there. Each place has a home of its own.
in_office() { export SEALIFT_HOME=$work/$1; }

# A model that no engine can run, of 4 KiB: model FILE NAME [LICENCE]
model() { PYTHONPATH=$repository python "$here/tiny_model.py" "$@"; }

# fingerprint NAME: of the root that this publisher shows; a person would read it from paper.
fingerprint() { bundle keys show --json | field rootFingerprint; }

# field NAME: of the JSON document on standard input
field() { python -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# refused EXIT_CODE COMMAND...: it must fail, and for this reason.
refused() {
    local wanted=$1 code=0
    shift
    show "$@" || code=$?
    [ "$code" = "$wanted" ] || fail "this ended with $code, and had to end with $wanted: $*"
    echo "(refused, as it must be: exit code $code)"
}

# holds COMMAND... -- TEXT: its output has the text.
holds() {
    local text=${*: -1} found
    found=$("${@:1:$#-2}")
    case $found in
    *"$text"*) ;;
    *) fail "\"$text\" is not in what \"${*:1:$#-2}\" says:
$found" ;;
    esac
}

# lacks COMMAND... -- TEXT: its output has not.
lacks() {
    local text=${*: -1} found
    found=$("${@:1:$#-2}")
    case $found in
    *"$text"*) fail "\"$text\" is in what \"${*:1:$#-2}\" says:
$found" ;;
    esac
}
