"""The graph: reading, writing, walking, editing, shapes, names, sites, rules and invariants."""
