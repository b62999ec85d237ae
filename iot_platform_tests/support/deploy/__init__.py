"""What deployment is done with: programs from packages, registries, nodes that are root file systems."""
