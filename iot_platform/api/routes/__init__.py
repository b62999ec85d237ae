"""The addresses of the API, by subject; each module has `router`, and beside each route the model of its answer."""
