# Targets of the contract; each works on a fresh Debian machine with root and package registries.
PACKAGES = runc crun conmon nftables iptables iproute2 buildah docker-registry curl busybox-static mmdebstrap util-linux procps tar openssh-server openssh-client openssl etcd-server etcd-client sshfs git gnupg age tini iperf3 wireguard-go uidmap slirp4netns caddy haproxy pebble prometheus chromium chromium-driver python3-venv mandoc zsh fish restic postgresql
PROGRAMS = runc crun conmon nft ip buildah docker-registry curl busybox mmdebstrap nsenter ps tar sshd ssh-keygen sshfs etcd etcdctl openssl tini age wireguard-go iptables gpg newuidmap slirp4netns caddy haproxy pebble promtool chromium chromedriver mandoc zsh fish restic
PYTEST = .venv/bin/python -m pytest
# in an order of chance: a test that needs another is none
SIDE_BY_SIDE = -n 4 --dist loadfile --no-loadscope-reorder --ignore tests/packaging
UNIT = -p randomly --ignore tests/kernel --ignore tests/escape -m "not kernel and not etcd and not slow"
# rewritten assertions are kept from run to run, where the environment forbids it too: seconds in each process
check coverage test: export PYTHONDONTWRITEBYTECODE =
# how many times longer than on a machine at rest a test waits for what must come: a disk or a processor that others keep busy
# is no fault of what is tested
test test-long: export PYSTACK_TEST_PATIENCE ?= 3

# what packages are built and tried with, and nothing else needs
RELEASE_PACKAGES = debhelper lintian dpkg-dev fakeroot python3-venv mmdebstrap shellcheck
RELEASE_PROGRAMS = dh lintian dpkg-buildpackage fakeroot mmdebstrap shellcheck

.PHONY: setup check coverage test test-long test-vm test-vagrant test-packages lint bench fuzz simulate faults soak stacks quickstart man docs picture deb dist release
setup:
	@bash tools/setup "$(PACKAGES)" "$(PROGRAMS)"

# needs no root, and installs Python packages alone
check:
	@bash tools/setup "" ""
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	# more workers than processors: many a test waits for a program. Properties are tried on fewer examples than in `make test`
	$(PYTEST) -q -n 3 --timeout 60 --hypothesis-profile check $(UNIT) tests

# branches of the code that unit tests take, without root; build/coverage/index.html shows them by line
coverage:
	@bash tools/setup "" ""
	$(PYTEST) -q -n 2 --timeout 120 $(UNIT) --cov --cov-report=term:skip-covered --cov-report=html:build/coverage tests

test: setup
	$(PYTEST) $(SIDE_BY_SIDE) -m "not long" tests

# what goes through every case of a kind: CI runs it after `make test`
test-long: setup
	$(PYTEST) $(SIDE_BY_SIDE) -m long tests

test-vm: setup
	.venv/bin/python tests/vm/cluster.py
	bash tests/vm/run tests/kernel/test_stack.py tests/kernel/test_encrypted.py tests/kernel/test_apparmor.py tests/kernel/test_coexist.py tests/kernel/test_userns.py tests/kernel/test_rootless.py tests/kernel/test_time.py tests/kernel/test_project_quotas.py tests/kernel/test_sizes.py
	bash tests/vm/run tests/kernel/test_lan.py tests/kernel/test_volumes.py -k "ipvlan or vlan or nfs"

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

quickstart: setup
	bash examples/quickstart/run

bench: setup
	.venv/bin/python -m bench

# every cell of the fault matrix on a real lab; its table goes to docs/reliability.md
faults: setup
	.venv/bin/python -m tests.faults --write

# random work and faults on one lab for hours; what its machines hold at the end goes to docs/reliability.md
soak: setup
	.venv/bin/python -m tests.soak --hours $(or $(HOURS),2) --write

# every stack of the shared corpora through load, plan, up, change and down on a lab; BUDGET and KEPT make parts of it
stacks: setup
	.venv/bin/python -m tests.stacks $(if $(BUDGET),--budget $(BUDGET)) $(if $(KEPT),--kept $(KEPT))

# one thread, virtual time: a seed that fails is printed, and `python -m tests.simulator --seed N` is it again
simulate: setup
	.venv/bin/python -m tests.simulator --seeds $(or $(SEEDS),10000) --jobs $(or $(JOBS),2)

fuzz: setup
	.venv/bin/python -m tests.fuzz

# man pages and the completions of three shells, in build/
man: setup
	.venv/bin/python packaging/man.py build/man
	@mkdir -p build/completion
	for shell in bash zsh fish; do .venv/bin/pystack completion $$shell > build/completion/$$shell; done

# the guide as a site, in build/site
docs: setup
	.venv/bin/python tools/reference.py
	.venv/bin/mkdocs build --quiet

# docs/terminal.svg: a real terminal, on the quick start's lab
picture: setup
	bash tools/picture

deb: man
	@bash tools/setup "$(RELEASE_PACKAGES)" "$(RELEASE_PROGRAMS)"
	bash packaging/build-deb

dist: setup
	bash packaging/dist build/dist

# all artefacts, their checksums, SBOM and the part of the changelog, in build/release
release: deb dist
	.venv/bin/python packaging/release.py build/release build/dist build/deb

# vagrant/ booted by libvirt: three machines from nothing to answers, halted, brought again, reloaded, destroyed
test-vagrant: setup
	bash tests/vm/vagrant

# packages built twice, checked by their own tools, installed in an empty environment and in a bare Debian
test-packages: release
	$(PYTEST) -q tests/packaging
