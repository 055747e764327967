"""Scripts that measure what is promised; each prints a table and writes JSON where asked."""
