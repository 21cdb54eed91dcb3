# The whole kit from one command. `make` alone lists what there is; GNU make 3.81 (the one macOS ships) is enough.
# Paths are relative throughout, so a folder with spaces and `make -C` both work.

#: PYTHON           interpreter that makes .venv, 3.11 or newer (python3)
#: TORCH_INDEX_URL  where to get torch and torchvision, e.g. https://download.pytorch.org/whl/cpu for a CPU-only build (PyPI)
#: DATASET          data set: a folder of DATA_ROOT (scenes)
#: DATA_ROOT        folder that holds the data set's folder (data)
#: SEEDS            seeds to train, as "0 1 2" or 0,1,2 (0 1 2 3 4; evidence: 0 to 9; smoke: 0 1)
#: EPOCHS           passes over the training captions (what the data set's preset says)
#: SETTINGS         other settings of every training, options of `uwml train`, as "--batch-size 16 --embed-size 64" (none)
#: PROFILE          full or smoke (full)
#: SPACE            what `make sweep` tries: a JSON file (margin and coefficients)
#: SAMPLES          settings that `make sweep` draws from it at random (0: the whole grid)
#: OUT              folder for what `make gpu` measures (reports/gpu)
#: DATA             folder in Flickr8k's layout, on which `make gpu` trains both losses (none)
#: KILLS            kills of `make torture` (50)
#: MUTATIONS        damaged inputs of `make torture` (10000)
VARIABLES := PYTHON TORCH_INDEX_URL DATASET DATA_ROOT SEEDS EPOCHS SETTINGS PROFILE SPACE SAMPLES OUT DATA KILLS MUTATIONS

# What each target takes besides PYTHON and TORCH_INDEX_URL, which are for setting up.
TAKES_data := DATASET DATA_ROOT
TAKES_reproduce := DATASET DATA_ROOT SEEDS EPOCHS SETTINGS PROFILE
TAKES_compare := DATASET DATA_ROOT SEEDS EPOCHS SETTINGS PROFILE
TAKES_evidence := DATASET DATA_ROOT SEEDS EPOCHS SETTINGS PROFILE
TAKES_fidelity := DATASET DATA_ROOT SEEDS EPOCHS SETTINGS PROFILE
TAKES_models := DATASET DATA_ROOT SEEDS EPOCHS SETTINGS PROFILE
TAKES_videos := DATASET DATA_ROOT SEEDS EPOCHS SETTINGS PROFILE
TAKES_sweep := DATASET DATA_ROOT SEEDS EPOCHS SETTINGS PROFILE SPACE SAMPLES
TAKES_smoke := DATASET DATA_ROOT SEEDS EPOCHS SETTINGS
TAKES_reference := DATASET
TAKES_gpu := OUT DATA
TAKES_torture := KILLS MUTATIONS

# .venv remembers the two choices it was made with, so that they are given once.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell cat .venv/.python 2>/dev/null || echo python3)
endif
ifeq ($(origin TORCH_INDEX_URL),undefined)
TORCH_INDEX_URL := $(shell cat .venv/.torch-index 2>/dev/null)
endif

quote = '$(subst ','\'',$(1))'

# A misspelt variable would be ignored in silence, and the wrong experiment run.
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
unknown := $(firstword $(filter-out $(VARIABLES) SHELL,$(given)))
ifneq ($(unknown),)
nearest := $(shell $(call quote,$(PYTHON)) -c 'import sys, difflib; \
    print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1))' \
    $(call quote,$(unknown)) $(VARIABLES) 2>/dev/null)
$(error unknown variable $(unknown)$(if $(nearest),; did you mean $(nearest)?,; there are: $(VARIABLES)))
endif
unused := $(firstword $(filter-out PYTHON TORCH_INDEX_URL SHELL $(foreach goal,$(MAKECMDGOALS),$(TAKES_$(goal))),$(given)))
ifneq ($(unused),)
$(error make $(or $(MAKECMDGOALS),help) takes no $(unused))
endif

# Two stamps named after what they depend on: a touched file or a new checkout costs nothing, an edit is noticed, and so
# is a moved folder, whose editable install would be broken. A new interpreter or place starts .venv afresh; new
# requirements install into it.
PY := .venv/bin/python
MADE := .venv/.made-$(shell printf '%s\n' $(call quote,$(PYTHON)) $(call quote,$(TORCH_INDEX_URL)) "$$(pwd -P)" \
    | cksum | tr -d ' ')
READY := .venv/.ready-$(shell cat pyproject.toml constraints.txt | cksum | tr -d ' ')

UWML := $(PY) -m uwml_lib.cli
# As typed, not expanded once more: a name may hold a $.
option = $(if $(value $(2)), --$(1) $(call quote,$(value $(2))))
DATA_OPTIONS = $(call option,dataset,DATASET)$(call option,data-root,DATA_ROOT)
WORDS = $(if $(value SETTINGS), $(foreach word,$(value SETTINGS),$(call quote,$(word))))
OPTIONS = $(DATA_OPTIONS)$(call option,seeds,SEEDS)$(call option,epochs,EPOCHS)$(call option,profile,PROFILE)$(WORDS)

# One thread each: more threads than cores is slower, and sums differ with their number. Two test processes for two
# cores, and three for the slow tests, many of which wait for what they have started.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q --dist worksteal
NOTEBOOKS := find notebooks -name .ipynb_checkpoints -prune -o -name '*.ipynb' -exec
BUILD_PAGES := $(PY) -c 'from uwml_lib.studies import build_pages; print(build_pages())'
STRIP := $(PY) -m nbstripout --drop-tagged-cells injected-parameters \
    --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution"

# Notebooks run on the kernel of .venv, never on one registered for the whole account.
export JUPYTER_PREFER_ENV_PATH := 1
# The test of a plain install takes torch from the same place.
export TORCH_INDEX_URL

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Every target is one step after another: `-j` must not train while the data is being written.
.NOTPARALLEL:
.PHONY: help setup data reproduce compare evidence fidelity models videos sweep smoke site lab test test-all torture bench bench-full gpu lint format reference clean gone

## list the targets and the variables
help:
	@awk '/^## / { text = substr($$0, 4); next } \
	  /^[a-z-]+:/ && text { split($$1, target, ":"); printf "  make %-12s %s\n", target[1], text } \
	  { text = "" }' Makefile
	@printf '\nVariables, as in `make reproduce DATASET=f8k_precomp SEEDS=0,1` (default in brackets):\n'
	@sed -n 's/^#: /  /p' Makefile

## make .venv and install the kit into it
setup: $(READY)

# Everything goes into this one environment: the targets share it, so none has to reinstall what another left out, and
# the test tools add little to what the notebooks need.
$(READY): $(MADE)
	@echo "Installing the kit and what it needs into .venv: one to two minutes, and torch is a large download."
ifneq ($(TORCH_INDEX_URL),)
	$(PY) -m pip install -c constraints.txt --no-deps --index-url $(call quote,$(TORCH_INDEX_URL)) torch torchvision
endif
	$(PY) -m pip install -c constraints.txt -e '.[dev]'
	@$(PY) -c 'from uwml_lib.datasets import download_punkt; download_punkt()'
	@rm -f .venv/.ready-*
	@touch $@

$(MADE): $(shell test -x $(PY) || echo gone)
	@$(call quote,$(PYTHON)) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "The kit needs Python 3.11 or newer, which PYTHON="$(call quote,$(PYTHON))" is not; name one that is:" \
	    "make setup PYTHON=python3.12" >&2; exit 1; }
	$(call quote,$(PYTHON)) -m venv --clear .venv
	@printf '%s\n' $(call quote,$(PYTHON)) > .venv/.python
	@printf '%s\n' $(call quote,$(TORCH_INDEX_URL)) > .venv/.torch-index
	@touch $@

## build, download (flickr8k, flickr30k, f30k_precomp, coco_precomp) or check the data set
data: $(READY)
	$(UWML) data$(DATA_OPTIONS)

## run the whole pipeline: data, training, evaluation, notebooks, report
reproduce: $(READY)
	$(UWML) reproduce$(OPTIONS)

## tune and train every loss with the same budget, for notebooks 07 and 08: three hours
compare: $(READY)
	$(UWML) compare$(OPTIONS)

## tune losses alike and train them with seeds enough to decide: hours to days
evidence: $(READY)
	$(UWML) evidence$(OPTIONS)

## train with habits of the released code and without, for notebook 09: a quarter of an hour
fidelity: $(READY)
	$(UWML) fidelity$(OPTIONS)

## train both losses on every model, for notebook 10: an hour
models: $(READY)
	$(UWML) models$(OPTIONS)

## train both losses on models of sequences, on clips, for notebook 11: half an hour
videos: $(READY)
	$(UWML) videos$(OPTIONS)

## try settings and choose by dev (on several machines too), by default margins and coefficients: a few minutes
sweep: $(READY)
	$(UWML) sweep$(OPTIONS)$(call option,space,SPACE)$(call option,samples,SAMPLES)

## run the whole pipeline on tiny data, to see that it works
smoke: override PROFILE = smoke
smoke: $(READY)
	$(UWML) reproduce$(OPTIONS)

## build the site from what is here: documentation, published results and your own, to be read without a network
site: $(READY)
	@$(BUILD_PAGES)

## open the notebooks in JupyterLab
lab: $(READY)
	$(PY) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

## run the quick tests
test: $(READY)
	$(PYTEST) -n 2 -m "not slow"

## run the quick tests, then the slow ones
test-all: test
	$(PYTEST) -n 3 -m slow --durations 25

## attack the kit (kills, damaged files, a full disk) and note what came of it, then the tests with faults: an hour
torture: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m tests.torture$(call option,kills,KILLS)$(call option,mutations,MUTATIONS)
	$(PY) -m tests.faults

## measure how fast the kit is, against the release's way and the floor: up to 10 minutes
bench: $(READY)
	set -e; for part in loss embeddings step growth training evaluation loading; do $(PY) benchmarks/$$part.py; done
	@$(BUILD_PAGES)

## the same, a step of 1,024 pairs and an evaluation of MSCOCO's size: half an hour more
bench-full: bench
	$(PY) benchmarks/training.py --full
	$(PY) benchmarks/evaluation.py --full
	@$(BUILD_PAGES)

# It needs no .venv: the script is for machines that have torch and little else.
## measure all that a graphics card can show, with the python3 on the path or PYTHON: at most 8 minutes
gpu:
	bash benchmarks/gpu.sh$(if $(OUT), $(call quote,$(OUT)))

## check the style of the code, the types of the library, and that the notebooks hold no outputs
lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(NOTEBOOKS) $(STRIP) --verify {} +

## mend what lint finds, as far as that goes by itself
format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(NOTEBOOKS) $(STRIP) {} +

## publish the finished run as reports/reference
reference: $(READY)
	$(UWML) report --publish$(call option,dataset,DATASET)

## remove caches, build leftovers and built pages; data, runs, sweeps, evaluations, what was published or measured, and .venv stay
clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . \( -path ./.git -o -path ./.venv -o -path ./data -o -path ./reports \) -prune \
	  -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	find reports -mindepth 1 -maxdepth 1 ! -name README.md ! -name reference ! -name runs ! -name sweeps ! -name evaluations ! -name gpu \
	  -exec rm -rf {} +
