"""Independent answers that tests compare with: rights, query plans, Grafana's macros."""
