"""A stack file becomes a Stack: read → interpolate → merge → check → resolve. Pure but for reading the files it names."""
