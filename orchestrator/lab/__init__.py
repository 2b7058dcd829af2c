"""Labs: several nodes on one host, in namespaces. One module for each command that changes a lab, and `machine` for what runs
inside."""
