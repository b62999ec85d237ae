"""What tests share: servers of their own, data for them, programs that are killed, and independent answers to compare with."""
