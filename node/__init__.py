"""The application entity: everything that speaks to somebody."""
