# Sourced by the demo's scripts: headings, explanations, and commands that are shown before they run.

title() { printf '\n=== %s\n' "$*"; }
tell() { printf '\n# %s\n' "$*" | fold -s -w 80; }
show() {
    printf '$'
    local word
    for word in "$@"; do
        case $word in
        *[\ \?\'\!]*) printf ' "%s"' "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}
