# Each target sets up .venv by itself; a change of pyproject.toml or constraints.txt renews it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RELEASE ?= ../instruct-ipt-release
# BM3D is for non-commercial use only: without it, make bench-peers PEERS="PyWavelets==1.9.0 h5py==3.16.0".
PEERS ?= bm3d==4.0.3 bm4d==4.2.5 PyWavelets==1.9.0 h5py==3.16.0

.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' $(firstword $(MAKEFILE_LIST)))

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(INSTALLED)  ## install into .venv

repro: $(INSTALLED)  ## rebuild whatever is out of date: data, model, scores, registry
	@$(BIN)/python -m pipelines.repro

diffusion: $(INSTALLED)  ## optional: a diffusion denoiser with biases by noise level (docs/diffusion.md)
	@$(BIN)/python -m pipelines.repro pipelines/optional/dvc.yaml

test: $(INSTALLED)  ## fast tests, on all cores
	$(BIN)/python -m pytest -n logical --dist loadfile

test-slow: $(INSTALLED)  ## tests of the whole pipeline with real Ray, MLflow and DVC, two files at a time
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

docs: $(INSTALLED)  ## the site of all documents: build/site/index.html
	@$(BIN)/python -m sphinx -W --keep-going -q -c docs -d build/doctrees . build/site

fuzz: $(INSTALLED)  ## guided fuzzing of all that reads what strangers made, until you stop it: make fuzz SECONDS=600 (CONTRIBUTING.md)
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

lint: $(INSTALLED)  ## style, formatting and types, those of what restores also as on Windows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 -p ipt -p degradations

pins: $(INSTALLED)  ## how old each version of constraints.txt is, what would be taken today, what was withdrawn
	@$(BIN)/python .ci/pins.py

audit: $(INSTALLED)  ## known vulnerabilities of constraints.txt, from the package index's own list
	$(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit -r constraints.txt --no-deps --disable-pip --strict

schema: $(INSTALLED)  ## params.schema.json anew, after a change of pipelines/common/params.py: what editors know of params.yaml
	@$(BIN)/python -m pipelines.common.params_schema

ui: $(INSTALLED)  ## MLflow's page on this repository's runs and models, http://127.0.0.1:5000
	@$(BIN)/python -m pipelines.ui

promote: $(INSTALLED)  ## the candidate to champion, where it is nowhere worse: make promote ARGS=--dry-run
	@$(BIN)/python -m pipelines.promote $(ARGS)

release: $(INSTALLED)  ## train a model to use on your photographs until you stop it: make release PHOTOGRAPHS=FOLDER (docs/release.md)
	@$(BIN)/python -m pipelines.release start $(RELEASE) $(if $(PHOTOGRAPHS),--photographs $(PHOTOGRAPHS)) $(addprefix --overlay ,$(OVERLAY))

release-decay: $(INSTALLED)  ## a finished model of what that training has learnt so far; it can go on
	@$(BIN)/python -m pipelines.release decay $(RELEASE)

release-ship: $(INSTALLED)  ## that finished model into ipt/released, as the one that comes with `ipt`
	@$(BIN)/python -m pipelines.release ship $(RELEASE)

release-curve: $(INSTALLED)  ## how far the training of `make release` is, into docs/release_curve.png: make release-curve DATA=FOLDER
	$(BIN)/python -m benchmarks.release_curve $(RELEASE) $(DATA)

bench-modulation: $(INSTALLED)  ## time of a mixed-task batch beside the plain backbone and PEFT
	$(BIN)/python -m benchmarks.modulation

ablation: $(INSTALLED)  ## task biases beside other ways and none, into docs/method.md (an hour; goes on where it was stopped)
	$(BIN)/python -m benchmarks.ablation $(ARGS)

bench-backbones: $(INSTALLED)  ## candidates for the backbone's blocks, trained alike
	$(BIN)/python -m benchmarks.backbones

bench-length: $(INSTALLED)  ## a network with task biases and one without, trained for hours: STATE=FOLDER; SHARDS=FOLDER, DATA=FOLDER of real pairs
	$(BIN)/python -m benchmarks.at_length --state $(STATE) $(if $(SHARDS),--shards $(SHARDS)) $(if $(DATA),--data $(DATA)) $(ARGS)

bench-diffusion: $(INSTALLED)  ## biases by noise level beside plain fine-tuning of a diffusion denoiser, into docs/diffusion.md: make bench-diffusion DATA=FOLDER (photographs; hours; goes on where it was stopped)
	$(BIN)/python -m benchmarks.diffusion $(DATA) $(ARGS)

bench-restore: $(INSTALLED)  ## seconds and memory of a 24-megapixel picture, and whether tiles show
	$(BIN)/python -m benchmarks.restoring

bench-serve: $(INSTALLED)  ## the service with 8 clients beside one request at a time: seconds, errors, memory; make bench-serve ARGS="--against COMMIT"
	$(BIN)/python -m benchmarks.serving $(ARGS)

bench-hostile: $(INSTALLED)  ## the service with 8 clients while hostile files arrive: failed, p99, memory
	$(BIN)/python -m benchmarks.hostile_serving $(ARGS)

sixth-task: $(INSTALLED)  ## one more task for the trained model, by training its bias alone
	$(BIN)/python -m benchmarks.sixth_task

gallery: $(INSTALLED)  ## real damage before and after, into docs/gallery.md; of your own pictures: make gallery DATA=FOLDER
	$(BIN)/python -m benchmarks.gallery $(DATA) $(ARGS)

contact-sheet: $(INSTALLED)  ## every degradation at five severities, into docs/degradations.jpg
	$(BIN)/python -m benchmarks.contact_sheet

statistics: $(INSTALLED)  ## the recipes beside real pairs, into docs/statistics.png: make statistics DATA=FOLDER
	$(BIN)/python -m benchmarks.statistics $(DATA)

bench-degradations: $(INSTALLED)  ## speed of the degradations beside their peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/peers imagecorruptions==1.1.2 'setuptools<80'
	PYTHONPATH=build/peers $(BIN)/python -m benchmarks.degradations

bench-peers: $(INSTALLED)  ## quality and seconds beside OpenCV, scikit-image, BM3D and others, into docs/results.md: make bench-peers DATA=FOLDER
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/peers $(PEERS)
	PYTHONPATH=build/peers $(BIN)/python -m benchmarks.peers $(DATA) $(ARGS)

bench-ingest: $(INSTALLED)  ## training data by Ray Data beside a torch DataLoader, and memory by size of the data
	$(BIN)/python -m benchmarks.ingest

bench-prepare: $(INSTALLED)  ## prepare and synthesize on processes, on Ray, on one and two Ray nodes, into docs/cluster.md
	$(BIN)/python -m benchmarks.preparing

bench-scaling: $(INSTALLED)  ## one and two workers of Ray Train beside a bare training loop
	$(BIN)/python -m benchmarks.scaling

bench-hand-out: $(INSTALLED)  ## segments of training data that Ray hands out per second, for up to 64 workers
	$(BIN)/python -m benchmarks.hand_out

model-cluster: $(INSTALLED)  ## 8 and 64 GPUs simulated out of what was measured, beside measured rows, into docs/cluster.md (one core, ten minutes)
	$(BIN)/python -m benchmarks.cluster_model

bench-driver: $(INSTALLED)  ## what the driver reads, holds and sends with 6 thousand to 10 million rows, into docs/cluster.md
	$(BIN)/python -m benchmarks.driver_share $(ARGS)

bench-decoding: $(INSTALLED)  ## a 12-megapixel JPEG read and written in a process that can be killed, beside doing it in one's own
	$(BIN)/python -m benchmarks.decoding

faults: $(INSTALLED)  ## what kills and failing storage cost a training, into docs/cluster.md (30 minutes, as root)
	$(BIN)/python -m benchmarks.faults

stage-faults: $(INSTALLED)  ## what the death of a host costs each stage, into docs/cluster.md (10 minutes, as root)
	$(BIN)/python -m benchmarks.stage_faults $(ARGS)

clean:  ## remove the environment, caches and unfinished runs (data, models and the MLflow store stay)
	rm -rf .venv build .pytest_cache .ruff_cache .mypy_cache .hypothesis runs *.egg-info
	find . -name __pycache__ -type d -not -path './.dvc/*' -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
