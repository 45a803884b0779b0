# The front door. On a Debian 12 or 13, as root: make hello. Nothing here runs without being shown.

# Not the python3 on PATH if it can be helped: a venv on top of root's own Python is closed to other users.
PYTHON  := $(firstword $(wildcard /usr/bin/python3) python3)
SCRIPTS := .ci/run plugins/epilog $(wildcard tests/*.sh tests/*/*.sh)
C_FILES := $(wildcard chlaunch/runtime/*.[ch] spank/*.[ch] tests/*.[ch] tests/*/*.[ch])
PAGES   := $(wildcard docs/*.1 docs/*.5 docs/*.7)
BUILT   := .venv/.built

FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 600

.PHONY: help hello build test test-cluster test-slurm-24.11 test-slurm-26.05 test-linux-5.10 matrix fuzz soak lint bench docs man clean
.NOTPARALLEL:

help:
	@echo 'make hello   build an MPI image as a user, and run it on a two-node Slurm that is started for it (root, Debian)'
	@echo 'make build   every command in .venv/bin, editable'
	@echo 'make test    lint and all tests                      (root, Debian; CHLAUNCH_MUST_RUN=1: no skips)'
	@echo 'make test-cluster  of those, what needs a Slurm, with the one of this host'
	@echo 'make test-slurm-24.11, make test-slurm-26.05  the same on Debian 13 and on Debian testing  (root, Debian; two minutes)'
	@echo 'make test-linux-5.10  what users get on an older kernel, which is emulated  (root, Debian on x86-64; ten minutes)'
	@echo 'make matrix  every MPI by every launcher, joined or not, from a directory or a file (root, Debian; half an hour)'
	@echo 'make fuzz    each fuzzer of tests/fuzz for FUZZ_SECONDS=60 seconds  (root, Debian)'
	@echo 'make soak    kill ch-image again and again, for SOAK_SECONDS=600 seconds  (root, Debian)'
	@echo 'make lint    what the style is checked with'
	@echo 'make bench   ratios to other container runtimes      (root, Debian)'
	@echo 'make docs    docs/chlaunch-errors.7, spank/options.h and tables of parsers anew, from what they are made of'
	@echo 'make man     the manual pages as HTML, in build/man'
	@echo 'make clean   remove .venv and build; the images for the tests stay in /var/cache/chlaunch-test'

hello:
	tests/setup.sh hello
	$(MAKE) --no-print-directory $(BUILT)
	.venv/bin/python tests/hello.py

build:
	tests/setup.sh build
	$(MAKE) --no-print-directory $(BUILT)

# Made when Slurm's header is first seen, so that the plugin is built then. The header itself is older than the package.
.venv/.slurm:
	mkdir -p .venv
	touch $@

# The directory is there because a source file that has gone is a change too.
$(BUILT): pyproject.toml CMakeLists.txt $(wildcard chlaunch/runtime chlaunch/runtime/*.[ch] spank spank/*.[ch] spank/*.map) \
		$(if $(wildcard /usr/include/slurm/spank.h),.venv/.slurm)
	umask 022; test -x .venv/bin/python || $(PYTHON) -m venv .venv
	umask 022; .venv/bin/pip install --quiet --disable-pip-version-check --editable '.[test]'
	umask 022; .venv/bin/python -m compileall -q chlaunch
	touch $@

test:
	tests/setup.sh build cluster test
	$(MAKE) --no-print-directory $(BUILT) lint
	.venv/bin/python tests/cluster/images.py
	.venv/bin/pytest
	.venv/bin/pytest --sanitized -m 'not release' --ignore=tests/runtime/test_fuzz.py tests/runtime

# SLURM=24.11: with no other release. TESTS: words for pytest.
test-cluster:
	tests/setup.sh build cluster
	$(MAKE) --no-print-directory $(BUILT)
	slurmd -V | grep -F ' $(SLURM)'
	.venv/bin/python tests/cluster/images.py
	.venv/bin/pytest tests/cluster $(TESTS)

test-slurm-24.11:
	tests/other-debian.sh debian13 make test-cluster SLURM=24.11

# Debian builds this Slurm without PMIx.
test-slurm-26.05:
	tests/other-debian.sh debian-testing make test-cluster SLURM=26.05 TESTS="-m 'not pmix'"

# Of the tests those that ask most of a kernel and do not count on half a second; not all, as it is slow. Those with the
# mark look at layers of their own.
OLD_KERNEL_TESTS := -m 'not overlays' tests/runtime/linux_5_10.py tests/runtime/test_run.py tests/images/test_build_run.py \
	tests/images/test_build_mounts.py tests/runtime/test_fuse.py::test_same_files \
	tests/runtime/test_fuse.py::test_missing_mount_points
test-linux-5.10:
	tests/setup.sh build cluster kernel
	$(MAKE) --no-print-directory $(BUILT)
	tests/other-kernel.sh linux-5.10 .venv/bin/pytest --verbose -p no:cacheprovider $(OLD_KERNEL_TESTS)

matrix:
	tests/setup.sh build cluster
	$(MAKE) --no-print-directory $(BUILT)
	.venv/bin/python tests/cluster/matrix.py

fuzz:
	tests/setup.sh build fuzz
	cmake -S . -B build/fuzz -DFUZZ=ON -DCMAKE_C_COMPILER=clang -DCHLAUNCH_VERSION=0.0
	cmake --build build/fuzz --parallel
	for corpus in tests/fuzz/corpus/*; do name=$${corpus##*/}; mkdir -p "build/fuzz/found/$$name"; \
		"build/fuzz/tests/fuzz/fuzz-$$name" -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=10 \
		-artifact_prefix="build/fuzz/$$name-" "build/fuzz/found/$$name" "$$corpus" || exit; done

soak:
	tests/setup.sh build cluster test
	$(MAKE) --no-print-directory $(BUILT)
	SOAK_SECONDS=$(SOAK_SECONDS) .venv/bin/python tests/soak.py
	CHLAUNCH_EXAMPLES=50 .venv/bin/pytest tests/unit/test_unpack.py

lint: $(BUILT)
	tests/setup.sh lint
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	$(if $(C_FILES),.venv/bin/clang-format --dry-run -Werror $(C_FILES))
	.venv/bin/ruff check --ignore=PTH,PLR2004,S606,T201 plugins/oci-ch-run  # it starts with every task: no pathlib
	shellcheck $(SCRIPTS)
	luacheck --no-color --quiet --std min --read-globals slurm --globals slurm_cli_setup_defaults slurm_cli_pre_submit \
		slurm_cli_post_submit -- plugins/cli_filter.lua
	$(if $(PAGES),mandoc -T lint -W error $(PAGES))

bench:
	tests/setup.sh build cluster bench
	$(MAKE) --no-print-directory $(BUILT)
	.venv/bin/python tests/bench/run.py

docs: $(BUILT)
	.venv/bin/python docs/errors.py .venv/bin/ch-run docs/chlaunch-errors.7
	.venv/bin/python spank/table.py >spank/options.h
	.venv/bin/python docs/grammars.py chlaunch/image/dockerfile/tables.py

man:
	tests/setup.sh lint
	mkdir -p build/man
	for page in $(PAGES); do mandoc -T html "$$page" >"build/man/$${page##*/}.html" || exit; done

clean:
	rm -rf .venv build
