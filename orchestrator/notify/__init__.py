"""Tells people and programs what happened: what is in trouble, once, by each way that config.yml names, until it has
arrived."""
