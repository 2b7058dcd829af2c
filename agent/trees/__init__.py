"""Foreign file trees: the files of images, containers, volumes, archives and repositories are touched only here.

Their authors may be hostile, so the rules of this package are:

- No process ever has foreign files as its root directory, nor a foreign directory on its import path. Paths are resolved by the
kernel, below a directory descriptor (`tree.Tree`, openat2(2)), and changed by `*at` calls; owners are numbers. - Code that
parses or writes much runs in a worker process, which `process` starts and `confine` confines first, by way of `sandbox`: an
empty root, namespaces of its own, the few capabilities that it needs, a seccomp allow list, Landlock, resource limits. -
Nothing here asks libc for a name (users, groups, hosts, locale, time zone, character sets), and no traceback is formatted with
source lines: `confine.as_reply` names file, line and function from memory. - A program of the host's that has to see a
foreign tree (GNU tar, sftp-server) runs in a `view`. - An error is one sentence, and nothing half-made stays.

tests/trees/test_rules.py holds the rules over the whole source. Source: openat2(2); CVE-2019-14271, CVE-2018-15664.
"""
