"""From a template and plain data to one HTML page that loads nothing else."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).with_name("templates")


def render(
    template: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    folder: Path = TEMPLATES,
    **context: Any,
) -> str:
    """Render a template that extends page.html, with its style sheets and scripts.

    Templates and these files are looked for in `folder`, then beside page.html. The
    page allows no other style or script than these, and no request.
    """
    environment = _environment(folder)
    loader = environment.loader

    def joined(names: Sequence[str]) -> str:
        return "\n".join(loader.get_source(environment, name)[0] for name in names)

    style, script = joined(styles), joined(scripts)
    return environment.get_template(template).render(
        **context,
        style=style,
        script=script,
        policy="; ".join(
            [
                "default-src 'none'",
                "img-src data:",
                f"style-src {_source_of(style)}",
                f"script-src {_source_of(script)}",
            ]
        ),
    )


def printable(name: str) -> str:
    """Return a file name as text; bytes that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def import_jinja2() -> Any:
    """Import it; call this before long work, so that nobody misses it after hours."""
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            'reports need Jinja2. Install it with: pip install "skad[report]"'
        ) from error
    return jinja2


def _environment(folder: Path) -> Any:
    jinja2 = import_jinja2()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    return environment


def _source_of(text: str) -> str:
    """Return what names a style or script in a Content-Security-Policy: its hash."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
