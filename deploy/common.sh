# Read by the other scripts with `source`. What all of them need, and nothing of Google Cloud.
# shellcheck shell=bash

# fail PROBLEM REMEDY: ends the script.
fail() {
    echo "$(basename "$0"): $1. Remedy: $2." >&2
    exit 1
}

say() { echo "== $*"; }

# need VARIABLE...: each must be set. They come from GitLab's variables; docs/deploy.md lists them.
need() {
    local name
    for name in "$@"; do
        [[ -n ${!name:-} ]] || fail "$name is not set" \
            "set it among GitLab's CI/CD variables, in the scope of the job's environment"
    done
}

# need_digest IMAGE: a tag may be moved, a digest is what was tested.
need_digest() {
    [[ $1 =~ ^[a-z0-9.-]+-docker\.pkg\.dev/[^@[:space:]]+@sha256:[0-9a-f]{64}$ ]] || fail \
        "'$1' is not an image of Artifact Registry by its digest" \
        "give <region>-docker.pkg.dev/<project>/<repository>/<image>@sha256:<64 hex digits>"
}
