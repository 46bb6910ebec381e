"""The tests: laws, closed forms, invariances, comparisons with independent references."""
