"""Files of models on the Hugging Face hub, read by the commit that has them."""

from __future__ import annotations

import os
from pathlib import Path

from typing_extensions import override

from rankscope.checkpoints.remote.web_client import Answer
from rankscope.checkpoints.remote.web_source import WebSource
from rankscope.platforms import hub_home

ENDPOINT, DEFAULT_ENDPOINT = "HF_ENDPOINT", "https://huggingface.co"
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
TOKEN_FILE = "HF_TOKEN_PATH"
NO_TOKEN = "HF_HUB_DISABLE_IMPLICIT_TOKEN"  # the hub's own programs then send none, either
YES = ("1", "ON", "YES", "TRUE")


class HubSource(WebSource):
    """Reads files by their commits, which cannot change."""

    def __init__(self) -> None:
        token = "" if is_set(NO_TOKEN) else "".join(_token().split())  # it ends a line, as often
        secrets = (("Authorization", f"Bearer {token}"),) if token else ()
        found = "one is set" if token else "none is set"
        looked_for = f"{', '.join(TOKENS)} and that of `hf auth login`, {found}"
        super().__init__(secrets=secrets, credentials=looked_for)

    @override
    def version_of(self, answer: Answer) -> str:
        return ""  # the commit in its address is its version, as `tree_of` has it


def endpoint() -> str:
    """Where the hub is; `HF_ENDPOINT` names a mirror."""
    return os.environ.get(ENDPOINT, DEFAULT_ENDPOINT).rstrip("/")


def is_set(variable: str) -> bool:
    """Whether a variable of the environment says yes, as the hub's own programs read it."""
    return os.environ.get(variable, "").upper() in YES


def _token() -> str:
    """The token of the environment, or else that with which the user has logged in."""
    if stated := next(filter(None, map(os.environ.get, TOKENS)), ""):
        return stated
    try:
        from huggingface_hub import get_token  # renews tokens, and knows other places
    except ImportError:
        path = Path(os.environ.get(TOKEN_FILE) or hub_home() / "token").expanduser()
        try:
            return path.read_text("utf-8")
        except (OSError, ValueError):
            return ""
    return get_token() or ""
