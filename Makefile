# Everything runs in an environment of its own, made once in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := torchflowfield examples tests docs

.PHONY: demo test lint types docs test-docs figures smoke clean

demo: $(VENV)/examples
	$(BIN)/python examples/demo.py

test: $(VENV)/test
	$(BIN)/pytest -m "not compile and not docs" --jaxtyping-packages=torchflowfield,beartype.beartype
	$(BIN)/pytest -m "compile or unhooked"

lint: $(VENV)/dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/codespell *.md CITATION.cff $(SOURCES)

types: $(VENV)/dev
	$(BIN)/mypy

docs: $(VENV)/docs
	$(BIN)/mkdocs build --strict

# The browser tests need Debian's chromium, or its path in CHROMIUM; without one they are skipped.
test-docs: $(VENV)/test-docs
	$(BIN)/pytest -m docs

# Every picture of the site; MNIST=DIR says where the t10k files are. Models and stand-ins that are there are used again:
# all takes some three hours, a later call minutes.
figures: $(VENV)/render runs/demo/pictures/switched_rotation_hue.gif
	$(BIN)/python docs/figures/pictures.py $(if $(MNIST),--data.root $(MNIST))
	for figure in $(filter-out %/style.py %/pictures.py,$(wildcard docs/figures/*.py)); do \
		$(BIN)/python $$figure || exit 1; done

runs/demo/pictures/switched_rotation_hue.gif: | $(VENV)/render
	$(BIN)/python examples/demo.py

smoke: $(VENV)/examples
	$(BIN)/python examples/demo.py --output runs/smoke --max_steps 20

clean:
	rm -rf $(VENV) site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The site is made from the text of the sources: its tools alone suffice, without PyTorch.
$(VENV)/docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		print(*project['optional-dependencies']['docs'], sep='\n')" > $(VENV)/tools.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement $(VENV)/tools.txt
	touch $@

# One stamp per extra of pyproject.toml; the constraints name versions that are known to work together.
$(VENV)/%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@
