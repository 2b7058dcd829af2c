"""Images: registry client, content store, layers, archives, build."""
