"""The portrait renderer: people, scenes and styles as smooth shapes, supersampled, with their annotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from miniature.drawing import LIGHT, background, ellipse, mask, paint, ramp, segment, stylise
from miniature.vocabulary import TRAITS

SIZE = 64
SUPERSAMPLING = 2
CHUNK = 16  # pictures drawn at once: their layers stay in the processor's cache
Framing = Literal["portrait", "wide"]

SKIN = [(0.99, 0.87, 0.78), (0.94, 0.75, 0.61), (0.78, 0.56, 0.41), (0.55, 0.36, 0.25), (0.33, 0.20, 0.14)]
IRIS = [(0.23, 0.13, 0.07), (0.45, 0.30, 0.10), (0.25, 0.48, 0.20), (0.15, 0.50, 0.75), (0.45, 0.55, 0.62)]
# fmt: off
HAIR = [
    (0.07, 0.06, 0.07), (0.24, 0.14, 0.09), (0.46, 0.22, 0.10),
    (0.74, 0.30, 0.09), (0.86, 0.60, 0.24), (0.96, 0.86, 0.56),
]
CLOTHES = [
    (0.75, 0.15, 0.2), (0.9, 0.7, 0.2), (0.2, 0.5, 0.3), (0.15, 0.35, 0.7),
    (0.45, 0.25, 0.55), (0.9, 0.9, 0.9), (0.15, 0.15, 0.2),
]
# fmt: on


@dataclass(frozen=True)
class Portraits:
    """A batch of portraits and all that is known of them; coordinates are pixels of the 64-pixel picture."""

    pixels: Tensor  # (B, 3, 64, 64) in [-1, 1]
    landmarks: Tensor  # (B, 5, 2): image-left eye, image-right eye, nose, image-left and image-right mouth corner
    boxes: Tensor  # (B, 4): x1, y1, x2, y2
    scene: Tensor  # (B,) int64


@dataclass(frozen=True)
class _Pose:
    """What differs between pictures of one person; every field is (B, 1, 1)."""

    half: Tensor  # half the face's width, as a fraction of the picture's
    x: Tensor
    y: Tensor
    roll: Tensor
    yaw: Tensor
    pitch: Tensor
    smile: Tensor
    open_eyes: Tensor
    gaze: Tensor
    light: Tensor
    contrast: Tensor
    clothes: Tensor

    def to_face(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """From picture coordinates in [0, 1] to those of the face: origin at its middle, unit about half its width."""
        dx, dy = (x - self.x) / self.half, (y - self.y) / self.half
        cos, sin = self.roll.cos(), self.roll.sin()
        return cos * dx + sin * dy, cos * dy - sin * dx

    def to_pixels(self, u: Tensor, v: Tensor) -> Tensor:
        """The inverse of `to_face`, in pixels: (B, K) coordinates → (B, K, 2)."""
        cos, sin = self.roll.squeeze(2).cos(), self.roll.squeeze(2).sin()
        x = self.x.squeeze(2) + self.half.squeeze(2) * (cos * u - sin * v)
        y = self.y.squeeze(2) + self.half.squeeze(2) * (sin * u + cos * v)
        return torch.stack([x, y], 2) * SIZE - 0.5  # pixel centres have whole coordinates, as in OpenCV


def render(identity: Tensor, style: Tensor, scene: Tensor, generator: torch.Generator, framing: Framing) -> Portraits:
    """Draw one portrait for each row.

    Args:
        identity: (B, IDENTITY_SIZE) in [-1, 1].
        style: (B,) int64 index into vocabulary.STYLES.
        scene: (B,) int64 index into vocabulary.SCENES.
        generator: source of pose, light, clothes and texture.
        framing: "portrait": face near the centre, 42 to 62 % of the width; "wide": anywhere, 30 to 80 %.
    """
    rows = zip(identity.split(CHUNK), style.split(CHUNK), scene.split(CHUNK), strict=True)
    drawn = zip(*(_render(*row, generator, framing) for row in rows), strict=True)
    pixels, landmarks, boxes = (torch.cat(parts) for parts in drawn)
    return Portraits(pixels, landmarks, boxes, scene)


def faceless(scene: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Draw scenes without a person: (B, 3, 64, 64) in [-1, 1]."""
    flat = background(scene, SIZE * SUPERSAMPLING, generator)
    return _finish(style, flat, torch.ones_like(flat[:, 0]), generator)


def _render(
    identity: Tensor, style: Tensor, scene: Tensor, generator: torch.Generator, framing: Framing
) -> tuple[Tensor, Tensor, Tensor]:
    trait = {name: identity[:, i, None, None] for i, name in enumerate(TRAITS)}
    pose = _draw_pose(len(identity), generator, framing)
    size = SIZE * SUPERSAMPLING
    canvas = background(scene, size, generator)
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    painter = _Painter(canvas, trait, pose, *pose.to_face(x, y), LIGHT[scene][:, :, None, None])
    painter.person()
    return _finish(style, painter.canvas, painter.shade, generator), *_annotate(trait, pose)


def _finish(style: Tensor, flat: Tensor, shade: Tensor, generator: torch.Generator) -> Tensor:
    return F.avg_pool2d(stylise(style, flat, shade, generator), SUPERSAMPLING) * 2 - 1


def _draw_pose(count: int, generator: torch.Generator, framing: Framing) -> _Pose:
    def between(low: float, high: float) -> Tensor:
        return (torch.rand(count, generator=generator) * (high - low) + low)[:, None, None]

    if framing == "portrait":
        half, x, y = between(0.21, 0.31), between(0.45, 0.55), between(0.46, 0.56)
    else:
        half = between(0.15, 0.40)
        reach = (0.5 - half).clamp(min=0.04)
        x, y = 0.5 + between(-1, 1) * reach, 0.52 + between(-1, 1) * reach * 0.8
    roll, yaw, pitch = between(-0.2, 0.2), between(-0.22, 0.22), between(-0.12, 0.12)
    smile, open_eyes, gaze = between(-0.5, 1.0), between(0.65, 1.1), between(-1, 1)
    light, contrast, clothes = between(-1, 1), between(0.1, 0.38), between(-1, 1)
    return _Pose(half, x, y, roll, yaw, pitch, smile, open_eyes, gaze, light, contrast, clothes)


def _face_width(trait: dict[str, Tensor]) -> Tensor:
    return 0.88 + 0.12 * trait["face_width"]


def _chin(trait: dict[str, Tensor]) -> Tensor:
    return 1.22 + 0.14 * trait["chin"]


def _eye(trait: dict[str, Tensor], pose: _Pose, side: int) -> tuple[Tensor, Tensor]:
    return side * (0.40 + 0.07 * trait["eye_spacing"]) + 0.5 * pose.yaw, -0.12 + 0.5 * pose.pitch


def _nose_tip(trait: dict[str, Tensor], pose: _Pose) -> tuple[Tensor, Tensor]:
    return 0.95 * pose.yaw, 0.30 + 0.13 * trait["nose_length"] + 0.8 * pose.pitch


def _mouth_corner(trait: dict[str, Tensor], pose: _Pose, side: int) -> tuple[Tensor, Tensor]:
    width = 0.27 + 0.09 * trait["mouth_width"] + 0.04 * pose.smile
    return side * width + 0.6 * pose.yaw, 0.72 + 0.06 * trait["chin"] - 0.05 * pose.smile + 0.5 * pose.pitch


def _annotate(trait: dict[str, Tensor], pose: _Pose) -> tuple[Tensor, Tensor]:
    """Landmarks (B, 5, 2) and boxes (B, 4) in pixels."""
    eyes, mouth = ([point(trait, pose, side) for side in (-1, 1)] for point in (_eye, _mouth_corner))
    points = [*eyes, _nose_tip(trait, pose), *mouth]
    u, v = (torch.cat([point[axis].squeeze(2) for point in points], 1) for axis in (0, 1))
    half, top, bottom = _face_width(trait)[:, 0], torch.full_like(pose.x[:, 0], -1.0), _chin(trait)[:, 0]
    centre = pose.to_pixels(torch.zeros_like(half), (top + bottom) / 2)[:, 0]
    extent = torch.cat([half, (bottom - top) / 2], 1) * pose.half[:, 0] * SIZE
    return pose.to_pixels(u, v), torch.cat([centre - extent, centre + extent], 1).clamp(0, SIZE)


class _Painter:
    """Paints people over a background, back to front; `canvas` is the flat picture, `shade` the light on each pixel.

    u and v are the coordinates (B, H, W) of the face; `soft` is the softness of an edge one pixel wide.
    """

    def __init__(
        self, canvas: Tensor, trait: dict[str, Tensor], pose: _Pose, u: Tensor, v: Tensor, light: Tensor
    ) -> None:
        self.canvas, self.shade, self.trait, self.pose, self.u, self.v = canvas, torch.ones_like(u), trait, pose, u, v
        self.soft = 0.012 / pose.half * 0.5
        warmth, chin = trait["skin_warmth"], trait["chin"]
        warm = torch.stack([1 + 0.05 * warmth, torch.ones_like(chin), 1 - 0.10 * warmth], 1)
        self.skin = ramp(trait["skin_tone"].flatten(), SKIN) * warm * light
        hair, tint = ramp(trait["hair_colour"].flatten(), HAIR), trait["hair_tint"].unsqueeze(1)
        hair = torch.lerp(hair, hair.mean(1, keepdim=True) + 0.12, tint.clamp(min=0) * 0.85)
        red = torch.tensor([1.0, -0.2, -0.3])[None, :, None, None]
        self.hair = hair * (1 + 0.25 * red * (-tint).clamp(min=0)) * light
        self.clothes = ramp(pose.clothes.flatten(), CLOTHES) * light
        self.width = _face_width(trait)
        self.volume = 0.10 + 0.09 * trait["hair_volume"]
        curl = trait["hair_curl"]
        self.curl = 0.05 * (curl + 1) * torch.sin(9 * torch.atan2(u, -v) + 3 * curl)

    def cover(self, share: Tensor, colour: Tensor) -> None:
        """Lay a colour over the canvas where `share` (B, H, W) is 1."""
        self.canvas = paint(self.canvas, share, colour)

    def fill(self, distance: Tensor, colour: Tensor) -> None:
        """Fill the inside of a signed distance (B, H, W) with a colour."""
        self.cover(mask(distance, self.soft), colour)

    def person(self) -> None:
        """Paint everything."""
        u, v, pose = self.u, self.v, self.pose
        back = self._hair_behind() + self.curl
        self.fill(back, self.hair * 0.72)
        self.fill(torch.maximum(u.abs() - 0.36, 0.6 - v), self.skin * 0.82)  # the neck
        self.fill(ellipse(u, v, 0.0, 2.35, 1.7, 0.95), self.clothes)
        ear_width, ear_height = 0.11 + 0.05 * self.trait["ears"], 0.2 + 0.08 * self.trait["ears"]
        for side in (-1, 1):
            centre = side * (self.width + 0.02) + 0.0 * u
            self.fill(ellipse(u, v, centre, 0.02 + 0.3 * pose.pitch, ear_width, ear_height), self.skin * 0.9)
        face = self._outline()
        inside = mask(face, self.soft)
        self.cover(inside, self.skin)
        lit = 1 + pose.contrast * (pose.light * u * 0.9 - 0.35 * v) - 0.22 * (u * u + 0.6 * v * v).clamp(max=1.6)
        self.shade = torch.lerp(self.shade, lit.clamp(0.5, 1.3), mask(torch.minimum(face, back), 0.05))
        self._beard(inside)
        self._mouth()
        self._nose()
        for side in (-1, 1):
            self._eye(side)
        self._fringe()

    def _outline(self) -> Tensor:
        u, v, chin = self.u, self.v, _chin(self.trait)
        taper = 1 - (0.30 - 0.17 * self.trait["jaw"]) * (v / chin).clamp(0, 1) ** 2
        height = torch.where(v > 0, chin, 1.08)
        return (((u / (self.width * taper)).abs() ** 2.2 + (v / height).abs() ** 2.2) ** (1 / 2.2) - 1) * self.width

    def _cap(self) -> Tensor:
        return ellipse(self.u, self.v, 0.0, -0.22, self.width + 0.06 + self.volume, 1.0 + 1.2 * self.volume)

    def _hair_behind(self) -> Tensor:
        long = (self.trait["hair_length"] + 0.25).clamp(min=0) / 1.25
        side = self.u.abs() - (self.width + 0.05 + self.volume + 0.1 * long * (self.v + 0.2).clamp(0, 1))
        return torch.minimum(self._cap(), torch.maximum(side, torch.maximum(-0.3 - self.v, self.v + 0.1 - 2.0 * long)))

    def _fringe(self) -> None:
        """The hair in front of the head: inside the cap and above the hairline."""
        u, v, trait = self.u, self.v, self.trait
        parting = 0.55 * trait["parting"]
        hairline = -0.72 + 0.22 * trait["fringe"] + 0.42 * (u - parting).abs() ** 1.3 - 0.10 + 0.6 * self.curl
        sides = torch.where((trait["hair_length"] > -0.25) & (u.abs() > self.width * 0.82), 0.3, 0.0)
        shine = 0.16 * torch.exp(-(((u - parting - 0.2) / 0.25) ** 2) - ((v + 0.85) / 0.16) ** 2)
        self.fill(torch.maximum(self._cap() + self.curl, v - hairline - sides), self.hair + shine.unsqueeze(1))

    def _eye(self, side: int) -> None:
        """One eye with its brow, and its half of the glasses."""
        u, v, trait, pose = self.u, self.v, self.trait, self.pose
        cu, cv = _eye(trait, pose, side)
        size, slope = 0.17 + 0.045 * trait["eye_size"], -side * 0.22 * trait["eye_tilt"]
        eu, ev = u - cu, v - cv - slope * (u - cu)
        tall = size * 0.62 * pose.open_eyes
        self.fill(ellipse(eu, ev, 0.0, 0.0, size * 1.18, tall * 1.35), self.skin * 0.45)
        white = mask(ellipse(eu, ev, 0.0, 0.015, size, tall), self.soft)
        self.cover(white, torch.full_like(self.skin, 0.96))
        iris = ellipse(eu, ev, 0.28 * size * pose.gaze, 0.0, 0.62 * size, 0.62 * size)
        self.cover(white * mask(iris, self.soft), ramp(trait["eye_colour"].flatten(), IRIS))
        self.cover(white * mask(iris + 0.34 * size, self.soft), torch.full_like(self.skin, 0.04))  # the pupil
        lift, tilt = cv - 0.33 - 0.04 * pose.smile, 0.10 * trait["brow_tilt"]
        brow = segment(u, v, cu - side * 0.2, lift + tilt, cu + side * 0.22, lift - tilt)
        self.fill(brow - 0.05 - 0.032 * trait["brow_weight"], self.hair * 0.55)
        rim = (ellipse(u, v, cu, cv + 0.02, 0.31, 0.27)).abs() - 0.035
        bridge = torch.maximum((v - cv).abs() - 0.03, (u - pose.yaw * 0.5).abs() - 0.12)
        worn = torch.sigmoid((trait["glasses"] - 0.35) * 25)
        self.cover(worn * mask(torch.minimum(rim, bridge), self.soft), torch.full_like(self.skin, 0.08))

    def _nose(self) -> None:
        u, v = self.u, self.v
        nu, nv = _nose_tip(self.trait, self.pose)
        wide = 0.14 + 0.06 * self.trait["nose_width"]
        ridge = segment(u, v, nu - 0.35 * self.pose.yaw + 0.05, nv - 0.36, nu + 0.06, nv - 0.05)
        self.cover(0.5 * mask(ridge - 0.03, self.soft * 1.5), self.skin * 0.72)
        self.fill(ellipse(u, v, nu, nv, wide, 0.085), self.skin * 0.76)
        self.fill(ellipse(u, v, nu, nv - 0.045, wide * 0.8, 0.085), self.skin * 1.04)

    def _mouth(self) -> None:
        (left, corner), (right, _) = (_mouth_corner(self.trait, self.pose, side) for side in (-1, 1))
        centre, half = (left + right) / 2, (right - left) / 2
        across = ((self.u - centre) / half).clamp(-1.2, 1.2)
        rise = (self.v - (corner + 0.13 * self.pose.smile * (1 - across**2))).abs()
        thick = (0.085 + 0.05 * self.trait["lips"]) * (1 - 0.75 * across**2).clamp(min=0.02)
        red = torch.tensor([0.78, 0.28, 0.30])[None, :, None, None] * (0.35 + 0.65 * self.skin.mean(1, keepdim=True))
        lips = torch.lerp(self.skin * 0.8, red, 0.55 + 0.4 * self.trait["lips"].unsqueeze(1).clamp(min=-1))
        beyond = (self.u - centre).abs() - half
        self.fill(torch.maximum(rise - thick, beyond), lips)
        self.fill(torch.maximum(rise - 0.018, beyond), lips * 0.4)

    def _beard(self, inside: Tensor) -> None:
        u, v, trait, pose = self.u, self.v, self.trait, self.pose
        grown = torch.sigmoid((trait["beard"] - 0.25) * 14)
        edge = 0.42 + 0.5 * pose.pitch - 0.5 * (u.abs() - 0.45).clamp(min=0)
        mouth = ellipse(u, v, 0.6 * pose.yaw, 0.74, 0.33, 0.17)
        cheek = torch.maximum(edge - v + 0.25 * (0.75 - u.abs()).clamp(min=0), -mouth)
        self.cover(0.92 * grown * inside * mask(cheek, self.soft * 2), self.hair * 0.9)
        worn = torch.sigmoid((trait["moustache"] - 0.4) * 16)
        _, nose = _nose_tip(trait, pose)
        lip = ellipse(u, v, 0.75 * pose.yaw, nose + 0.21, 0.30 + 0.06 * trait["mouth_width"], 0.085)
        self.cover(worn * mask(lip, self.soft), self.hair * 0.8)
