"""Forward models y = A x with their exact adjoints."""
