"""How two simulated mice move: they wander, approach, circle and follow each other."""

from typing import NamedTuple

import numpy as np

BEHAVIOURS = ("approach", "circle", "follow", "other")
# The frame's width and height in pixels, and the margin in which no animal's centre lies.
WIDTH, HEIGHT, MARGIN = 240, 136, 23
_LOW, _HIGH = (MARGIN, MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN)
# Walking speeds in pixels, and the fastest turn in radians, per frame.
_WALK, _LEAD, _RUN, _TURN = 1.3, 1.8, 2.4, 0.14
# Where the body's parts lie along its axis and across it, in pixels: nose, ears, neck, hips, tail base.
_BODY = np.array([(15, 0), (9, -4.5), (9, 4.5), (6, 0), (-8, -5), (-8, 5), (-13, 0)], dtype=float)
TAIL_JOINTS, TAIL_LINK = 14, 2.4
# Between the animals' centres: nose to tail base they touch at `_APART`; an approach ends at `_MEET`.
_APART, _MEET = 35, 39
# The oval on which an animal that is followed leads round the cage, and the frames after which its follower is there.
_CENTRE, _OVAL, _LATER = np.array([WIDTH, HEIGHT]) / 2, np.array([84.0, 40.0]), 15


class Track(NamedTuple):
    """Positions `[T, 2, 2]` of two mice, headings of the front and the back half `[T, 2, 2]`, tails, behaviours."""

    position: np.ndarray
    heading: np.ndarray
    tail: np.ndarray
    behaviour: np.ndarray

    def keypoints(self) -> np.ndarray:
        """Nose, ears, neck, hips and tail base, `[T, 2, 2, 7]` in pixels as (x, y)."""
        front = _BODY[:, 0] > 0
        angle = np.where(front, self.heading[..., :1], self.heading[..., 1:])
        x = np.cos(angle) * _BODY[:, 0] - np.sin(angle) * _BODY[:, 1]
        y = np.sin(angle) * _BODY[:, 0] + np.cos(angle) * _BODY[:, 1]
        return self.position[..., None] + np.stack((x, y), -2)


class _Mouse:
    def __init__(self, random: np.random.RandomState) -> None:
        self.random = random
        self.position = self._anywhere()
        self.front = self.back = random.uniform(-np.pi, np.pi)
        self.speed, self.goal = 0.0, self._anywhere()
        self.tail = self.tail_base() - np.outer(np.arange(TAIL_JOINTS) * TAIL_LINK, self._direction(self.back))

    def walk(self, goal: np.ndarray, speed: float) -> None:
        """Turn towards a goal and go there; slow down to turn and to stop."""
        way = np.clip(goal, _LOW, _HIGH) - self.position
        distance = np.hypot(*way)
        turn = _wrapped(np.arctan2(way[1], way[0]) - self.front) if distance > 2 else 0.0
        wanted = speed * min(1.0, distance / 12) * max(0.15, np.cos(turn))
        self.speed += 0.2 * (wanted - self.speed)
        self._move(turn if speed else 0.0)

    def rest(self, look_at: np.ndarray | None = None) -> None:
        """Stop, and turn slowly towards a point."""
        self.speed *= 0.8
        turn = 0.0
        if look_at is not None:
            way = look_at - self.position
            turn = 0.3 * _wrapped(np.arctan2(way[1], way[0]) - self.front)
        self._move(turn)

    def wander(self) -> None:
        """Walk to one random place after another."""
        if np.hypot(*(self.goal - self.position)) < 15 or self.random.rand() < 0.01:
            self.goal = self._anywhere()
        self.walk(self.goal, _WALK)

    def bearing(self) -> float:
        """Where on the oval it is, as an angle."""
        x, y = (self.position - _CENTRE) / _OVAL
        return np.arctan2(y, x)

    def tail_base(self) -> np.ndarray:
        return self.position + _BODY[-1, 0] * self._direction(self.back)

    def _move(self, turn: float) -> None:
        self.front += np.clip(0.25 * turn, -_TURN, _TURN)
        # The back half follows the front half, so the body bends in a curve.
        self.back += 0.18 * _wrapped(self.front - self.back)
        step = self.speed * self._direction(self.front)
        self.position = np.clip(self.position + step, _LOW, _HIGH)
        self.tail[0] = self.tail_base()
        for k in range(1, TAIL_JOINTS):
            link = self.tail[k] - self.tail[k - 1]
            self.tail[k] = self.tail[k - 1] + link * (TAIL_LINK / max(np.hypot(*link), 1e-6))

    def _anywhere(self) -> np.ndarray:
        return self.random.uniform(_LOW, _HIGH)

    @staticmethod
    def _direction(angle: float) -> np.ndarray:
        return np.array([np.cos(angle), np.sin(angle)])


def simulate(frames: int, random: np.random.RandomState) -> Track:
    """Two mice that behave in one way for some seconds, then in another.

    Args:
        frames: Number of frames, at 30 a second.
        random: Source of randomness.
    """
    first, second = _Mouse(random), _Mouse(random)
    kept: list[tuple] = []
    behaviour, left, side = "other", 30, 1.0
    for _ in range(frames):
        gap = np.hypot(*(first.position - second.position))
        if left <= 0 or (behaviour == "approach" and gap < _MEET):
            # An approach ends beside the other animal: from behind it becomes a chase, otherwise a circle.
            behind = (second.position - first.position) @ _Mouse._direction(second.front) > 0
            met = ["follow" if behind else "circle"]
            options = {"approach": met, "other": ["approach"]}.get(behaviour, ["other", "approach"])
            behaviour = options[random.randint(len(options))]
            left, side = random.randint(60, 150), random.choice([-1.0, 1.0])
            if behaviour == "follow":
                # The way round that leads away from the follower.
                side = np.sign(np.sin(second.bearing() - first.bearing()))
        left -= 1
        if behaviour == "other":
            first.wander()
            second.wander()
        elif behaviour == "approach":
            first.walk(second.position, _RUN)
            second.rest()
        elif behaviour == "circle":
            spoke = first.position - second.position
            angle = np.arctan2(spoke[1], spoke[0]) + 0.5 * side
            goal = second.position + 40 * _Mouse._direction(angle)
            if (goal != goal.clip(_LOW, _HIGH)).any():
                side = -side  # back, where a wall is in the way
            first.walk(goal, _RUN)
            second.rest(look_at=first.position)
        else:
            second.walk(_CENTRE + _OVAL * _Mouse._direction(second.bearing() + 0.8 * side), _LEAD)
            # In its tracks, and the faster the farther behind, so that a gap remains.
            first.walk(kept[-_LATER][0][1], _RUN * np.clip((gap - _MEET) / 16, 0, 1))
        _keep_apart(first, second)
        mice = (first, second)
        kept.append(
            (
                [mouse.position.copy() for mouse in mice],
                [(mouse.front, mouse.back) for mouse in mice],
                [mouse.tail.copy() for mouse in mice],
                BEHAVIOURS.index(behaviour),
            )
        )
    return Track(*(np.array(part) for part in zip(*kept, strict=True)))


def _keep_apart(first: _Mouse, second: _Mouse) -> None:
    """Push the animals apart where their bodies would overlap."""
    between = first.position - second.position
    gap = max(np.hypot(*between), 1e-6)
    if gap < _APART:
        push = between / gap * (_APART - gap) / 2
        first.position = np.clip(first.position + push, _LOW, _HIGH)
        second.position = np.clip(second.position - push, _LOW, _HIGH)


def _wrapped(angle: float) -> float:
    return (angle + np.pi) % (2 * np.pi) - np.pi
