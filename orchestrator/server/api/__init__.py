"""The control plane's REST API; `routes.py` has the table of all routes."""
