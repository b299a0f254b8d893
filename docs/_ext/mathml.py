"""Maths as MathML, written when the site is built: it needs neither JavaScript nor a network.

LaTeX goes through latex2mathml, which knows most of it but no alignment at `&`: write one formula
a line.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

_BARS = "<mo>&#x02016;</mo>"


def _mathml(node: nodes.Element, display: str) -> str:
    latex = node.astext()
    if "&" in latex.replace(r"\&", ""):
        raise ExtensionError(f"maths with an alignment, which latex2mathml garbles: {latex}")
    mathml = convert(latex, display=display)
    if "\\" in mathml:
        raise ExtensionError(f"maths that latex2mathml does not know: {latex}")
    # a norm's bars would grow with whatever stands anywhere in the formula
    return mathml.replace(_BARS, _BARS.replace("<mo>", '<mo stretchy="false">'))


def _inline(self: Any, node: nodes.Element) -> None:
    self.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.Element) -> None:
    self.body.append(f'<div class="math">{_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
