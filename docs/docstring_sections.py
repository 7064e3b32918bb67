"""Let the site print the package's `Example:` sections as code; griffe knows only the plural."""

import re

import griffe


class SectionNames(griffe.Extension):
    """Renames sections of docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rename the sections of one object."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
