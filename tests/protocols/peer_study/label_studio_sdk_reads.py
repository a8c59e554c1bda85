"""What the real SDK of Label Studio's makes of our files; run by an interpreter that has it.

Reads `labelling.xml` and `tasks.json` in a folder, checks both, has its own converter read an export in which every task is
labelled as `truth.json` says, and writes that export, `exported.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

folder = Path(sys.argv[1])
config = (folder / "labelling.xml").read_text()
tasks = json.loads((folder / "tasks.json").read_text())
truth = json.loads((folder / "truth.json").read_text())
interface = LabelInterface(config)
interface.validate()
for number, task in enumerate(tasks, start=1):
    assert interface.validate_task({"data": task["data"]}), task["data"]
    for prediction in task.get("predictions", []):
        assert interface.validate_prediction(prediction), prediction
    sample = task["data"]["comity_sample"]
    # Its own objects write the annotation; an export carries what a server adds.
    annotation = {"result": [], "completed_by": 1, "was_cancelled": truth[sample] is None, "id": number}
    if truth[sample] is not None:
        (region,) = interface.create_regions({"label": truth[sample]})
        annotation["result"].append(region._dict())
        assert interface.validate_annotation(annotation), annotation
    task |= {"id": number, "annotations": [annotation], "predictions": [number], "created_at": "2026-01-02T03:04:05Z"}
(folder / "exported.json").write_text(json.dumps(tasks))
converter = Converter(config, str(folder), download_resources=False)
converter.convert_to_json_min(str(folder / "exported.json"), str(folder / "min"), is_dir=False)
(read,) = (folder / "min").glob("*.json")
found = {each["comity_sample"]: each.get("label") for each in json.loads(read.read_text())}
assert found == {sample: name for sample, name in truth.items() if name is not None}, found
sys.stdout.write(f"{len(found)} read\n")
