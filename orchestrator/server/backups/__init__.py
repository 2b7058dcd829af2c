"""Backups of volumes: what of them is due, what becomes of it, and the way back."""
