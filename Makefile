# Everything a newcomer does. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

FIRMWARE ?= uefi
KEEP ?=
RUN ?= .
N ?= 20
PKG ?=

export CGO_ENABLED := 0
# The toolchain is named here, since machines may have GOTOOLCHAIN=local, where go.mod's toolchain line does nothing.
# Earlier ones of 1.26 have holes in net/http that anybody on the network can use. .ci/run has the same line; a test holds both.
export GOTOOLCHAIN := go1.26.11
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=PATH,HOME,TEMPDIR,GOTOOLCHAIN,GOCACHE,GOMODCACHE,GOPATH,GOPROXY,GOFLAGS,GPROV_NO_SKIP,CGO_ENABLED,XDG_CACHE_HOME)

# Debian packages that the demo and the tests use. Nothing of them is in the repository.
PACKAGES := qemu-system-x86 qemu-utils ovmf ipxe ipxe-qemu mmdebstrap e2fsprogs mdadm dosfstools mtools fdisk gdisk xz-utils zstd \
	minisign atftp acl attr libcap2-bin xorriso binutils libarchive-tools kmod sbsigntool swtpm openssl iproute2 ca-certificates chromium \
	systemd systemd-boot-efi grub-pc-bin grub-common make gcc flex bison bc mender-client mender-artifact linux-source-6.1 libelf-dev \
	openipmi ipmitool zbar-tools libiscsi-bin dmidecode

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: FIRMWARE=uefi|bios KEEP=1 (demo), RUN=regexp (test-vm), N=20 (test-repeat), PKG=packages (race, mutants, fuzz-speed), TEMPDIR=dir"

.PHONY: deps
deps: ## install the Debian packages that are missing
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		$(SUDO) apt-get update -q >/dev/null && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >/dev/null; \
	fi

.PHONY: build
build: ## static binaries into bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: demo
demo: deps build ## the whole life of a unit on a virtual machine (FIRMWARE=uefi|bios, KEEP=1)
	$(SUDO) bin/gprov demo --firmware $(FIRMWARE) $(if $(KEEP),--keep)

.PHONY: check
check: ## formatting, vet, vet for another architecture, staticcheck, dead code, known holes (by a pinned database), generated files, mutations that no longer apply
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt would change:"; echo "$$bad"; exit 1; fi
	go vet ./...
	go vet -tags soak,bench ./lab ./forge/boot ./unit/job/erase/engine
	GOARCH=arm64 go vet ./...
	GOGC=400 "$$(go -C .ci/staticcheck tool -n staticcheck)" -tags soak,bench ./...
	@$(MAKE) --no-print-directory dead
	go -C .ci/vuln run . -root $(CURDIR)
	go test -short -run '^(TestSchema|TestOpenAPI)$$' ./model/manifest ./factory/api
	go -C .ci/mutants run . -root $(CURDIR) -check

.PHONY: dead
dead: ## functions that no command reaches, tests apart; those that stay are in .ci/deadcode/kept.txt
	@dead=$$(GOGC=400 "$$(go -C .ci/deadcode tool -n deadcode)" -f '{{range .Funcs}}{{printf "%s.%s\n" $$.Path .Name}}{{end}}' ./cmd/...) && \
	kept=$$(sed -n 's/^\([^# ]*\) .*/\1/p' .ci/deadcode/kept.txt) && \
	if ! diff <(sort <<<"$$kept") <(grep . <<<"$$dead" | sort) | sed -n 's/^>/no command reaches/p; s/^</it stays, and is reached or gone:/p' | (! grep .); then \
		echo "remove it, move it to the tests, or use it"; exit 1; fi

.PHONY: tidy
tidy: ## shorten the lists of what is too large (.ci/tidy), after something was made smaller
	GPROV_TIDY=lower go test -count=1 -run '^TestTidy$$' .

.PHONY: vuln
vuln: ## known holes, by the newest database
	go -C .ci/vuln run . -root $(CURDIR) -newest

.PHONY: test
test: deps check build ## every test, virtual machines included
	@# Virtual machines wait a third of their time: three of them keep two processors busy.
	$(SUDO) env GPROV_NO_SKIP=1 CGO_ENABLED=0 $(shell which go) test -timeout 80m -parallel 3 ./...

.PHONY: test-unit
test-unit: ## tests that need no privileges and no virtual machine, under 60 s
	go test -short ./...

.PHONY: cover
cover: ## what share of a package's statements its own unit tests run, for those in .ci/cover.txt (RENEW=1 raises their figures)
	@set -o pipefail; go test -short -timeout 10m -cover $$(sed -n 's|^\([a-z]\S*\) .*|./\1|p' .ci/cover.txt) | \
	awk -v renew='$(RENEW)' -f .ci/cover.awk

.PHONY: fuzz-speed
fuzz-speed: ## how many tries each fuzz target makes in 10 s, slowest first; fewer than 200 prove nothing (PKG=model/manifest; all: half an hour)
	@git grep -o '^func Fuzz[A-Za-z0-9_]*' -- $(or $(PKG),.) | sed -n 's|^\(.*\)/[^/]*_test\.go:func |./\1 |p' | while read -r p f; do \
		out=$$(go test -run='^$$' -fuzz="^$$f\$$" -fuzztime=10s $$p 2>&1 </dev/null) || { echo "$$out" >&2; out=; }; \
		n=$$(sed -n 's/.* execs: \([0-9]*\) .*/\1/p' <<<"$$out" | tail -n 1); echo "$${n:-0} $$p $$f"; \
	done | sort -n | awk '{ printf "%9d  %s %s\n", $$1, $$2, $$3; bad += $$1 < 200 } END { exit bad || !NR }'

.PHONY: race
race: ## the tests of test-unit under the race detector, package by package (PKG=./unit/...); needs gcc
	@all=$$(go list $(or $(PKG),./...)) && bad= && for p in $$all; do CGO_ENABLED=1 nice go test -race -short -timeout 20m $$p || bad="$$bad $$p"; done; \
	if [ -n "$$bad" ]; then echo "make race: red:$$bad"; exit 1; fi

.PHONY: mutants
mutants: ## break the code on purpose, to see what no unit test notices (PKG="unit/decide hand", RECORD=DIR, RENEW=1 writes .ci/mutants/figures.txt)
	go -C .ci/mutants run . -root $(CURDIR) $(if $(PKG),-packages "$(PKG)") $(if $(RECORD),-record $(abspath $(RECORD))) $(if $(RENEW),-renew)

.PHONY: mutants-ci
mutants-ci: ## those of the packages that the last commit changed, for ten minutes at most and not beyond an hour after BEGAN (date +%s)
	@left=$$(( ($(or $(BEGAN),$$(date +%s)) + 3600 - $$(date +%s)) / 60 )); \
	if [ $$left -lt 4 ]; then echo "no time is left for mutants: not measured"; exit 0; fi; \
	if ! git rev-parse -q --verify HEAD~1 >/dev/null; then echo "the commit before is not here, so what changed is not known: not measured"; exit 0; fi; \
	go -C .ci/mutants run . -root $(CURDIR) -base HEAD~1 -minutes $$(( left < 10 ? left - 1 : 9 ))

.PHONY: test-vm
test-vm: deps build ## virtual machine tests (RUN=regexp)
	$(SUDO) env GPROV_NO_SKIP=1 CGO_ENABLED=0 $(shell which go) test -count=1 -timeout 80m -v -run '$(RUN)' ./lab

.PHONY: test-repeat
test-repeat: deps build ## every test N times, to show that nothing is flaky
	$(SUDO) env GPROV_NO_SKIP=1 CGO_ENABLED=0 $(shell which go) test -count=$(N) -timeout 24h ./...

SOAK = $(SUDO) env GPROV_NO_SKIP=1 CGO_ENABLED=0 $(shell which go) run ./lab/soak

.PHONY: soak
soak: ## the long tests, to the end whatever fails, with a table (RENEW=1 writes the times into lab/soak/list.txt; GPROV_SOAK_N power cuts)
	@$(MAKE) --no-print-directory deps PACKAGES='$(PACKAGES) exfatprogs exfat-fuse'
	$(SOAK) all $(if $(RENEW),-renew)

.PHONY: soak-ci
soak-ci: ## the long tests of this commit, as many as end 70 minutes after BEGAN (date +%s)
	@$(MAKE) --no-print-directory deps PACKAGES='$(PACKAGES) exfatprogs exfat-fuse'
	$(SOAK) ci $(if $(BEGAN),-began $(BEGAN))

.PHONY: soak-next
soak-next: ## which long tests continuous integration chooses at this commit (COMMIT=N: at the Nth)
	@go run ./lab/soak next $(if $(COMMIT),-commit $(COMMIT))

.PHONY: bench
bench: ## tables: ours against what one would use instead (about an hour; GPROV_BENCH_ROUNDS, GPROV_BENCH_BUILDS)
	@$(MAKE) --no-print-directory deps PACKAGES='$(PACKAGES) swupdate cpio openssl nwipe'
	$(SUDO) env GPROV_BENCH_ROUNDS="$(GPROV_BENCH_ROUNDS)" GPROV_BENCH_BUILDS="$(GPROV_BENCH_BUILDS)" CGO_ENABLED=0 \
		$(shell which go) test -count=1 -tags bench -timeout 6h -v -run '^TestBench(|Initramfs|Erase)$$' ./lab

.PHONY: generate
generate: ## make what is generated
	go generate ./...

.PHONY: clean
clean: ## remove what was built (the cache of root filesystems stays)
	rm -rf bin
