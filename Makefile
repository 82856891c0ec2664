# `make` alone lists the targets. What CI runs is `make test`; nothing is checked only there.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Recipes change the tree and use every core by themselves.
.NOTPARALLEL:

# The modules are those of go.work: "./...", "./api/...", "./sdk/go/...".
MODULES := $(shell sed -n 's/^[[:space:]]*\(use[[:space:]]\)\{0,1\}\(\.[^[:space:]]*\).*/\2/p' go.work)
PACKAGES := $(addsuffix /...,$(MODULES))
# The tests of real binaries run last, on their own, without the race detector.
UNIT_PACKAGES = $$(go list $(PACKAGES) | grep -v '/test/')

LISTEN ?= 127.0.0.1:8080
DATA_DIR ?= data/run
FUZZTIME ?= 10s
BENCH_ARGS ?=

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z][a-z0-9-]*:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

## Build and run

.PHONY: build
build: ## Build the product: bin/sluice
	CGO_ENABLED=0 go build -trimpath -o bin/sluice ./cmd/sluice

.PHONY: run
run: build ## Build and start the product with the example policies (LISTEN=host:port DATA_DIR=dir)
	@scripts/banner.sh "$(LISTEN)"
	@exec bin/sluice serve --listen "$(LISTEN)" --data-dir "$(DATA_DIR)" --policy-dir examples/policies

## Check

# Cheap checks first: the first failure ends the run. The last line is the verdict of the e2e tests.
.PHONY: test
test: setup lint check-generate test-unit test-e2e ## Everything that must hold before a change is merged

.PHONY: test-short
test-short: ## The quick tests only: no race detector, results cached
	go test -short $(UNIT_PACKAGES)

# Each benchmark runs once, so that it still works when somebody needs it.
.PHONY: test-unit
test-unit: ## Unit tests of all modules with the race detector, and every benchmark once
	CGO_ENABLED=1 go test -race -timeout 10m -bench . -benchtime 1x $(UNIT_PACKAGES)

.PHONY: test-e2e
test-e2e: build ## Tests of the real binary, and of real servers and clients beside it
	SLUICE_BIN=$(CURDIR)/bin/sluice go test -count=1 -timeout 10m -p 1 ./test/...

.PHONY: lint
lint: tools vet ## Vet, linters, format, protobuf style, shell scripts
	bin/golangci-lint run $(PACKAGES)
	@unformatted=$$(bin/gofumpt -l $(GO_DIRS)); [ -z "$$unformatted" ] || \
	  { printf 'not formatted, run `make fmt`:\n%s\n' "$$unformatted" >&2; exit 1; }
	cd api && ../bin/buf lint && ../bin/buf format --diff --exit-code
	shellcheck -x scripts/*.sh scripts/fetch/*.sh .ci/run

.PHONY: vet
vet: ## go vet of all modules
	go vet $(PACKAGES)

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (10s)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## Measure against a bare gRPC echo: one table (BENCH_ARGS="...")
	go run ./bench $(BENCH_ARGS)

.PHONY: sim
sim: ## Compare ways of finding limits, in simulation; writes docs/adaptive-concurrency.md
	go run ./bench/control

## Write code

# Folders gofumpt looks at: the ones git knows, so not bin, data or node_modules.
GO_DIRS = $$(git ls-files --cached --others --exclude-standard -- '*.go' | cut -d/ -f1 | sort -u)

.PHONY: fmt
fmt: tools ## Format Go and protobuf files
	bin/gofumpt -w $(GO_DIRS)
	cd api && ../bin/buf format -w

.PHONY: generate
generate: tools ## Generate code, OpenAPI, schemas and reference pages, in place
	cd api && ../bin/buf generate && ../bin/buf generate --template buf.gen.flow.yaml && ../bin/buf generate --template buf.gen.aperture.yaml
	go generate $(PACKAGES)

.PHONY: check-generate
check-generate: ## Fail when `make generate` changes a file
	scripts/check-generate.sh

## House-keeping

.PHONY: setup
setup: ## Install the system packages the tests need (Debian)
	@scripts/setup.sh

.PHONY: tools
tools: ## Build the pinned tools of scripts/tools.txt into bin
	@scripts/tools.sh

.PHONY: clean
clean: ## Remove what the build made, the tools included; never DATA_DIR
	rm -rf bin dist
