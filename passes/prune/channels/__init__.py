"""Units of coupled axes go for good: channels, heads, neurons, hidden states."""
