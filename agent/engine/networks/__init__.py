"""The networks of one node, from what the manifest and the Engine API ask for to kernel, firewall and data path.

table       which networks there are
endpoints   which containers are on them, with addresses (`addresses`), published ports (`ports`) and names (`views`)
translate   pure: what follows from these for the kernel, the firewall and the data path
applier     makes kernel and firewall agree with it (`nftables`), on a thread; `dataplane` hands over names and ports
healing     notices what others change
networks    the face of it all, for the engine
"""
