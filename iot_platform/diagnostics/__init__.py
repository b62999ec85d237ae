"""Questions about any deployment: its status, the way of one record, and what is wrong (doctor). Reads only."""
