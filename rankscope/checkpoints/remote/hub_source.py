"""Files of models on the Hugging Face hub, read by the commit that has them."""

from __future__ import annotations

import os

from typing_extensions import override

from rankscope.checkpoints.remote.web_client import Answer
from rankscope.checkpoints.remote.web_source import WebSource

ENDPOINT, DEFAULT_ENDPOINT = "HF_ENDPOINT", "https://huggingface.co"
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class HubSource(WebSource):
    """Reads files by their commits, which cannot change."""

    def __init__(self) -> None:
        token = next(filter(None, map(os.environ.get, TOKENS)), "")
        secrets = (("Authorization", f"Bearer {token}"),) if token else ()
        found = "one is set" if token else "none is set"
        super().__init__(secrets=secrets, credentials=f"{' and '.join(TOKENS)}, {found}")

    @override
    def version_of(self, answer: Answer) -> str:
        return ""  # the commit in its address is its version, as `tree_of` has it


def endpoint() -> str:
    """Where the hub is; `HF_ENDPOINT` names a mirror."""
    return os.environ.get(ENDPOINT, DEFAULT_ENDPOINT).rstrip("/")
