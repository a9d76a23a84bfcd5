"""Write the JSON schema of pipeline files that editors read, with the passes that come with onnxpress.

Run it when a pass, an option or a field changes: `python scripts/write_schema.py`; a test tells.
"""

from pathlib import Path

from onnxpress.deployment import schema
from onnxpress.passes.registry import BUILT_IN
from onnxpress.report import to_json, write_text

SHIPPED = Path(__file__).parents[1] / "onnxpress" / "schema" / "pipeline.json"

if __name__ == "__main__":
    write_text(to_json(schema(sorted(BUILT_IN))) + "\n", SHIPPED)
