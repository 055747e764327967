"""What the command line shows: progress, tables, errors. No work is done here."""
