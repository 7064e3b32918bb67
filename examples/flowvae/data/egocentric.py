"""Egocentric coordinates: what moves is in the middle and heads to the right, wherever it was filmed.

Reference:
    Wiltschko et al., Mapping sub-second structure in mouse behavior, Neuron 2015.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..footage import position

# The body is what is brighter than this share of the brightest pixel; a tail is darker, but brighter than that.
_BODY, _TAIL = 0.6, 0.1
# A tail is sought so many standard deviations of the body along it, and to its sides.
_LONG, _WIDE = 5.0, 3.0


def heading(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and heading of what is bright on black, without knowing what it is.

    The middle and the long axis are those of the body, the brightest part. Forwards is where the body tapers, to a
    nose, and no tail is: where twice the body's skewness along the axis exceeds the share by which more of all that
    lies along the axis is on that side, weighted with the cube of its distance. Of two animals, the line between them
    is the axis, and forwards is towards the dimmer or smaller one.

    Args:
        frames: Square pictures on black, `[N, 3, S, S]` in [0, 1].

    Returns:
        Middle `[N, 2]` (right, down; the picture reaches from −1 to 1) and heading `[N]` (radians, clockwise from the
        right).
    """
    grey = frames.mean(1)
    grey = grey / grey.amax((-2, -1), keepdim=True).clamp(min=1e-6)
    body, drawn = (grey - _BODY).clamp(min=0), (grey - _TAIL).clamp(min=0)
    centre, total, axis, _ = position(body)
    size = grey.shape[-1]
    # In halves of the picture, from its middle.
    middle = (2 * centre + 1) / size - 1
    place = ((2 * torch.arange(size) + 1) / size - 1).to(grey)
    dx, dy = place - middle[:, :1, None], place[:, None] - middle[:, 1:, None]
    cos, sin = axis.cos()[:, None, None], axis.sin()[:, None, None]
    along, across = cos * dx + sin * dy, cos * dy - sin * dx

    def mean(values: Tensor) -> Tensor:
        return (body * values).sum((-2, -1), keepdim=True) / total[:, None, None]

    length, width = (mean(way.square()).sqrt().clamp(min=1 / size) for way in (along, across))
    around = drawn * (dx.square() + dy.square() < (_LONG * length).square()) * (across.abs() < _WIDE * width)
    nose = mean((along / length) ** 3)[:, 0, 0]
    tail = (around * along**3).sum((-2, -1)) / (around * along.abs() ** 3).sum((-2, -1)).clamp(min=1e-9)
    return middle, axis + torch.pi * (2 * nose < tail)


def egocentric(snippets: Tensor, reference: Tensor, size: int) -> Tensor:
    """Snippets in coordinates of what a frame of each shows: it is in the middle there, and heads to the right.

    Args:
        snippets: Square pictures on black `[N, F, 3, S, S]` in [0, 1].
        reference: The frames that give the coordinates, of the snippets or of about their time, `[N, 3, S, S]`.
        size: Height and width of the pictures that are cut out, at the scale they have.

    Returns:
        Snippets `[N, F, 3, size, size]`, in which all frames of one have been moved and turned alike.
    """
    count, steps, _, _, filmed = snippets.shape
    middle, angle = heading(reference)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
    # A point p of the new picture comes from R p · size / S + middle.
    where = torch.cat((turn * size / filmed, middle[..., None]), -1)
    grid = F.affine_grid(where, [count, 1, size, size], align_corners=False)
    return F.grid_sample(snippets.flatten(1, 2), grid, align_corners=False).unflatten(1, (steps, 3))
