"""A cluster in one thread, under virtual time and a seed: the production control plane over a simulated network and nodes.

`python -m tests.simulator --seeds 200` tries seeds; `--seed N` is one of them again, with what happened. A node's agent is
simulated, but for what decides: `agent.reconcile`, the fences of a boot and of a lease, and the changes of a manifest.
"""
