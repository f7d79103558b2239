# Installing and packaging; included by the Makefile.
#
#   make install [DESTDIR=] [PREFIX=/usr/local]    everything in dist/files.txt
#   make deb                                       target/debian/cortexd_*.deb
#   make notices                                   the notices of what is compiled in
#   make system                                    the package, on booted Debian hosts (as root)
#
# PROFILE is Cargo's: release is what ships. `make system PROFILE=tested` takes the programs that the other tests
# have built in their place, which takes no time.

PREFIX ?= /usr/local
CARGO ?= cargo
PROFILE ?= release
export PROFILE
FILES := dist/files.txt
# Where Cargo puts programs. Completions stay beside the source, where cargo-deb looks for what is no program.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PROGRAMS = $(TARGET)/$(PROFILE)
COMPLETIONS := target/dist/completions
# A package that was built for the tests does not lie where one that ships does.
DEB_release := $(TARGET)/debian
DEB = $(or $(DEB_$(PROFILE)),$(PROGRAMS)/debian)
# Nor is it sent anywhere, so that it need not be small. (xz: cargo-deb's own gz takes minutes.)
COMPRESSION = $(if $(filter-out release,$(PROFILE)),--fast)
# The lines of the list, with PREFIX and the place of the programs filled in.
LIST = sed '/^\#/d; /^$$/d; s|PREFIX/|$(PREFIX)/|; s|^target/release/|$(PROGRAMS)/|' $(FILES)

# Where this machine keeps sources is nobody's business, and two machines are to build the same programs. Panics
# and debugging symbols name files by what stands right of the last `=`.
REMAPPED = $(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo $(abspath $(TARGET))=/target $(CURDIR)=/cortexd

.PHONY: release build-env completions install uninstall deb system notices

BUILD_ENV = RUSTFLAGS="$(strip $(RUSTFLAGS) $(REMAPPED:%=--remap-path-prefix=%))" CFLAGS="$(strip $(CFLAGS) $(REMAPPED:%=-ffile-prefix-map=%))"
BUILD = $(BUILD_ENV) $(CARGO) build --profile $(PROFILE) --locked -p cortexd -p cortex-top
# As the other tests build them, and copied to where cargo-deb looks for a profile's programs.
BUILD_tested = $(CARGO) build --locked --workspace --all-targets && install -D -t $(PROGRAMS) $(PROGRAMS_OF_TESTS)
PROGRAMS_OF_TESTS = $(addprefix $(TARGET)/debug/,cortexd cortex cortex-top)

release: ## Build what is installed
	$(or $(BUILD_$(PROFILE)),$(BUILD))

# For who builds the programs otherwise, as tests do: with these, they too name no directory of this machine.
build-env: ## Print what to put before a command that builds
	@echo 'export $(BUILD_ENV)'

completions: release ## Write the completion scripts
	mkdir -p $(COMPLETIONS)
	$(PROGRAMS)/cortex completions bash >$(COMPLETIONS)/cortex.bash
	$(PROGRAMS)/cortex completions zsh >$(COMPLETIONS)/_cortex
	$(PROGRAMS)/cortex completions fish >$(COMPLETIONS)/cortex.fish

# One line of the list is "source destination mode". A configuration file that is there stays as it is.
# The units name the programs under /usr; with another PREFIX they are told so.
install: completions ## Install to DESTDIR, below PREFIX
	@set -e; $(LIST) | while read -r source destination mode; do \
		target="$(DESTDIR)$$destination"; \
		case "$$destination" in \
		/etc/*) if [ -e "$$target" ]; then echo "kept $$target"; continue; fi ;; \
		esac; \
		install -D -m "$$mode" "$$source" "$$target"; \
		case "$$destination" in \
		*.service) sed -i 's|/usr/libexec/cortexd|$(PREFIX)/libexec/cortexd|; s|/usr/bin/cortex|$(PREFIX)/bin/cortex|' "$$target" ;; \
		esac; \
		echo "installed $$target"; \
	done
	@if [ -z "$(DESTDIR)" ]; then echo "next: systemd-sysusers && systemctl daemon-reload && systemctl enable --now cortexd"; fi

# The configuration and the data stay.
uninstall: ## Remove what was installed, but the settings and the data
	@$(LIST) | while read -r source destination mode; do \
		case "$$destination" in /etc/*) continue ;; esac; \
		rm -f "$(DESTDIR)$$destination"; \
	done

# Needs: cargo install cargo-deb --locked
deb: completions ## Build the Debian package (needs cargo-deb)
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(CARGO) deb --no-build --locked --dbgsym $(COMPRESSION) --profile $(PROFILE) --output $(DEB)/

# What is compiled in, with its terms: to be run when a dependency changes, which tests/dist.rs notices. It reads the
# sources that Cargo keeps. Needs: cargo install cargo-about --locked
notices: ## Write the notices of third parties anew (needs cargo-about)
	$(CARGO) about generate dist/notices/about.hbs --config dist/notices/about.toml --locked --output-file dist/notices/third-party-notices.txt

# As root, with systemd-container, debootstrap, iproute2 and lintian installed. The first run makes a Debian
# image below /var/cache. SYSTEM_TESTS_RELEASE=trixie tests on Debian 13; SYSTEM_TESTS_GOLDEN=write writes
# the transcripts in tests/system/golden/ anew. (--workspace: with what the other tests have built already.)
system: deb ## Test the package on booted Debian hosts (as root)
	$(CARGO) test --locked --workspace --test debian
