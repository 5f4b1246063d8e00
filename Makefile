# Everything runs in .venv, which the first target that needs it sets up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# As typed: make would expand what it exports, for $(shell) too, so this comes before the first of these.
override URL := $(value URL)
export URL
override REV := $(value REV)
override AGAINST := $(value AGAINST)
export REV AGAINST
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
PLACE := $(shell pwd | cksum | cut -d ' ' -f 1)
INSTALL := .venv/bin/python -m pip install --quiet --constraint constraints.txt
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
STEPS ?= 4

.PHONY: help repro test check plots report card demo site article unlabelled fashion distilled rare verify remote clean env

help: ## show this list
	@awk -F ':.*## ' '/^##@ / { print "\n" substr($$0, 5) } /^[a-z]+:.*## / { printf "  %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ The pipeline

repro: env ## run the whole pipeline, or what is out of date of it
	@python -m scripts.check_params
	dvc repro

##@ Look

plots: .venv/.with-report ## write the plots page, dvc_plots/index.html, which works offline
	@python -m scripts.plots_page
	dvc plots show --html-template build/plots.html

report: .venv/.with-report ## write one page of a run, build/report.html: make report REV=experiment AGAINST=main
	@python -m scripts.report -- "$$REV" "$$AGAINST"

card: .venv/.with-report ## write a model card beside the model, models/README.md
	@python -m scripts.report --card -- "$$REV"

demo: .venv/.with-export ## build the page that samples in a browser, and serve it on this machine: make demo
	@python -m scripts.demo

site: .venv/.with-docs ## write the site of README, docs and the walk, whose chapters run: build/site/index.html
	@DDPM_THREADS=$${DDPM_THREADS:-1} sphinx-build -q -W --keep-going -j 2 -c docs -b html -d build/doctrees . build/site

##@ Other configurations, each in a copy

article: env ## run the article's network and recipe as the experiment "article", and keep what it gives in results/article
	python -m scripts.record article 'model.channels=[64,128,256]' 'model.fourier_features=[]' model.time_embed_dim=32 \
		model.block=double_conv model.patch_size=1 model.bottleneck_blocks=1 model.attention=false model.class_conditional=false \
		model.prediction=noise train.images=null train.epochs=10 train.batch_size=128 train.optimizer=adam train.lr=0.001 \
		train.lr_decay=none train.warmup_steps=0 train.ema_decay=0 train.loss=noise train.timestep_sampling=uniform \
		train.log_snr_center=null train.log_snr_uniform=0 train.guide_share=0 train.validation=0 train.log_every=1 \
		sample.gallery.clip=false sample.gallery.guidance=1 sample.population.guidance=1 filter.least_probability=0

unlabelled: env ## run the default without classes as the experiment "unlabelled", and keep what it gives in results/unlabelled
	python -m scripts.record unlabelled model.class_conditional=false sample.gallery.guidance=1.5 sample.population.guidance=1.5

fashion: env ## train the default on Fashion-MNIST as the experiment "fashion", and keep what it gives in results/fashion
	python -m scripts.record fashion data.set=data/fashion_mnist 'download.sets=[fashion_mnist]' \
		filter.least_probability=0.05 sample.population.spacing=log_snr sample.population.steps=30 \
		'sample.population.guidance_interval=[-4.0,6.0]'

distilled: env ## distil the model to STEPS evaluations, and keep what it samples in results/distilled-STEPS: make distilled STEPS=4
	python -m scripts.record distilled-$(STEPS) 'distill.steps=[$(STEPS)]' sample.model=models/distilled-$(STEPS).safetensors \
		sample.gallery.guidance=1 sample.gallery.keep_every=1 \
		sample.population.sampler=ddpm sample.population.steps=null sample.population.guidance=1

rare: .venv/.with-rare ## run the study of rare classes (hours), and keep its rows in studies/rare_class/results
	python -m studies.rare_class.run

##@ Share and keep

remote: env ## make URL the default DVC remote: make remote URL=s3://bucket/path
	@python -m scripts.remote

verify: env ## hash outputs and cache anew, and say what is damaged and how to mend it
	@python -m scripts.verify

##@ Work on it

test: check ## check format, lint and types, then run the tests but for the longest
	pytest -n 2 --dist worksteal --durations 20 -m "not long"

check: .venv/.with-test ## check format, lint and types
	ruff format --check .
	ruff check .
	mypy

env: .venv/.running ## set up .venv alone

clean: ## remove environment and scratch; the DVC cache and the artifacts stay
	rm -rf .venv .resume build dvc_plots .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src stages scripts studies tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# What running and sharing need; the library is installed editable, so that `ddpm generate` is the code beside it.
.venv/.running: .venv/.place-$(PLACE) pyproject.toml constraints.txt
	@echo "installing the locked dependencies into .venv (a minute or two)"
	@$(INSTALL) --editable '.[remotes]'
	@touch $@

# What else a target needs, by the name of its extra in pyproject.toml.
.venv/.with-%: .venv/.running
	@echo "installing what '$*' needs into .venv"
	@$(INSTALL) --editable '.[remotes,$*]'
	@touch $@

# The scripts in .venv name their Python by its path: a folder that was moved, or cut off while it was made, is made anew.
.venv/.place-$(PLACE):
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one with its venv module"; exit 1; }
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "error: not a git repository, which DVC needs: git clone it, or" \
		"git init && git add --all && git commit -m start"; exit 1; }
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip --version >/dev/null
	@touch $@
