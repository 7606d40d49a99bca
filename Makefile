# SPDX-License-Identifier: GPL-3.0-or-later
# make help lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/roles/lab/files
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
CLUSTERLAB := .venv/bin/python -m clusterlab
RELEASE ?=
NODE ?= node1

.PHONY: help
help: ## What make can do here
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: bootstrap bootstrap-test
bootstrap: ## Install what the lab needs (Debian packages, .venv)
	@tools/bootstrap lab
bootstrap-test: ## Install what the tests need too
	@tools/bootstrap test

.PHONY: lab lab-up lab-status lab-start lab-stop lab-destroy lab-ssh
lab: lab-up ## Boot the virtual cluster and build it with site.yml (RELEASE=bookworm for Debian 12)
	@.venv/bin/python tools/converge.py
lab-up: bootstrap ## Boot the virtual machines alone
	@$(CLUSTERLAB) up $(if $(RELEASE),--release $(RELEASE))
lab-status: ## What of the lab runs
	@$(CLUSTERLAB) status
lab-start: ## Switch all machines on
	@$(CLUSTERLAB) start
lab-stop: ## Shut all machines down
	@$(CLUSTERLAB) stop
lab-destroy: ## Remove the machines and their disks; the image stays
	@$(CLUSTERLAB) destroy
lab-ssh: ## Log in: make lab-ssh NODE=node1
	@$(CLUSTERLAB) ssh $(NODE)

INTEGRATION := integration-gluster integration-encryption integration-others
.PHONY: check lint types unit integration $(INTEGRATION) integration-long integration-release
check: bootstrap lint types unit ## The fast part: linters, types, unit tests
lint:
	ruff check .
	ruff format --check .
	yamllint --strict .
	ansible-lint --offline --strict
	python tools/role_readmes.py --check
types:
	mypy -p ansible_collections.personal.cluster.plugins
	MYPYPATH=roles/lab/files:roles/backup/files mypy -p clusterlab -p personal_cluster_backup
	mypy roles/*/files/*.py roles/lab/files/{guest,node}/*.py
	MYPYPATH=.build/collections:tools:tests/helpers:tests/integration:tests/e2e:roles/lab/files mypy tools tests
unit:
	pytest -q tests/unit
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH=$(PATH):/usr/sbin:/sbin)
# Three lanes that wait most of the time: make test runs them side by side. All that needs a glusterd is in one of them; its
# tests build on each other's volumes, so the long ones among those run with the rest of their file.
GLUSTER_TESTS := $(addprefix tests/integration/,test_gluster_volume.py test_gluster_killed.py test_gluster_growth.py test_backup_runner.py)
ENCRYPTION_TESTS := $(addprefix tests/integration/test_,$(addsuffix .py,luks_clevis_bind luks_backups luks_killed luks_escrow tang_keys rotate_tang))
OTHER_TESTS := tests/integration $(addprefix --ignore=,$(GLUSTER_TESTS) $(ENCRYPTION_TESTS))
integration: $(INTEGRATION) ## Each module against the real tool, on this computer
integration-gluster: bootstrap-test
	$(AS_ROOT) pytest -q $(GLUSTER_TESTS) -m "not long"
integration-encryption: bootstrap-test
	$(AS_ROOT) pytest -q $(ENCRYPTION_TESTS) -m "not long"
integration-others: bootstrap-test
	$(AS_ROOT) pytest -q $(OTHER_TESTS) -m "not long"
integration-long: bootstrap-test ## Killed runs of modules, and playbooks against the real tools
	$(AS_ROOT) pytest -q $(GLUSTER_TESTS)
	$(AS_ROOT) pytest -q $(ENCRYPTION_TESTS) -m long
# This computer has the tools of one release; GlusterFS, cryptsetup, clevis and tang of the other are tested in a chroot.
integration-release: bootstrap-test ## Encryption and storage with the tools of RELEASE (default trixie), long tests too
	$(AS_ROOT) tools/in-release $(or $(RELEASE),trixie) python3 -m pytest -q -p no:cacheprovider $(filter tests/integration/test_gluster%,$(GLUSTER_TESTS)) $(ENCRYPTION_TESTS)

# The tests' lab is another one than yours: it begins with bare nodes and ends removed. Its image is kept.
TEST_LAB := LAB_DIR=$${LAB_DIR:-$(CURDIR)/.lab-test} LAB_PORT_BASE=$${LAB_PORT_BASE:-2300}
define scenarios
	@$(TEST_LAB) $(CLUSTERLAB) destroy
	@$(TEST_LAB) $(CLUSTERLAB) up $(1)
	$(TEST_LAB) pytest -x -v -s tests/e2e -m $(2)
	@$(TEST_LAB) $(CLUSTERLAB) destroy
endef

.PHONY: e2e e2e-long e2e-six lab-image test test-all bench
lab-image: bootstrap
	@$(TEST_LAB) $(CLUSTERLAB) up --image-only $(if $(RELEASE),--release $(RELEASE))
e2e: bootstrap ## The acceptance scenarios on a lab of their own
	$(call scenarios,$(if $(RELEASE),--release $(RELEASE)),"not long")
e2e-long: bootstrap ## Killed runs and day 2 on Debian 13, the rest on 12; RELEASE=bookworm: killed runs and day 2 on 12
	$(call scenarios,--release $(or $(RELEASE),trixie),"long and not six")
ifeq ($(RELEASE),)
	$(call scenarios,--release bookworm,"not long")
endif
e2e-six: bootstrap ## Three nodes become six: for a computer with KVM, or much time
	$(call scenarios,$(if $(RELEASE),--release $(RELEASE)),"six")
# Building the image waits for one processor and the network: the short tests run beside it.
test: bootstrap-test ## Everything a release needs, the lab included
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=line lab-image check $(INTEGRATION)
	@$(MAKE) --no-print-directory e2e
test-all: test integration-long integration-release e2e-long ## The long runs too
bench: ## Cost of a no-change run on a converged lab
	@.venv/bin/python tools/bench.py
