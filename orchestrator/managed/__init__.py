"""etcd that pystack manages: a member on each server's host, with certificates, and nothing to set up by hand.

`pystack server init` makes the first member, `pystack server join` each further one. Servers that were given an etcd
(--store) have none of this. Source: etcd, runtime reconfiguration; etcd, design of learners, which do
not vote until they are in step.
"""
