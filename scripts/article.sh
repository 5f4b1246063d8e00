#!/usr/bin/env bash
# Run the article's network and recipe as the experiment "article", by params alone, and keep what it gave in docs/article.
# It runs in a copy of the workspace, which stays as it is; what the run cache already has is not computed again.
set -euo pipefail
cd "$(dirname "$0")/.."

dvc exp remove --quiet article 2>/dev/null || true # a second run replaces the first
dvc exp run --temp --name article \
    --set-param 'model.channels=[64,128,256]' --set-param model.time_embed_dim=32 --set-param model.block=double_conv \
    --set-param model.patch_size=1 --set-param model.bottleneck_blocks=1 --set-param model.attention=false --set-param model.prediction=noise \
    --set-param train.epochs=10 --set-param train.batch_size=128 --set-param train.optimizer=adam --set-param train.lr=0.001 \
    --set-param train.lr_decay=none --set-param train.warmup_steps=0 --set-param train.ema_decay=0 \
    --set-param train.loss=noise --set-param train.timestep_sampling=uniform --set-param train.validation=0 --set-param train.log_every=1 \
    --set-param sample.gallery.clip=false

head=$(git rev-parse HEAD)
experiment="refs/exps/${head:0:2}/${head:2}/article"
rm -rf docs/article/metrics docs/article/params.yaml docs/article/dvc.lock
git archive "$experiment" metrics/{train,evaluate,likelihood,relearn} params.yaml dvc.lock | tar -x -C docs/article
