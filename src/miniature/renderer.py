"""The portrait renderer: people, scenes and styles as smooth shapes, supersampled, with their annotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from miniature.people import IDENTITY_SIZE, TRAITS, draw_identities, name_identity
from miniature.scenes import LIGHT, background
from miniature.shapes import ellipse, mask, paint, ramp, segment
from miniature.styles import stylise

__all__ = ["IDENTITY_SIZE", "SIZE", "Portraits", "draw_identities", "faceless", "name_identity", "render"]

SIZE = 64
SUPERSAMPLING = 2
CHUNK = 16  # pictures drawn at once: their layers stay in the processor's cache
Framing = Literal["portrait", "wide"]

SKIN = [(0.99, 0.87, 0.78), (0.94, 0.75, 0.61), (0.78, 0.56, 0.41), (0.55, 0.36, 0.25), (0.33, 0.20, 0.14)]
HAIR = [
    (0.07, 0.06, 0.07),
    (0.24, 0.14, 0.09),
    (0.46, 0.22, 0.10),
    (0.74, 0.30, 0.09),
    (0.86, 0.60, 0.24),
    (0.96, 0.86, 0.56),
]
IRIS = [(0.23, 0.13, 0.07), (0.45, 0.30, 0.10), (0.25, 0.48, 0.20), (0.15, 0.50, 0.75), (0.45, 0.55, 0.62)]
CLOTHES = [
    (0.75, 0.15, 0.2),
    (0.9, 0.7, 0.2),
    (0.2, 0.5, 0.3),
    (0.15, 0.35, 0.7),
    (0.45, 0.25, 0.55),
    (0.9, 0.9, 0.9),
    (0.15, 0.15, 0.2),
]


@dataclass(frozen=True)
class Portraits:
    """A batch of portraits and all that is known of them; coordinates are pixels of the 64-pixel picture."""

    pixels: Tensor  # (B, 3, 64, 64) in [-1, 1]
    landmarks: Tensor  # (B, 5, 2): image-left eye, image-right eye, nose, image-left and image-right mouth corner
    boxes: Tensor  # (B, 4): x1, y1, x2, y2
    identity: Tensor  # (B, IDENTITY_SIZE)
    style: Tensor  # (B,) int64
    scene: Tensor  # (B,) int64


@dataclass(frozen=True)
class _Pose:
    """Nuisance, drawn anew for every picture; every field is (B, 1, 1)."""

    x: Tensor
    y: Tensor
    half: Tensor  # half the face's width, as a fraction of the picture's
    roll: Tensor
    yaw: Tensor
    pitch: Tensor
    smile: Tensor
    open_eyes: Tensor
    gaze: Tensor
    light: Tensor
    contrast: Tensor
    clothes: Tensor


def render(identity: Tensor, style: Tensor, scene: Tensor, generator: torch.Generator, framing: Framing) -> Portraits:
    """Draw one portrait for each row.

    Args:
        identity: (B, IDENTITY_SIZE) in [-1, 1].
        style: (B,) int64 index into words.STYLES.
        scene: (B,) int64 index into words.SCENES.
        generator: source of pose, light, clothes and texture.
        framing: "portrait": face near the centre, 42 to 62 % of the width; "wide": anywhere, 30 to 80 %.
    """
    parts = [
        _render(identity[i : i + CHUNK], style[i : i + CHUNK], scene[i : i + CHUNK], generator, framing)
        for i in range(0, len(identity), CHUNK)
    ]
    return Portraits(
        *(
            torch.cat([getattr(p, name) for p in parts])
            for name in ("pixels", "landmarks", "boxes", "identity", "style", "scene")
        )
    )


def faceless(scene: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Draw scenes without a person: (B, 3, 64, 64) in [-1, 1]."""
    flat = background(scene, SIZE * SUPERSAMPLING, generator)
    return _finish(style, flat, torch.ones_like(flat[:, 0]), generator)


def _render(identity: Tensor, style: Tensor, scene: Tensor, generator: torch.Generator, framing: Framing) -> Portraits:
    trait = {name: identity[:, i, None, None] for i, name in enumerate(TRAITS)}
    pose = _draw_pose(len(identity), generator, framing)
    size = SIZE * SUPERSAMPLING
    canvas = background(scene, size, generator)
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    u, v = _to_face(pose, x, y)
    canvas, shade = _draw_person(canvas, trait, pose, u, v, scene)
    pixels = _finish(style, canvas, shade, generator)
    landmarks, boxes = _annotate(trait, pose)
    return Portraits(pixels, landmarks, boxes, identity, style, scene)


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
    return _Pose(
        x,
        y,
        half,
        between(-0.2, 0.2),
        between(-0.22, 0.22),
        between(-0.12, 0.12),
        between(-0.5, 1.0),
        between(0.65, 1.1),
        between(-1, 1),
        between(-1, 1),
        between(0.1, 0.38),
        between(-1, 1),
    )


def _to_face(pose: _Pose, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """From picture coordinates in [0, 1] to the face's own: origin at its middle, unit about half its width."""
    dx, dy = (x - pose.x) / pose.half, (y - pose.y) / pose.half
    cos, sin = pose.roll.cos(), pose.roll.sin()
    return cos * dx + sin * dy, cos * dy - sin * dx


def _from_face(pose: _Pose, u: Tensor, v: Tensor) -> Tensor:
    """The inverse of `_to_face`, in pixels: (B, K) coordinates → (B, K, 2)."""
    cos, sin = pose.roll.squeeze(2).cos(), pose.roll.squeeze(2).sin()
    x = pose.x.squeeze(2) + pose.half.squeeze(2) * (cos * u - sin * v)
    y = pose.y.squeeze(2) + pose.half.squeeze(2) * (sin * u + cos * v)
    return torch.stack([x, y], 2) * SIZE - 0.5  # pixel centres have whole coordinates, as in OpenCV


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
    points = [
        _eye(trait, pose, -1),
        _eye(trait, pose, 1),
        _nose_tip(trait, pose),
        _mouth_corner(trait, pose, -1),
        _mouth_corner(trait, pose, 1),
    ]
    landmarks = _from_face(
        pose, torch.cat([p[0].squeeze(2) for p in points], 1), torch.cat([p[1].squeeze(2) for p in points], 1)
    )
    half, top, bottom = _face_width(trait)[:, 0], torch.full_like(pose.x[:, 0], -1.0), _chin(trait)[:, 0]
    centre = _from_face(pose, torch.zeros_like(half), (top + bottom) / 2)[:, 0]
    extent = torch.cat([half, (bottom - top) / 2], 1) * pose.half[:, 0] * SIZE
    return landmarks, torch.cat([centre - extent, centre + extent], 1).clamp(0, SIZE)


def _draw_person(
    canvas: Tensor, trait: dict[str, Tensor], pose: _Pose, u: Tensor, v: Tensor, scene: Tensor
) -> tuple[Tensor, Tensor]:
    """Paint the person, back to front; returns the flat picture and the light on each pixel."""
    soft = 0.012 / pose.half * 0.5
    light = LIGHT[scene][:, :, None, None]
    skin = ramp(trait["skin_tone"].flatten(), SKIN)
    skin = (
        skin
        * torch.stack(
            [1 + 0.05 * trait["skin_warmth"], torch.ones_like(trait["chin"]), 1 - 0.10 * trait["skin_warmth"]], 1
        )
        * light
    )
    hair = ramp(trait["hair_colour"].flatten(), HAIR)
    grey = hair.mean(1, keepdim=True)
    hair = torch.lerp(hair, grey + 0.12, (trait["hair_tint"].unsqueeze(1)).clamp(min=0) * 0.85)
    hair = (
        hair
        * (
            1
            + 0.25
            * torch.tensor([1.0, -0.2, -0.3])[None, :, None, None]
            * (-trait["hair_tint"].unsqueeze(1)).clamp(min=0)
        )
        * light
    )
    shade = torch.ones_like(u)

    curl = 0.05 * (trait["hair_curl"] + 1) * torch.sin(9 * torch.atan2(u, -v) + 3 * trait["hair_curl"])
    volume = 0.10 + 0.09 * trait["hair_volume"]
    width = _face_width(trait)
    back = _hair_back(trait, u, v, volume, width) + curl
    canvas = paint(canvas, mask(back, soft), hair * 0.72)

    clothes = ramp(pose.clothes.flatten(), CLOTHES) * light
    canvas = paint(canvas, mask(torch.maximum(u.abs() - 0.36, 0.6 - v), soft), skin * 0.82)
    canvas = paint(canvas, mask(ellipse(u, v, 0.0, 2.35, 1.7, 0.95), soft), clothes)

    for side in (-1, 1):
        ear = ellipse(
            u,
            v,
            side * (width + 0.02) + 0.0 * u,
            0.02 + 0.3 * pose.pitch,
            0.11 + 0.05 * trait["ears"],
            0.2 + 0.08 * trait["ears"],
        )
        canvas = paint(canvas, mask(ear, soft), skin * 0.9)

    face = _face_outline(trait, u, v, width)
    inside = mask(face, soft)
    canvas = paint(canvas, inside, skin)
    lit = 1 + pose.contrast * (pose.light * u * 0.9 - 0.35 * v) - 0.22 * (u * u + 0.6 * v * v).clamp(max=1.6)
    shade = torch.lerp(shade, lit.clamp(0.5, 1.3), mask(torch.minimum(face, back), 0.05))

    canvas = _draw_beard(canvas, trait, pose, u, v, hair, inside, soft)
    canvas = _draw_mouth(canvas, trait, pose, u, v, skin, soft)
    canvas = _draw_nose(canvas, trait, pose, u, v, skin, soft)
    for side in (-1, 1):
        canvas = _draw_eye(canvas, trait, pose, u, v, side, skin, hair, soft)
    canvas = _draw_fringe(canvas, trait, u, v, hair, volume, width, curl, soft)
    return canvas, shade


def _face_outline(trait: dict[str, Tensor], u: Tensor, v: Tensor, width: Tensor) -> Tensor:
    down = (v / _chin(trait)).clamp(0, 1)
    taper = 1 - (0.30 - 0.17 * trait["jaw"]) * down**2
    height = torch.where(v > 0, _chin(trait), 1.08)
    return (((u / (width * taper)).abs() ** 2.2 + (v / height).abs() ** 2.2) ** (1 / 2.2) - 1) * width


def _hair_back(trait: dict[str, Tensor], u: Tensor, v: Tensor, volume: Tensor, width: Tensor) -> Tensor:
    cap = ellipse(u, v, 0.0, -0.22, width + 0.06 + volume, 1.0 + 1.2 * volume)
    long = (trait["hair_length"] + 0.25).clamp(min=0) / 1.25
    fall = torch.maximum(
        u.abs() - (width + 0.05 + volume + 0.1 * long * (v + 0.2).clamp(0, 1)),
        torch.maximum(-0.3 - v, v + 0.1 - 2.0 * long),
    )
    return torch.minimum(cap, fall)


def _draw_fringe(
    canvas: Tensor,
    trait: dict[str, Tensor],
    u: Tensor,
    v: Tensor,
    hair: Tensor,
    volume: Tensor,
    width: Tensor,
    curl: Tensor,
    soft: Tensor,
) -> Tensor:
    """The hair in front of the head: inside the cap and above the hairline."""
    cap = ellipse(u, v, 0.0, -0.22, width + 0.06 + volume, 1.0 + 1.2 * volume) + curl
    parting = 0.55 * trait["parting"]
    hairline = -0.72 + 0.22 * trait["fringe"] + 0.42 * (u - parting).abs() ** 1.3 - 0.10 + 0.6 * curl
    sides = torch.where((trait["hair_length"] > -0.25) & (u.abs() > width * 0.82), 0.3, 0.0)
    front = torch.maximum(cap, v - hairline - sides)
    shine = 0.16 * torch.exp(-(((u - parting - 0.2) / 0.25) ** 2) - ((v + 0.85) / 0.16) ** 2)
    return paint(canvas, mask(front, soft), hair + shine.unsqueeze(1))


def _draw_eye(
    canvas: Tensor,
    trait: dict[str, Tensor],
    pose: _Pose,
    u: Tensor,
    v: Tensor,
    side: int,
    skin: Tensor,
    hair: Tensor,
    soft: Tensor,
) -> Tensor:
    cu, cv = _eye(trait, pose, side)
    size = 0.17 + 0.045 * trait["eye_size"]
    slope = -side * 0.22 * trait["eye_tilt"]
    eu, ev = u - cu, v - cv - slope * (u - cu)
    tall = size * 0.62 * pose.open_eyes
    canvas = paint(canvas, mask(ellipse(eu, ev, 0.0, 0.0, size * 1.18, tall * 1.35), soft), skin * 0.45)
    white = mask(ellipse(eu, ev, 0.0, 0.015, size, tall), soft)
    canvas = paint(canvas, white, torch.full_like(skin, 0.96))
    iris = ellipse(eu, ev, 0.28 * size * pose.gaze, 0.0, 0.62 * size, 0.62 * size)
    canvas = paint(canvas, white * mask(iris, soft), ramp(trait["eye_colour"].flatten(), IRIS))
    canvas = paint(canvas, white * mask(iris + 0.34 * size, soft), torch.full_like(skin, 0.04))
    canvas = _draw_brow(canvas, trait, pose, u, v, side, hair, soft)
    rim = (ellipse(u, v, cu, cv + 0.02, 0.31, 0.27)).abs() - 0.035
    bridge = torch.maximum((v - cv).abs() - 0.03, (u - pose.yaw * 0.5).abs() - 0.12)
    worn = torch.sigmoid((trait["glasses"] - 0.35) * 25)
    return paint(canvas, worn * mask(torch.minimum(rim, bridge), soft), torch.full_like(skin, 0.08))


def _draw_brow(
    canvas: Tensor, trait: dict[str, Tensor], pose: _Pose, u: Tensor, v: Tensor, side: int, hair: Tensor, soft: Tensor
) -> Tensor:
    cu, cv = _eye(trait, pose, side)
    lift = cv - 0.33 - 0.04 * pose.smile
    tilt = 0.10 * trait["brow_tilt"]
    inner, outer = cu - side * 0.2, cu + side * 0.22
    line = segment(u, v, inner, lift + tilt, outer, lift - tilt)
    return paint(canvas, mask(line - 0.05 - 0.032 * trait["brow_weight"], soft), hair * 0.55)


def _draw_nose(
    canvas: Tensor, trait: dict[str, Tensor], pose: _Pose, u: Tensor, v: Tensor, skin: Tensor, soft: Tensor
) -> Tensor:
    nu, nv = _nose_tip(trait, pose)
    wide = 0.14 + 0.06 * trait["nose_width"]
    ridge = segment(u, v, nu - 0.35 * pose.yaw + 0.05, nv - 0.36, nu + 0.06, nv - 0.05)
    canvas = paint(canvas, 0.5 * mask(ridge - 0.03, soft * 1.5), skin * 0.72)
    canvas = paint(canvas, mask(ellipse(u, v, nu, nv, wide, 0.085), soft), skin * 0.76)
    return paint(canvas, mask(ellipse(u, v, nu, nv - 0.045, wide * 0.8, 0.085), soft), skin * 1.04)


def _draw_mouth(
    canvas: Tensor, trait: dict[str, Tensor], pose: _Pose, u: Tensor, v: Tensor, skin: Tensor, soft: Tensor
) -> Tensor:
    lu, lv = _mouth_corner(trait, pose, -1)
    ru, _ = _mouth_corner(trait, pose, 1)
    centre, half = (lu + ru) / 2, (ru - lu) / 2
    across = ((u - centre) / half).clamp(-1.2, 1.2)
    bend = lv + 0.13 * pose.smile * (1 - across**2)
    thick = (0.085 + 0.05 * trait["lips"]) * (1 - 0.75 * across**2).clamp(min=0.02)
    red = torch.tensor([0.78, 0.28, 0.30])[None, :, None, None]
    lips = torch.lerp(
        skin * 0.8,
        red * (0.35 + 0.65 * skin.mean(1, keepdim=True)),
        0.55 + 0.4 * trait["lips"].unsqueeze(1).clamp(min=-1),
    )
    canvas = paint(canvas, mask(torch.maximum((v - bend).abs() - thick, (u - centre).abs() - half), soft), lips)
    return paint(canvas, mask(torch.maximum((v - bend).abs() - 0.018, (u - centre).abs() - half), soft), lips * 0.4)


def _draw_beard(
    canvas: Tensor,
    trait: dict[str, Tensor],
    pose: _Pose,
    u: Tensor,
    v: Tensor,
    hair: Tensor,
    inside: Tensor,
    soft: Tensor,
) -> Tensor:
    grown = torch.sigmoid((trait["beard"] - 0.25) * 14)
    edge = 0.42 + 0.5 * pose.pitch - 0.5 * (u.abs() - 0.45).clamp(min=0)
    cheek = torch.maximum(
        edge - v + 0.25 * (0.75 - u.abs()).clamp(min=0), -ellipse(u, v, 0.6 * pose.yaw, 0.74, 0.33, 0.17)
    )
    canvas = paint(canvas, 0.92 * grown * inside * mask(cheek, soft * 2), hair * 0.9)
    worn = torch.sigmoid((trait["moustache"] - 0.4) * 16)
    _, mv = _nose_tip(trait, pose)
    lip = ellipse(u, v, 0.75 * pose.yaw, mv + 0.21, 0.30 + 0.06 * trait["mouth_width"], 0.085)
    return paint(canvas, worn * mask(lip, soft), hair * 0.8)
