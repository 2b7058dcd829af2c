"""Network drivers: links, addresses, routes, firewall, names. Knows no stack, no image and no node role."""
