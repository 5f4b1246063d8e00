#!/usr/bin/env bash
# Run the pipeline with other params, as the experiment NAME, and keep what it gave in docs/NAME: variant.sh NAME KEY=VALUE ...
# It runs in a copy of the workspace, which stays as it is; what the run cache already has is not computed again.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1 && shift

dvc exp remove --quiet "$name" 2>/dev/null || true # a second run replaces the first
dvc exp run --temp --name "$name" "${@/#/--set-param=}"

head=$(git rev-parse HEAD)
experiment="refs/exps/${head:0:2}/${head:2}/$name"
mkdir -p "docs/$name"
rm -rf "docs/$name/metrics" "docs/$name/params.yaml" "docs/$name/dvc.lock"
git archive "$experiment" metrics/{classifier,train,evaluate,likelihood,classification_accuracy_score} params.yaml dvc.lock | tar -x -C "docs/$name"
