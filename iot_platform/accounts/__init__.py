"""Users, sessions and API keys of the console: who may see which tenant, and what he may do there."""
