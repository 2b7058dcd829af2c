"""Programs that use a node's Docker socket by client libraries of others, each as its documentation shows. They run on the
interpreter that has the library, against any daemon: `DOCKER_HOST=unix://… python tests/foreign/aiodocker_use.py`."""
