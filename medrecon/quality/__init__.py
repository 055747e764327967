"""How far to trust a result: residual, coverage, uncertainty, verdict, report."""
