"""What runs inside the environment of another tool: each script imports that tool, `measure` and nothing else."""
