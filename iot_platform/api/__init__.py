"""The read API behind the console: HTTP for one tenant at a time, each read in a session of the tenant's own login (docs/console.md)."""
