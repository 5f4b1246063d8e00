#!/usr/bin/env bash
# Run a list of experiments under Slurm, as a job array.
#
#   bash scripts/experiments.sh LIST [OPTION OF SBATCH ...]
#
# Each line of LIST is a name, and what `dvc exp run` takes: slow -S train.lr=0.0005 -S 'model.channels=[8, 16]'.
# Submit from the project on a shared disk, with its .venv active and a DVC remote. Each task has a clone of the commit
# that is checked out now, gets data from the DVC remote, and pushes its experiment to the git remote `origin` and its
# outputs to the DVC remote. Then `dvc exp pull origin` and `dvc exp show` list all. A task that Slurm starts again, as
# after the failure of a node, continues from its checkpoint. What a task prints is in build/experiments.
set -euo pipefail
fail() { echo "error: $1" >&2 && exit 1; }

if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    found=$(awk '
        function fail(what) { print "error: " FILENAME ", line " FNR ": " what >"/dev/stderr"; exit 1 }
        { gsub(/^[ \t]+|\r$/, "") }
        /^(#|$)/ { next }
        $1 !~ /^[A-Za-z0-9][A-Za-z0-9._-]*$/ { fail("begin with a name of letters, digits, and . _ -") }
        seen[$1]++ { fail("the name " $1 " is taken; name each experiment differently") }
        { print }' "${1:?a file with an experiment in each line}")
    [ -n "$found" ] || fail "$1: no experiment; write a name in each line, and what dvc exp run takes"
    xargs true <<<"$found" 2>/dev/null || fail "$1: close each quote"
    mapfile -t lines <<<"$found"
    [ -z "$(git rev-parse --show-cdup)" ] || fail "submit from the top folder of the project"
    git remote | grep -qx origin || fail "no git remote called origin, which takes the experiments; add one"
    [ -n "$(dvc config core.remote)" ] || fail "no DVC remote, which takes the outputs; see docs/how-to/share.md"
    head=$(git rev-parse HEAD)
    there=$(git ls-remote origin "refs/exps/${head:0:2}/${head:2}/*" | sed 's|.*/||')
    # A task that starts again may overwrite its own experiment, but no list that of an earlier one.
    taken=$(grep -Fx "$(printf '%s\n' "${lines[@]%%[[:blank:]]*}")" <<<"$there" | paste -sd ' ') &&
        fail "$1: origin has experiments of this commit named $taken; take other names, or leave these out"
    git diff --quiet HEAD || echo "note: the tasks run the last commit, without your uncommitted changes" >&2
    mkdir -p build/experiments
    # Slurm keeps these arguments, so LIST and the branch may change before the tasks begin.
    exec sbatch --array="1-${#lines[@]}" --requeue --open-mode=append --output=build/experiments/%A-%a.log "${@:2}" \
        "$0" "$head" "${lines[@]}"
fi

project=$SLURM_SUBMIT_DIR commit=$1
setting=${*:SLURM_ARRAY_TASK_ID+1:1}
name=${setting%%[[:blank:]]*}
work=$project/build/experiments/$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID
mkdir -p "$work"
cd "$work"

# A task that was cut off leaves its checkpoints and cache. Its clone may be damaged, and is made again.
if [ -e clone/.resume ]; then mv clone/.resume .; fi
rm -rf clone
git clone --quiet --no-checkout "$project" clone
cd clone
git checkout --quiet --detach "$commit"
origin=$(git -C "$project" remote get-url origin)
git remote set-url origin "${origin/#./"$project/."}"
if [ -e "$project/.dvc/config.local" ]; then cp "$project/.dvc/config.local" .dvc; fi # keys of the remote
dvc config --local cache.dir "$work/cache"
# A remote's path may be relative. In this clone it would name another folder, which is removed at the end.
(cd "$project" && dvc config --list) | sed -n 's|^\(remote\..*\.url\)=/|\1 /|p' |
    while read -r key url; do dvc config --local "$key" "$url"; done
if [ -e ../.resume ]; then mv ../.resume .; fi

# xargs reads quotes as a shell does.
xargs dvc exp run --pull --allow-missing --name "$name" <<<"${setting#"$name"}"
dvc exp push --force origin "$name"
rm -rf "$work"
