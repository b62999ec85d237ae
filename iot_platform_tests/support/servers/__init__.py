"""Real servers for tests, on free ports with data of their own, and what is done to them."""
