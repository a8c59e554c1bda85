"""The list of samples that a client hands in each round: those of its own that the server trains on, with their labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comity.errors import MalformedMessage
from comity.tensors import Blob, Layout

_SAMPLES, _LABELS = "samples", "labels"
_DIGEST = 32
_NONE = -1


def list_layout(most: int) -> Layout:
    """What a list holds, with room for so many samples: always as long, however many they are."""
    return Layout.of(
        {
            _SAMPLES: torch.empty(max(most, 1), _DIGEST, dtype=torch.uint8),
            _LABELS: torch.empty(max(most, 1), dtype=torch.int64),
        }
    )


def listed(samples: Sequence[bytes], labels: Sequence[int], most: int) -> Blob:
    """A list.

    Args:
        samples: Digests of the samples' blobs, each once, at most `most`.
        labels: Of each, 0 or more.
        most: For how many there is room.
    """
    digests = torch.zeros(max(most, 1), _DIGEST, dtype=torch.uint8)
    classes = torch.full((max(most, 1),), _NONE, dtype=torch.int64)
    for place, (sample, label) in enumerate(zip(samples, labels, strict=True)):
        digests[place] = torch.frombuffer(bytearray(sample), dtype=torch.uint8)
        classes[place] = label
    return list_layout(most).pack({_SAMPLES: digests, _LABELS: classes})


def read_list(blob: Blob, layout: Layout, classes: int) -> list[tuple[bytes, int]]:
    """What a list says: digests and labels.

    Raises:
        MalformedMessage: A label is none, a sample is there twice, or there are gaps.
    """
    tensors = layout.view(blob.data)
    labels = tensors[_LABELS].tolist()
    count = next((place for place, label in enumerate(labels) if label == _NONE), len(labels))
    digests = [bytes(each) for each in tensors[_SAMPLES][:count].tolist()]
    if (
        not all(0 <= label < classes for label in labels[:count])
        or any(label != _NONE for label in labels[count:])
        or len(set(digests)) < count
    ):
        raise MalformedMessage(
            "a list of samples cannot be read",
            expected=f"samples, each once, with labels from 0 to {classes - 1}",
            received=f"{count}, {len(set(digests))} of them different",
            action="list what was uploaded",
        )
    return list(zip(digests, labels[:count], strict=True))
