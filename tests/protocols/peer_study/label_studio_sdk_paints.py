"""What the real SDK of Label Studio's makes of painted masks; run by an interpreter that has it.

Reads the predictions of `tasks.json` in a folder as masks, checks them against `truth.npz`, a mask by sample, and writes them as
its own encoder does, as annotations of an export, `exported.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface

folder = Path(sys.argv[1])
interface = LabelInterface((folder / "labelling.xml").read_text())
interface.validate()
names = interface.get_tag("label").labels
tasks, truth = json.loads((folder / "tasks.json").read_text()), np.load(folder / "truth.npz")
for number, task in enumerate(tasks, start=1):
    assert interface.validate_task({"data": task["data"]}), task["data"]
    mask = truth[task["data"]["comity_sample"]]
    height, width = mask.shape
    found, results = np.full_like(mask, 255), []
    (prediction,) = task["predictions"]
    assert interface.validate_prediction(prediction), prediction
    for each in prediction["result"]:
        value = each["value"]
        painted = brush.decode_rle(value["rle"]).reshape(height, width, 4)[:, :, 3] > 0
        label = names.index(value["brushlabels"][0])
        found[painted] = label
        whole = {"rle": brush.mask2rle(np.where(painted, 255, 0).astype(np.uint8)), "format": "rle"}
        results.append(each | {"value": whole | {"brushlabels": value["brushlabels"]}})
    assert (found == mask).all()
    annotation = {"result": results, "completed_by": 1, "was_cancelled": False, "id": number}
    assert interface.validate_annotation(annotation), annotation
    task |= {"id": number, "annotations": [annotation], "predictions": [number]}
(folder / "exported.json").write_text(json.dumps(tasks))
