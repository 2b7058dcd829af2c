"""Volumes: named and anonymous ones, kept in the state folder of the instance."""
