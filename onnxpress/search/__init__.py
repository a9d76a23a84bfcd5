"""One search over all families of passes, for the best model within a budget."""
