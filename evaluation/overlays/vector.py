"""Draw shapes as SVG, for the report: sharp at any size, and each layer can be hidden."""

from markupsafe import Markup

from evaluation.overlays.shapes import Points, Shape

_DASH = "6 4"


def svg_shapes(shapes: list[Shape]) -> Markup:
    """Return the shapes as SVG elements in original pixels.

    Strokes keep their width in screen pixels however large the picture is shown.

    Args:
        shapes: In original pixels, drawn in this order.

    Example:
        >>> import numpy as np
        >>> line = Shape("truth", (np.array([[0, 0], [9, 4.26]]),), "#F0E442", closed=False)
        >>> print(svg_shapes([line]).count("M0 0L9 4.3"))
        2
    """
    return Markup("").join(_element(shape) for shape in shapes)


def path_data(paths: tuple[Points, ...], *, closed: bool) -> str:
    """Return polylines as the ``d`` of an SVG path, rounded to 0.1 px.

    Example:
        >>> import numpy as np
        >>> path_data((np.array([[0, 0], [2, 0], [2, 1.04]]),), closed=True)
        'M0 0L2 0L2 1Z'
    """
    end = "Z" if closed else ""
    return "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in path) + end
        for path in paths
    )


def _element(shape: Shape) -> Markup:
    data = path_data(shape.paths, closed=shape.closed)
    dash = Markup(' stroke-dasharray="{}"').format(_DASH) if shape.dashed else ""
    halo = (
        Markup('<path d="{}" class="halo" stroke-width="{:g}"{}/>').format(
            data, shape.width + shape.rim, dash
        )
        if shape.rim and shape.width
        else ""
    )
    fill = (
        Markup(' fill="{}" fill-opacity="{:g}"').format(shape.colour, shape.tint)
        if shape.tint
        else ""
    )
    return Markup(
        '<g class="layer-{}">{}<path d="{}" stroke="{}" stroke-width="{:g}"{}{}/></g>'
    ).format(shape.layer, halo, data, shape.colour, shape.width, dash, fill)
