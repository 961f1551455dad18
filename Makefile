# make run    start the daemon            make test   run the tests (ARGS="-k words" chooses)
# make lint   style and types             make bench  measure speed and memory beside a floor
# make guess-times  does the time of a 401 tell how near a guessed secret came?
# make faults every fault of the matrix, then KILLS=1000 times kill -9
# make browser  look at the page in Chromium, as its owner does (Debian, Ubuntu: apt-get install chromium; a minute)
# make sheets open the CSV files in LibreOffice and save over them (Debian, Ubuntu: apt-get install libreoffice-calc)
# make disk-faults fail every single call on the disk, and cut the power after each (needs strace; some three minutes)
# make screenshots  the pictures of the page in README (needs Chromium)
# make pins   pin what requirements*.in ask for, with hashes; ARGS=--upgrade takes the newest of everything
# make clean  remove what these made

PYTHON ?= python3
VENV := .venv
ARGS ?=
KILLS ?= 1000

.PHONY: run test browser lint bench guess-times faults sheets disk-faults screenshots pins clean

run: $(VENV)/.run
	@exec $(VENV)/bin/python app.py

test: $(VENV)/.dev
	@PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest -q -n 5 --dist loadfile --no-loadscope-reorder $(ARGS)

browser: $(VENV)/.dev
	@BROWSER=1 $(VENV)/bin/python -m pytest -q -rs tests/test_page.py tests/test_flattrade_page.py $(ARGS)

lint: $(VENV)/.dev
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --check --quiet . || { echo "not formatted: $(VENV)/bin/ruff format ." >&2; exit 1; }
	@$(VENV)/bin/mypy --strict --no-error-summary *.py tests bench

sheets: $(VENV)/.dev
	@SHEETS=1 $(VENV)/bin/python -m pytest -q -rs tests/test_spreadsheets.py $(ARGS)

disk-faults: $(VENV)/.dev
	@EVERY_FAULT=1 $(VENV)/bin/python -m pytest -q tests/test_kills.py
	@EVERY_FAULT=1 $(VENV)/bin/python -m pytest -q -rs tests/test_disk_faults.py tests/test_power_loss.py $(ARGS)

bench: $(VENV)/.run
	@$(VENV)/bin/python bench/run.py $(ARGS)

guess-times: $(VENV)/.run
	@$(VENV)/bin/python bench/guess_times.py

faults: $(VENV)/.dev
	@EVERY_FAULT=1 $(VENV)/bin/python -m pytest -q tests/test_kills.py
	@PYTHONPATH=.:tests $(VENV)/bin/python tests/faults/run_faults.py --kills $(KILLS) $(ARGS)

screenshots: $(VENV)/.dev
	@PYTHONPATH=.:tests $(VENV)/bin/python tests/screenshots.py

pins: $(VENV)/bin/python
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && $(VENV)/bin/python -m venv "$$tools" && \
	"$$tools/bin/pip" install -qq --disable-pip-version-check pip-tools==7.6.2 && \
	for each in requirements requirements-dev; do \
		CUSTOM_COMPILE_COMMAND="make pins" "$$tools/bin/pip-compile" -q --generate-hashes --no-annotate --strip-extras \
			--no-emit-index-url --no-emit-find-links --no-emit-trusted-host $(ARGS) $$each.in || exit 1; \
	done

clean:
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are touched last: an install that broke off is done again.
$(VENV)/.run: requirements.txt | $(VENV)/bin/python
	@echo "installing what the daemon needs ..."
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	@echo "installing what the tests need ..."
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@# Once here and kept, or each of the lanes would work it out for itself: what pytest makes of the tests' text.
	@PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest --collect-only -qqq >/dev/null || true
	@touch $@ $(VENV)/.run

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer, or name one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): name a newer one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv: install it first (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
