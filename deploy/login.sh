#!/usr/bin/env bash
# Make gcloud act as the job's service account, by workload identity federation: GitLab's token for
# this job is exchanged for a short-lived one of Google's. There is no key file.
set -euo pipefail
source "$(dirname "$0")/common.sh"

need GITLAB_TOKEN_FOR_GOOGLE WIF_PROVIDER DEPLOY_SERVICE_ACCOUNT GCP_PROJECT_ID

# Outside the checkout, where no artifact and no upload of sources can take them along. gcloud reads
# the token again whenever its own has run out, so both files stay until the job's container goes.
umask 077
directory=$(mktemp -d)
printf '%s' "$GITLAB_TOKEN_FOR_GOOGLE" >"$directory/token"
gcloud iam workload-identity-pools create-cred-config "$WIF_PROVIDER" \
    --service-account="$DEPLOY_SERVICE_ACCOUNT" \
    --credential-source-file="$directory/token" \
    --output-file="$directory/credentials.json"
gcloud auth login --quiet --cred-file="$directory/credentials.json"
gcloud config set core/project "$GCP_PROJECT_ID" --quiet
