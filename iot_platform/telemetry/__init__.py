"""What a record is (envelope, records, counters, errors, sums). decode/, duplicates/, drain/ and replay/ are what is done with it."""
