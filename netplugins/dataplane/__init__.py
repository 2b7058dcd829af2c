"""The data path's own process: DNS for containers and the sockets of published ports.

It outlives the agent, so names and ports go on while the agent is down or being upgraded. Its state is one document,
`dataplane.json`, which the agent replaces atomically; a line on the unix socket beside it says "read it again" and is
answered once that is done. Killed and started again it serves the same document.

    python -m netplugins.dataplane DIRECTORY
"""
