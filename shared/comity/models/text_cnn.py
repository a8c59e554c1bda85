"""Convolutions over word embeddings (Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from comity.errors import InvalidValue

_WIDTHS = (3, 4, 5)
_LARGEST_VOCABULARY = 2**20
_WIDEST = 1024


def text_cnn(
    input_shape: tuple[int, ...], classes: int, *, vocabulary: int = 2**14, dimensions: int = 100, filters: int = 100
) -> nn.Module:
    """A sentence classifier: word numbers `[batch, words]` to `[batch, classes]`; 1,759,302 parameters for two classes.

    Words come as whole numbers above 0, in any range; 0 fills up a sentence. The model folds them into its vocabulary, so
    that what hashes words need not know how large that is. Embeddings start at random and there is no dropout, so
    training draws no random numbers in the forward pass.

    Args:
        input_shape: Words of a sentence, at least 5.
        classes: Outputs.
        vocabulary: Rows of the embedding, that of no word among them, 2 to 2**20.
        dimensions: Columns of the embedding, 1 to 1024.
        filters: Filters of each of the widths 3, 4 and 5, 1 to 1024.

    Raises:
        InvalidValue: The shape is another, or an option is out of its range.
    """
    if len(input_shape) != 1 or input_shape[0] < max(_WIDTHS):
        raise InvalidValue(
            "Model 'text-cnn' cannot take this input",
            expected=f"[words], at least {max(_WIDTHS)} of them",
            received=list(input_shape),
            action="choose a model that fits the data",
        )
    bounds = {
        "vocabulary": (vocabulary, 2, _LARGEST_VOCABULARY),
        "dimensions": (dimensions, 1, _WIDEST),
        "filters": (filters, 1, _WIDEST),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise InvalidValue(
                f"Model 'text-cnn': option {name!r}",
                expected=f"{least} to {most}",
                received=value,
                action="correct the model's options",
            )
    return TextCnn(vocabulary, dimensions, filters, classes)


class TextCnn(nn.Module):
    """Each filter's strongest answer anywhere in a sentence, and a linear layer over them."""

    def __init__(self, vocabulary: int, dimensions: int, filters: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dimensions, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(dimensions, filters, width) for width in _WIDTHS)
        self.fc = nn.Linear(filters * len(_WIDTHS), classes)

    def forward(self, words: Tensor) -> Tensor:
        """`[batch, words]` to `[batch, classes]`."""
        numbers = words.to(torch.int64)
        folded = torch.where(numbers == 0, 0, 1 + numbers % (self.embedding.num_embeddings - 1))
        embedded = self.embedding(folded).transpose(1, 2)
        answers = [functional.relu(convolution(embedded)).amax(dim=2) for convolution in self.convolutions]
        return cast("Tensor", self.fc(torch.cat(answers, dim=1)))
