"""Few distinct values in place of many weights."""
