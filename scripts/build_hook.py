# SPDX-License-Identifier: Apache-2.0
"""What hatchling asks for the package's description: README, whose relative links an index cannot
resolve."""

import sys
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))

from plain_links import plain_links


class Description(MetadataHookInterface):
    """The field ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set it."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": plain_links(text)}
