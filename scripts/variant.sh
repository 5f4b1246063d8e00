#!/usr/bin/env bash
# Run the pipeline with other params, as the experiment NAME, and keep what it gave in docs/NAME:
#     variant.sh NAME [STAGE ...] KEY=VALUE ...
# With stages it runs these and what they need alone, and keeps of metrics/ what the experiment has changed.
# It runs in a copy of the workspace, which stays as it is; what the run cache already has is not computed again.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1 && shift
head=$(git rev-parse HEAD) # an experiment belongs to the commit at its start, whatever is committed meanwhile

stages=() settings=()
for argument; do
	if [[ $argument == *=* ]]; then settings+=("--set-param=$argument"); else stages+=("$argument"); fi
done

if [ ${#stages[@]} != 0 ] && ! git diff --quiet HEAD -- metrics dvc.lock params.yaml; then
	echo "error: metrics, dvc.lock or params.yaml are not as committed, and would pass for the experiment's; commit them" >&2
	exit 1
fi

# A second run replaces the first when it has succeeded. --force would do so too, but run every stage anew.
dvc exp remove --quiet "$name-new" 2>/dev/null || true # what was cut off just before the end of these lines
dvc exp run --temp --name "$name-new" "${settings[@]}" ${stages[@]+"${stages[@]}"}
dvc exp rename --force "$name-new" "$name"

kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
reference=refs/exps/${head:0:2}/${head:2}/$name
metrics=metrics
[ ${#stages[@]} = 0 ] || metrics=$(git diff --name-only --diff-filter=d "$head" "$reference" -- metrics)
git archive "$reference" $metrics params.yaml dvc.lock | tar -x -C "$kept"
mkdir -p "docs/$name"
rm -rf "docs/$name/metrics" "docs/$name/params.yaml" "docs/$name/dvc.lock"
mv "$kept"/* "docs/$name"
