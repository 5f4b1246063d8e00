# All targets run in .venv; the first target that needs it sets it up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
PLACE := $(shell pwd | cksum | cut -d ' ' -f 1)
INSTALL := .venv/bin/python -m pip install --quiet --constraint constraints.txt
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
STEPS ?= 4
TESTS ?= not long

.PHONY: help repro test check plots card demo site seeds plain unlabelled fashion distilled studies clean env

help: ## show this list
	@awk -F ':.*## ' '/^##@ / { print "\n" substr($$0, 5) } /^[a-z]+:.*## / { printf "  %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ The pipeline

repro: env ## run the stages that are out of date: at first all, 15 to 22 minutes on two CPU cores
	@python -m scripts.readable
	dvc repro
	@python -m scripts.equal

##@ Look

plots: .venv/.with-pages ## write curves and pictures as a page that works offline, dvc_plots/index.html
	@python -m scripts.plots_page
	dvc plots show --html-template build/plots.html

card: .venv/.with-pages ## write a model card, models/README.md
	@python -m scripts.card

demo: .venv/.with-export ## build and serve a page that samples in a browser, with your model or the pretrained one
	@python -m scripts.demo
	@python -u -m http.server 0 --bind 127.0.0.1 --directory build/demo 2>/dev/null

site: .venv/.with-docs ## write the site, build/site/index.html, and run the chapters of the walk: 4 minutes
	@sphinx-build -q -W --keep-going -j 2 -c docs -b html -d build/doctrees . build/site

##@ Other configurations, each in a copy of the workspace

seeds: env ## train seeds 2 and 3 in portable mode, and keep the results in results/seed-2 and seed-3: two hours
	DDPM_PRECISION=portable python -m scripts.record seed-2 train.seed=2
	DDPM_PRECISION=portable python -m scripts.record seed-3 train.seed=3

plain: env ## run a plain DDPM (Ho et al. 2020), and keep its results in results/plain_ddpm: 2 hours of one core
	python -m scripts.record plain_ddpm 'model.channels=[64,128,256]' model.time_embed_dim=32 \
		model.block=double_conv model.patch_size=1 model.bottleneck_blocks=1 model.attention=false model.class_conditional=false \
		model.prediction=noise train.images_seen=null train.epochs=10 train.batch_size=128 train.optimizer=adam train.lr=0.001 \
		train.lr_decay=none train.warmup_steps=0 train.ema_decay=0 train.loss=noise train.timestep_sampling=uniform \
		train.log_snr_center=null train.target_images=0 train.guide_share=0 train.validation=0 \
		train.log_every=1 sample.preview.clip=false filter.least_probability=0

unlabelled: env ## run the default without class labels, and keep its results in results/unlabelled: as long as repro
	python -m scripts.record unlabelled model.class_conditional=false sample.guidance=1.5 \
		'sample.guidance_interval=[-4,6]' sample.scored.steps=50 filter.least_probability=0

fashion: env ## run on Fashion-MNIST with twice the training, and keep the results in results/fashion
	python -m scripts.record fashion data.set=data/fashion_mnist train.images_seen=660000 \
		'sample.guidance_interval=[-4,6]' filter.least_probability=0

distilled: env ## distil the model to few evaluations, and keep its results: make distilled STEPS=4, ten minutes or more
	python -m scripts.record distilled-$(STEPS) 'distill.steps=[$(STEPS)]' sample.model=models/distilled-$(STEPS).safetensors \
		sample.preview.keep_every=1 sample.scored.sampler=ddpm sample.scored.steps=null

studies: env ## remake stale rows of studies/dvc.yaml, of one by QUESTION=recipe; with DRY=1 only say which, why and how long
	@python -m scripts.studies $(QUESTION) $(if $(DRY),--dry)

##@ Develop

test: check ## check, then run all but the longest tests: 5 to 12 minutes on two CPU cores; with TESTS= also those
	pytest -n 2 --dist worksteal --durations 20 -m "$(TESTS)"

check: .venv/.with-test ## check format, lint and types: half a minute
	ruff format --check .
	ruff check .
	mypy

env: .venv/.running ## set up .venv only

clean: ## remove .venv and temporary files; the DVC cache, data and models stay
	rm -rf .venv .resume build dvc_plots .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src stages scripts studies tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The dependencies of running and sharing. The library is installed as editable: `ddpm` runs the code in src.
.venv/.running: .venv/.place-$(PLACE) pyproject.toml constraints.txt
	@echo "installing the locked dependencies into .venv (a minute or two)"
	@$(INSTALL) --editable '.[remotes]'
	@touch $@

# The further dependencies of a target, by the name of their extra in pyproject.toml.
.venv/.with-%: .venv/.running
	@echo "installing what '$*' needs into .venv"
	@$(INSTALL) --editable '.[remotes,$*]'
	@touch $@

# Scripts in .venv contain its path. So make it again if the folder was moved, or if making it was interrupted.
.venv/.place-$(PLACE):
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one with its venv module"; exit 1; }
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "error: not a git repository, which DVC needs: git clone it, or" \
		"git init && git add --all && git commit -m start"; exit 1; }
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip --version >/dev/null
	@touch $@
