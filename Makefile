# Names for the usual commands. What they build is in CMakeLists.txt and CMakePresets.json.
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc)

# $(call configure,preset) once, and again when the presets change; cmake sees to the rest by itself
configure = test build/$(1)/configured -nt CMakePresets.json || { cmake --preset $(1) \
                $$(test -f build/$(1)/CMakeCache.txt || $(generator)) && touch build/$(1)/configured; }
generator = { command -v ninja > /dev/null && echo -GNinja; } || true
compile   = $(call configure,$(1)) && cmake --build build/$(1) --parallel $(JOBS) $(2)
# Left out are the kernels on all shapes (an hour), limits of time that know no factor, and a test of variables.
valgrind_tests = -R '^(unit|fuzz|example)[.]'\|'^coll[.](args|config|counted|env|groups|memory|rows|send_recv|split|team|v_counts|window)' \
                 -E 'base_env|boot_(fault|fd|hostile|leave|many)|kernels_(ex|ma)|cuda|port_channel'
# What they add to the others is kernels on many shapes, on the simulated GPU, which has no allocator of its own.
gpu_arithmetic = '^cuda[.](move_kernels|device_order|device_groups|device_sizes|graphs)'
# $(call check,preset,ctest arguments); many tests wait for deadlines most of their time
check     = ctest --test-dir build/$(1) --parallel $$(( $(JOBS) + 2 )) --output-on-failure --no-label-summary --no-tests=error $(2)

.PHONY: build
build: ## library and program, in build/release (needs cmake and a C compiler)
	@scripts/setup.sh bench
	@$(call compile,release)

.PHONY: bench
bench: build ## build, then run all collectives between this machine's ranks, every element checked
	@build/release/tutti bench

.PHONY: test
test: ## build with warnings as errors, then run all quick tests
	@scripts/setup.sh test
	@$(call compile,dev)
	@$(call check,dev,-LE long)

.PHONY: check-long
check-long: ## the long tests: random kills, hostile frames, create/destroy cycles (minutes)
	@scripts/setup.sh test
	@$(call compile,dev)
	@$(call check,dev,-L long)

.PHONY: asan
asan: ## quick tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/setup.sh test
	@$(call compile,asan)
	@$(call check,asan,-LE long -E $(gpu_arithmetic))

.PHONY: tsan
tsan: ## tests that are labelled tsan, under ThreadSanitizer
	@scripts/setup.sh test
	@$(call compile,tsan,--target tsan_tests)
	@$$(scripts/fixed_addresses.sh) $(call check,tsan,-L tsan -LE long)

.PHONY: valgrind
valgrind: ## unit tests, parsers and some calls under valgrind's memcheck, leaks included (minutes)
	@scripts/setup.sh ci
	@$(call compile,valgrind)
	@$(call check,valgrind,-LE long $(valgrind_tests))

.PHONY: stall
stall: ## quick tests of the protocols between CPU ranks, with random delays at every step of it
	@scripts/setup.sh test
	@$(call compile,stall)
	@$(call check,stall,-LE long -R '^(coll|fault)[.]'\|'^hier[.]hosts_calls')

.PHONY: steal
steal: ## quick tests between processes while real-time threads take the cores away: races show (root)
	@scripts/setup.sh test
	@$(call compile,dev)
	@scripts/steal.py $(call check,dev,-LE long -R '^(fault|net|hier|ucx|unit[.]boot)')

.PHONY: clang
clang: ## all built with clang; quick tests of what it compiles otherwise: arithmetic and the CPU engine
	@scripts/setup.sh ci
	@$(call compile,clang)
	@$(call check,clang,-LE long -R '^(unit|example)[.]'\|'^coll[.](every|isa)' -E 'boot_')

.PHONY: fuzz
fuzz: ## run every libFuzzer target for FUZZ_SECONDS (default 60)
	@scripts/setup.sh ci
	@$(call compile,fuzz)
	@scripts/fuzz.sh build/fuzz $(FUZZ_SECONDS)

.PHONY: lint
lint: ## clang-format (check only), clang-tidy, cppcheck, shellcheck and our own rules
	@scripts/setup.sh ci
	@$(call configure,dev)
	@scripts/lint.sh build/dev

.PHONY: format
format: ## let clang-format rewrite all C files
	@scripts/lint.sh --fix

.PHONY: symbols
symbols: ## rewrite abi/tutti.map and abi/symbols.txt from the public headers
	@python3 scripts/gen_symbols.py

.PHONY: install
install: build ## install to PREFIX (default /usr/local); DESTDIR is honoured
	@cmake --install build/release --prefix $(PREFIX)

.PHONY: clean
clean: ## remove build/
	@rm -rf build

.PHONY: help
help: ## this list
	@echo "tutti: collectives for LLM inference. Start with \`make bench\` (the machine at work) or"
	@echo "\`make test\` (the proof); both install what they lack, or say which command would."
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@echo
	@echo "One preset by hand:  cmake --preset dev && cmake --build build/dev"
	@echo "One test:            ctest --test-dir build/dev -R coll.all_reduce --output-on-failure"
	@echo "Another compiler:    CC=clang cmake --preset release"
