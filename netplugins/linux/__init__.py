"""The kernel's interfaces: its numbers, netlink sockets and messages, network namespaces. Knows no network and no driver."""
