"""Side-by-side runs against other tools, on real models; see benchmarks/README.md."""
