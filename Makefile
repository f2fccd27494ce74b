# make demo    the main job from end to end on a synthetic phantom, into outputs/demo/
# make lab     JupyterLab on working copies of the notebooks, in work/
# make test    lint, then the tests
# make bench   every figure against fastMRI's, into outputs/bench.md and .json, about six
#              minutes; make bench SIZE=full for real sizes, about 25
# make pictures  the README's pictures, out of what make demo has left
# make cloud   JupyterLab against an Azure on this machine, to try ingest and AzureML without a
#              subscription; tests/cloud/README.md
# make fuzz    every reader of foreign input, ten minutes each; MINUTES=1 for one
# make docs    the documentation as a website, into outputs/site/, without the network
# make notebooks  each notebook's parameters cell as its model in workbench/pages/ has it
# make lint    style, types, and that notebooks are stored without outputs
#
# Each target first sees to .venv/, made by uv from pyproject.toml: about a minute, once, and again
# when that file has changed. Python 3.11 to 3.13 will do; PYTHON=/path/to/python chooses one.

PY := .venv/bin/python
# processes that run the tests; each may start a JupyterLab, an Azurite and ranks of its own
WORKERS := 2
COMMA := ,

# Containers often set it. Without compiled modules each process, and there are many, takes six
# seconds longer to import torch and Lightning.
unexport PYTHONDONTWRITEBYTECODE

# A virtual environment holds its own path: a checkout that was moved or copied makes it anew.
ifneq ($(shell cat .venv/made-in 2>/dev/null),$(CURDIR))
NEW := new
endif

.PHONY: bench cloud demo docs fuzz lab lint new notebooks pictures test tools
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: .venv/ready-to-run
	@$(PY) -m workbench_demo

lab: .venv/ready-to-run
	@$(PY) -m workbench.command lab

bench: .venv/ready-to-run
	@$(PY) -m benchmarks $(if $(SIZE),--$(SIZE))

cloud: .venv/ready-to-test
	@$(PY) -m tests.cloud

pictures: .venv/ready-to-test tools
	@$(PY) -m workbench_demo.gallery
	@$(PY) -m tests.browser.pictures

test: lint tools
	$(PY) -m pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder --durations=10

fuzz: .venv/ready-to-test
	@$(PY) -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES))

docs: .venv/ready-to-test
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict
	@echo "Open outputs/site/index.html; to search it: $(PY) -m http.server -d outputs/site"

notebooks: .venv/ready-to-run
	@$(PY) -m workbench.pages

lint: .venv/ready-to-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m nbstripout --verify \
		--extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution" \
		notebooks/*.ipynb notebooks/examples/*.ipynb

# The notebooks are tried in a browser, exports and classical reconstructions by other people's
# programs. Where this cannot install them, the tests say how to.
tools:
	@missing=; for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && break; \
	done || missing=chromium; \
	command -v dciodvfy >/dev/null || missing="$$missing dicom3tools"; \
	command -v dcm2niix >/dev/null || missing="$$missing dcm2niix"; \
	command -v bart >/dev/null || missing="$$missing bart"; \
	command -v ismrmrd_generate_cartesian_shepp_logan >/dev/null || \
		missing="$$missing ismrmrd-tools"; \
	[ -n "$$missing" ] && command -v apt-get >/dev/null || exit 0; \
	echo "Installing what the tests try things in: $$missing ..."; \
	[ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	$$sudo apt-get update -qq && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $$missing >/dev/null || true

.venv/ready-to-run: pyproject.toml .venv/made-in
	@$(call install,.)
	@touch $@

.venv/ready-to-test: pyproject.toml .venv/made-in
	@$(call install,.[docs$(COMMA)mlflow$(COMMA)sdkv2$(COMMA)test$(COMMA)twix$(COMMA)wandb])
	@touch .venv/ready-to-run $@

# fastmri asks for torchvision and never imports it. Beside a CPU build of torch, from another index,
# pip would take PyPI's torchvision, which does not fit that build and breaks Lightning. Where torch
# comes from PyPI as well, the two fit, and pip and conda need no such exception. jupyter-events
# asks for rfc3987-syntax, to check a kind of address that no schema here has; each process that
# reads a notebook would compile its grammar first, in a second.
install = echo "Installing the packages of pyproject.toml into .venv/, about a minute ..." && \
	printf '%s; sys_platform == "never"\n' torchvision rfc3987-syntax > .venv/overrides.txt && \
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(PY) -m uv pip install --quiet --python $(PY) \
		--override .venv/overrides.txt --editable '$(1)'

.venv/made-in: $(NEW)
	@PATH="$$PATH:$$HOME/.local/bin"; \
	for python in "$(PYTHON)" python3.11 python3.12 python3.13 python3 python \
			"$$(uv python find --no-python-downloads '>=3.11,<3.14' 2>/dev/null)"; do \
		"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
			2>/dev/null && break; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		missing="Python 3.11, 3.12 or 3.13"; \
		for version in 3.11 3.12 3.13; do \
			apt-cache show "python$$version" >/dev/null 2>&1 && break; \
		done; \
		packages="python$$version python$$version-venv"; \
	elif ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		missing="the venv module of $$python"; \
		packages="python$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"; \
	fi; \
	if [ -n "$$missing" ]; then \
		if apt-cache show $$packages >/dev/null 2>&1; then how="sudo apt-get install -y $$packages"; \
		elif command -v dnf >/dev/null; then how="sudo dnf install -y python3.11"; \
		elif command -v brew >/dev/null; then how="brew install python@3.11"; \
		else how="curl -LsSf https://astral.sh/uv/install.sh | sh && ~/.local/bin/uv python install 3.11"; \
		fi; \
		echo "$$missing is missing; to install it: $$how" >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv --clear .venv && \
	$(PY) -m pip install -qq --disable-pip-version-check uv && \
	pwd > $@
