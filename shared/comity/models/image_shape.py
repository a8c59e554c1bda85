"""What a convolutional model can take in."""

from __future__ import annotations

from comity.errors import InvalidValue


def image_shape(
    model: str, input_shape: tuple[int, ...], *, channels: tuple[int, ...], smallest: int, largest: int | None = None
) -> tuple[int, int, int]:
    """Checks the shape of one image.

    Args:
        model: The model's name, for the error.
        input_shape: The shape to check.
        channels: The numbers of channels that the model takes.
        smallest: The least height and width, in pixels.
        largest: The greatest height and width, in pixels; None is any.

    Returns:
        Channels, height, width.

    Raises:
        InvalidValue: The model cannot take this shape.
    """
    match input_shape:
        case (depth, height, width) if (
            depth in channels and min(height, width) >= smallest and (largest is None or max(height, width) <= largest)
        ):
            return depth, height, width
    sides = f"{smallest}x{smallest}" if largest == smallest else f"at least {smallest}x{smallest}"
    raise InvalidValue(
        f"Model {model!r} cannot take this input",
        expected=f"[channels, height, width] with {' or '.join(map(str, channels))} channels and {sides} pixels",
        received=list(input_shape),
        action="choose a model that fits the data, or 'mlp', which takes any shape",
    )
