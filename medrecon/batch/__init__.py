"""Many studies: plan, ledger, run."""
