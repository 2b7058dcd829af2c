"""Pure: what to do. Expand, address, diff, and the order in which it can be done."""
