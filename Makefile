# Targets of the contract; each works on a fresh Debian machine with root and package registries.
PACKAGES = runc crun conmon nftables iptables iproute2 buildah docker-registry curl busybox-static mmdebstrap util-linux procps tar openssh-server openssh-client openssl etcd-server etcd-client sshfs git gnupg age tini iperf3 wireguard-go uidmap slirp4netns caddy pebble python3-venv
PROGRAMS = runc crun conmon nft ip buildah docker-registry curl busybox mmdebstrap nsenter ps tar sshd ssh-keygen sshfs etcd etcdctl openssl tini age wireguard-go iptables gpg newuidmap slirp4netns caddy pebble
PYTEST = .venv/bin/python -m pytest


.PHONY: setup check test test-vm lint bench fuzz quickstart
setup:
	@bash tools/setup "$(PACKAGES)" "$(PROGRAMS)"

# needs no root, and installs Python packages alone
check:
	@bash tools/setup "" ""
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTEST) -q -n 2 --timeout 60 -m "not kernel and not etcd and not slow" tests

test: setup
	$(PYTEST) -n 4 --dist loadfile --no-loadscope-reorder tests

test-vm: setup
	.venv/bin/python tests/vm/cluster.py
	bash tests/vm/run tests/kernel/test_stack.py tests/kernel/test_encrypted.py tests/kernel/test_apparmor.py tests/kernel/test_coexist.py tests/kernel/test_userns.py tests/kernel/test_rootless.py tests/kernel/test_time.py
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

fuzz: setup
	.venv/bin/python -m tests.fuzz
