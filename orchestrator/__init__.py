"""The control plane: knows stacks and nodes, touches no kernel object."""

__version__ = "0.1.0"
