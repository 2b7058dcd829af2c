"""REST API and controller."""
