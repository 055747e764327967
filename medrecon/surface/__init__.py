"""Triangle surfaces from volumes: extract, refine, measure."""
