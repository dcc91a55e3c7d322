# Each goal installs what a fresh Debian 12 lacks for it, says so, and cleans up behind itself.
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=

.PHONY: help build test quick lint demo install uninstall conformance fuzz clean

help:
	@echo 'make build            the programs, in target/release'
	@echo 'make quick            unit tests and the fast end-to-end tests'
	@echo 'make test             everything that must hold before a change lands'
	@echo 'make lint             format, clippy, documentation, scripts, licences'
	@echo 'make demo             a container with a quota, step by step'
	@echo 'make conformance      pjdfstest on the host file system and on a mount, compared'
	@echo 'make fuzz             each fuzz target for FUZZ_SECONDS (60); FUZZ_TARGETS= names some'
	@echo 'make install PREFIX=  programs, manual pages, completion, units, samples (default $(PREFIX); DESTDIR for packages)'
	@echo 'make uninstall        removes exactly these'
	@echo 'make clean            removes what was built'

build:
	scripts/deps.sh build
	cargo build --release --locked

test:
	scripts/deps.sh build test recipes
	scripts/test.sh full

quick:
	scripts/deps.sh build run
	scripts/test.sh quick

lint:
	scripts/deps.sh build lint
	scripts/test.sh lint

demo:
	scripts/deps.sh build run demo
	scripts/demo.sh

conformance:
	scripts/deps.sh build run
	scripts/conformance.sh

fuzz:
	scripts/deps.sh build fuzz
	scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

install: build
	scripts/install.sh install "$(PREFIX)"

uninstall:
	scripts/install.sh uninstall "$(PREFIX)"

clean:
	cargo clean
