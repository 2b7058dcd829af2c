"""The networks of one node, from the requests of manifest and Engine API to kernel, firewall and data path.

table       which networks there are
endpoints   which containers are on them, with addresses (`addresses`), published ports (`ports`) and names (`views`)
translate   pure: the state of kernel, firewall and data path that follows from these
applier     applies it to kernel and firewall (`nftables`) on a thread; `dataplane` hands over names and ports
healing     undoes changes by others
networks    the interface of this package for the engine
"""
