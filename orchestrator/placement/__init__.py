"""Pure: which task goes to which node, and every reason why."""
