"""A lab under random work and faults for hours: what it holds must come back to what it was."""
