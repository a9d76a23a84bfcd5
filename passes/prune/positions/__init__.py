"""The same positions of a kernel go for all filters of a layer, and the layer becomes a smaller dense product."""
