"""The version of all that this tree is built into: distribution, packages, command, server and agent."""

VERSION = "0.1.0"
