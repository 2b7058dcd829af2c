"""The data path's own process: DNS for containers and the sockets of published ports.

It outlives the agent, so names and ports work while the agent is down or being upgraded. Its state is one document,
`dataplane.json`, which the agent replaces atomically; a line on the unix socket beside it makes it read the document again,
and gets its answer when that is done. After a restart it serves the same document.

    python -m netplugins.dataplane DIRECTORY
"""
