# falaj: `make up` runs a whole union on this machine; `make test` is what CI
# runs. Both need Go >= 1.26 and make; `make test` brings the rest itself
# (scripts/deps).

GO          ?= go
ARGS        ?=
FUZZTIME    ?= 10s
STATICCHECK := bin/staticcheck-v0.8.2

.NOTPARALLEL:
.PHONY: up build test lint verify bench soak dss fuzz clean toolchain

up: build
	bin/falaj up $(ARGS)

build: toolchain
	CGO_ENABLED=0 $(GO) build -mod=readonly -trimpath -o bin/falaj ./cmd/falaj

# cgo serves the race detector alone: what is shipped is built without it.
# Compiling SQLite for the race detector is what takes long the first time.
test: toolchain
	scripts/deps
	$(MAKE) --no-print-directory lint verify
	CGO_ENABLED=0 $(GO) build -mod=readonly ./...
	CGO_ENABLED=1 $(GO) test -mod=readonly -race -timeout 15m ./...

lint: toolchain $(STATICCHECK)
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then \
		printf 'gofmt: %s\n' $$unformatted; exit 1; fi
	$(GO) vet -mod=readonly -tags soak,dss ./...
	$(STATICCHECK) -tags soak,dss ./...

verify:
	$(GO) mod verify

# The version stands in the file's name: another version is another file.
$(STATICCHECK):
	GOBIN='$(CURDIR)/bin' $(GO) install honnef.co/go/tools/cmd/staticcheck@$(@:bin/staticcheck-%=%)
	mv bin/staticcheck $@

bench: build
	bin/falaj bench exchange $(ARGS)

# Long runs: files with the build tag "soak", tests named TestSoak….
soak: toolchain
	CGO_ENABLED=1 $(GO) test -mod=readonly -tags soak -run '^TestSoak' -count=1 -timeout 3h -v ./...

# What is exported, before DSS and Bouncy Castle: takes Java, Maven and, the
# first time, the network.
dss: toolchain
	CGO_ENABLED=0 $(GO) test -mod=readonly -tags dss -run '^TestDSS$$' -count=1 -timeout 15m -v ./internal/acceptance ./internal/node/up

fuzz: toolchain
	scripts/fuzz $(FUZZTIME)

clean:
	rm -rf bin

toolchain:
	@$(GO) version >/dev/null 2>&1 || { echo 'falaj needs Go 1.26 or newer (see go.mod) on the PATH' >&2; exit 1; }
