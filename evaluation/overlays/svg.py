"""Shapes as SVG elements, for the report."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cxr_compare.evaluation.overlays.legend import KEY_GROUND, KEY_SIZE, Mark
from cxr_compare.evaluation.overlays.shapes import LETTER_SHARE, Label, Points, Shape

_SVG_DASH = "6 4"


def to_svg(shapes: Sequence[Shape | Label], text_class: str = "words") -> Markup:
    """Convert lines and texts to SVG elements, in the same order.

    Coordinates are px of the original image. Lines keep their width in screen pixels at every size
    of the image, by the style sheet of the page.

    Args:
        shapes: Lines and texts with coordinates in px of the original image.
        text_class: CSS class that each text element gets.

    Returns:
        The SVG elements as HTML, with special characters escaped.

    Example:
        >>> print(to_svg([Label("boxes", "0.9", (0.0, 0.0), 20.0, "#E06C00")]))
        <text class="layer-boxes words" x="18.0" y="10.0" font-size="16" fill="#E06C00">0.9</text>
    """
    return Markup("").join(
        _text_element(shape, text_class) if isinstance(shape, Label) else _element(shape)
        for shape in shapes
    )


def example_svg(mark: Mark) -> Markup:
    """Return the example of a mark in a legend as an SVG element, on the grey of an X-ray.

    Args:
        mark: The mark; without shapes the result is empty.

    Returns:
        The SVG element as HTML.

    Example:
        >>> example_svg(Mark("map not drawn", ()))
        Markup('')
    """
    if not mark.shapes:
        return Markup()
    width, height = KEY_SIZE
    ground = f"#{KEY_GROUND:02x}{KEY_GROUND:02x}{KEY_GROUND:02x}"
    return Markup(
        '<svg class="mark" viewBox="0 0 {0} {1}" width="{0}" height="{1}" fill="none" '
        'aria-hidden="true"><rect width="{0}" height="{1}" fill="{2}"/>{3}</svg>'
    ).format(width, height, ground, to_svg(mark.shapes))


def _path_data(paths: tuple[Points, ...], *, closed: bool) -> str:
    """Return polylines as the attribute ``d`` of an SVG path, rounded to 0.1 px."""
    end = "Z" if closed else ""
    return "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in path) + end
        for path in paths
    )


def _element(shape: Shape) -> Markup:
    data = _path_data(shape.paths, closed=shape.closed)
    dash = Markup(' stroke-dasharray="{}"').format(_SVG_DASH) if shape.dashed else ""
    halo = Markup()
    fill = Markup()
    if shape.rim and shape.width:
        path = Markup('<path d="{}" class="halo" stroke-width="{:g}"{}/>')
        halo = path.format(data, shape.width + shape.rim, dash)
    if shape.tint:
        fill = Markup(' fill="{}" fill-opacity="{:g}"').format(shape.colour, shape.tint)
    return Markup(
        '<g class="layer-{}">{}<path d="{}" stroke="{}" stroke-width="{:g}"{}{}/></g>'
    ).format(shape.layer, halo, data, shape.colour, shape.width, dash, fill)


def _text_element(label: Label, text_class: str) -> Markup:
    x, y = label.corner
    template = Markup(
        '<text class="layer-{} {}" x="{:.1f}" y="{:.1f}" font-size="{:.3g}" fill="{}">{}</text>'
    )
    return template.format(
        label.layer,
        text_class,
        x + label.width / 2,
        y + label.size / 2,
        label.size * LETTER_SHARE,
        label.colour,
        label.text,
    )
