"""``python -m monitor.simulate`` writes the published schema of scenario files anew from the loader's model."""

import json
from pathlib import Path

from .scenario import json_schema

Path(__file__).with_name("scenario.schema.json").write_text(
    json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8"
)
