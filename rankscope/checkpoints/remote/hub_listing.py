"""Models on the Hugging Face hub: which revisions are steps, and what is in each.

Files are read by the commit that has them, so they cannot change meanwhile. The listing of a commit
cannot either, and is fetched once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from rankscope.checkpoints.remote.hub_source import HubSource, endpoint, is_set
from rankscope.checkpoints.remote.objects import Entry
from rankscope.checkpoints.remote.web_source import CONNECTIONS
from rankscope.checkpoints.steps import step_in_name
from rankscope.errors import DAMAGE, RankscopeError, WrongSettingError

NAME = re.compile(
    r"(?P<org>\w[\w.-]*)/(?P<name>\w[\w.-]*?)(?:@(?P<revision>[^/]+))?(?:/(?P<below>.+))?", re.ASCII
)
COMMIT, HASH = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{40,64}")
NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')
MOST_PAGES = 1000


@dataclass(frozen=True)
class HubAddress:
    """``hf://ORG/NAME@REVISION/FOLDER`` in its parts; what is not given is empty."""

    model: str
    revision: str = ""
    below: str = ""

    @classmethod
    def parsed(cls, rest: str) -> HubAddress:
        """The parts of what is behind ``hf://``.

        Raises
        ------
        WrongSettingError
            If it is not the name of a model.
        """
        found = NAME.fullmatch(rest)
        if found is None or found["org"] in ("datasets", "spaces", "buckets"):
            message = "is not a model on the hub: give hf://ORG/NAME or hf://ORG/NAME@REVISION"
            raise WrongSettingError(message, path=f"hf://{rest}")
        model = f"{found['org']}/{found['name']}"
        return cls(model, unquote(found["revision"] or ""), (found["below"] or "").strip("/"))


@dataclass(frozen=True)
class HubListing:
    """What is read of a model.

    Attributes
    ----------
    commits
        The commit of each branch, tag or title of a commit.
    trees
        The files of each commit by their paths.
    """

    commits: dict[str, str] = field(default_factory=dict)
    trees: dict[str, dict[str, Entry]] = field(default_factory=dict)


def list_model(address: HubAddress, kept: Callable[[str], dict[str, Entry] | None]) -> HubListing:
    """The revisions of a model, or the one in the address, and their files.

    Branches and tags whose names state a step are steps. If none does, and the commits of the
    main branch, or of the one in the address, have titles that state steps, these are.

    Parameters
    ----------
    kept
        Gives the files of a commit that was listed before.
    """
    if is_set("HF_HUB_OFFLINE"):
        message = "HF_HUB_OFFLINE is set: give ORG/NAME alone to read the hub's cache"
        raise WrongSettingError(message, path=f"hf://{address.model}")
    commits = _commits(address)
    wanted = list(dict.fromkeys(commits.values()))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        trees = pool.map(lambda c: kept(c) or _tree(address.model, c), wanted)
        return HubListing(commits, dict(zip(wanted, trees, strict=True)))


def _commits(address: HubAddress) -> dict[str, str]:
    if COMMIT.fullmatch(address.revision):
        return {address.revision: address.revision}
    refs = _refs(address.model)
    if not address.revision:
        stated = {name: commit for name, commit in refs.items() if _is_step(name)}
        if stated and not address.below:
            return stated
    branch = address.revision or ("main" if "main" in refs else next(iter(refs), "main"))
    if branch not in refs:
        known = ", ".join(list(refs)[:5])
        message = f"has no revision {branch!r}: it has {len(refs)}, such as {known}"
        raise WrongSettingError(message, path=f"hf://{address.model}")
    titled = {} if address.below or _is_step(branch) else _titled(address.model, branch)
    if titled:
        return titled
    return {branch: refs[branch]} if address.revision or address.below else refs


def _refs(model: str) -> dict[str, str]:
    """The commits of all branches and tags."""
    url = f"{endpoint()}/api/models/{model}/refs"
    content = next(_pages(url))
    try:
        return {
            str(one["name"]): _hash(one["targetCommit"])
            for kind in ("tags", "branches")
            for one in content.get(kind, [])
        }
    except DAMAGE:
        raise _odd(url) from None


def _titled(model: str, branch: str) -> dict[str, str]:
    """The last commit of every step that a title of a commit states; none for a single step."""
    url = f"{endpoint()}/api/models/{model}/commits/{quote(branch, safe='')}"
    steps: dict[int, tuple[str, str]] = {}
    for page in _pages(url):
        try:
            for one in page:  # the latest first
                step = step_in_name(str(one["title"]))
                if step is not None:
                    steps.setdefault(step, (str(one["title"]), _hash(one["id"])))
        except DAMAGE:
            raise _odd(url) from None
    return dict(steps.values()) if len(steps) > 1 else {}


def _tree(model: str, commit: str) -> dict[str, Entry]:
    """The files of a commit by their paths."""
    url = f"{endpoint()}/api/models/{model}/tree/{commit}"
    files: dict[str, Entry] = {}
    for page in _pages(f"{url}?recursive=true&expand=false"):
        try:
            for one in page:
                if one["type"] == "file":
                    path, large = str(one["path"]), one.get("lfs") or {}
                    where = f"{endpoint()}/{model}/resolve/{commit}/{quote(path)}"
                    digest = _hash(large.get("oid") or one["oid"])
                    files[path] = Entry(where, int(one["size"]), "", digest)
        except DAMAGE:
            raise _odd(url) from None
    return files


def _pages(url: str) -> Iterator[Any]:
    """What a listing answers, page by page."""
    for _ in range(MOST_PAGES):
        asked = HubSource().ask(url)
        try:
            yield json.loads(asked.body)
        except ValueError:
            raise _odd(url) from None
        following = NEXT.search(asked.headers.get("Link", ""))
        if following is None:
            return
        if not following[1].startswith(f"{endpoint()}/"):
            raise RankscopeError("names another host", path=url, reason="outside")
        url = following[1]


def _hash(value: object) -> str:
    """A commit or digest, which becomes the name of a folder or file."""
    if not isinstance(value, str) or HASH.fullmatch(value) is None:
        raise ValueError("is not a hash")
    return value


def _is_step(name: str) -> bool:
    return step_in_name(name) is not None


def _odd(url: str) -> RankscopeError:
    return RankscopeError("answers with something other than a listing of the hub", path=url)
