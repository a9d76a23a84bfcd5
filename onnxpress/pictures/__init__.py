"""Pictures of a report: HTML and SVG as text, drawn without any library, in the page's own colours."""
