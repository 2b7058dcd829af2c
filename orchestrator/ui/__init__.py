"""The page of the cluster: its files, and the routes that it has beside those of the API. `static/` is what a browser gets."""
