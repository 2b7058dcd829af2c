"""Who may do what: users and tokens, sessions of browsers, the rights of routes, and the log of changes."""
