"""Models on the hub: a server with its documented endpoints, which its own client reads as well."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import rankscope as rs
from rankscope.addresses import shown
from rankscope.checkpoints.remote import retries
from rankscope.checkpoints.same_weights import identical_steps
from rankscope.errors import RankscopeError, WrongSettingError
from tests.checkpoints.test_remote_runs import NAME, large_weights, q_of
from tests.checkpoints.web_server import Handler, Site
from tests.conftest import CONFIG

MODEL = "org/tiny"
IS_INSTALLED = find_spec("huggingface_hub") is not None
CLIENT = pytest.mark.skipif(not IS_INSTALLED, reason="needs huggingface_hub")


@dataclass
class Hub:
    """A hub with one model; its listings have two entries on a page."""

    site: Site
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    titles: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # branch → commit, title
    token: str = ""

    def commit(self, title: str, files: dict[str, bytes]) -> str:
        """Add a commit, whose weights are in large file storage."""
        commit = hashlib.sha1(title.encode()).hexdigest()
        tree = []
        for path, content in files.items():
            sha = hashlib.sha256(content).hexdigest()
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"type": "file", "path": path, "size": len(content), "oid": oid}
            if path.endswith(".safetensors"):
                entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
            tree.append(entry)
            self.site.files[f"/cdn/{sha}"] = content
            where = f"/cdn/{sha}?X-Signature=1"
            self._answer(f"/{MODEL}/resolve/{commit}/{path}", lambda h, w=where: self._to(h, w))
        for folder in {path.rpartition("/")[0] for path in files if "/" in path}:
            tree.append({"type": "directory", "path": folder, "oid": "0" * 40, "size": 0})
        self._answer(f"/api/models/{MODEL}/tree/{commit}", lambda h: self._pages(h, tree))
        return commit

    def start(self) -> None:
        """Answer what depends on all commits."""
        refs = {
            "branches": [_ref(name, "heads", commit) for name, commit in self.branches.items()],
            "tags": [_ref(name, "tags", commit) for name, commit in self.tags.items()],
            "converts": [],
        }
        self._answer(f"/api/models/{MODEL}/refs", lambda h: _json(h, refs))
        for branch, commits in self.titles.items():
            listed = [
                {"id": one, "title": title, "message": "", "authors": [], "date": DATE}
                for one, title in commits
            ]
            self._answer(
                f"/api/models/{MODEL}/commits/{branch}", lambda h, c=listed: self._pages(h, c)
            )

    def _answer(self, path: str, answer: Callable[[Handler], None]) -> None:
        def checked(handler: Handler) -> None:
            if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
                handler.reply(401, X_Error_Code="RepoNotFound")
            else:
                answer(handler)

        self.site.answers[path] = checked

    def _to(self, handler: Handler, where: str) -> None:
        handler.reply(302, Location=f"{self.site.url.replace('127.0.0.1', 'localhost')}{where}")

    def _pages(self, handler: Handler, entries: list[dict[str, object]]) -> None:
        path, _, query = handler.path.partition("?")
        start = int(query.rpartition("cursor=")[2]) if "cursor=" in query else 0
        link = f'<{self.site.url}{path}?cursor={start + 2}>; rel="next"'
        headers = {"Link": link} if start + 2 < len(entries) else {}
        _json(handler, entries[start : start + 2], **headers)


DATE = "2026-01-01T00:00:00.000Z"


def _ref(name: str, kind: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def _json(handler: Handler, content: object, **headers: str) -> None:
    handler.reply(200, json.dumps(content).encode(), Content_Type="application/json", **headers)


@pytest.fixture
def hub(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))  # nobody has logged in there
    if IS_INSTALLED:  # its variables were read when it was imported
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hub-home" / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "stored"))
    return Hub(site)


def files_of(seed: int) -> dict[str, bytes]:
    config = json.dumps(CONFIG).encode()
    return {
        "config.json": config,
        "README.md": b"#",
        "model.safetensors": save(large_weights(seed)),
    }


def with_branches(hub: Hub, *steps: int) -> Hub:
    for step in steps:
        hub.branches[f"step{step}"] = hub.commit(f"{step}", files_of(step))
    hub.branches["main"] = hub.branches[f"step{steps[-1]}"]
    hub.start()
    return hub


def test_branches_are_steps_and_commits_are_listed_once(hub: Hub) -> None:
    with_branches(hub, 0, 8, 1000)
    run = rs.open_run(f"hf://{MODEL}")
    assert (run.name, run.steps) == (MODEL, (0, 8, 1000))
    assert [one.step_source for one in run] == ["branch"] * 3
    np.testing.assert_array_equal(q_of(run, 8), large_weights(8)[NAME])
    whole = len(hub.site.files[next(f for f in hub.site.files if f.startswith("/cdn/"))])
    assert hub.site.sent < 3 * 20_000 + 3 * 2000 + whole
    hub.site.clear()
    assert rs.open_run(f"hf://{MODEL}").steps == (0, 8, 1000)
    assert [path for _, path, _ in hub.site.requests] == [f"/api/models/{MODEL}/refs"]
    assert shown(run[8].path) == f"hf://{MODEL}@{hub.branches['step8']}"


def test_the_hubs_own_client_reads_the_same_from_this_server(hub: Hub) -> None:
    hub_package = pytest.importorskip("huggingface_hub")
    with_branches(hub, 0, 8)
    hub.titles["main"] = [(hub.branches["main"], "Training in progress, step 8")]
    hub.start()
    api = hub_package.HfApi(endpoint=hub.site.url, token=False)
    refs = api.list_repo_refs(MODEL)
    assert {one.name: one.target_commit for one in refs.branches} == hub.branches
    tree = list(api.list_repo_tree(MODEL, revision=hub.branches["step8"], recursive=True))
    ours = {p.name: p for p in rs.open_run(f"hf://{MODEL}")[8].path.iterdir()}
    assert {one.path for one in tree} == set(ours)
    for one in tree:
        assert ours[one.path].stat().st_size == one.size
        assert ours[one.path].resolve().name == (one.lfs.sha256 if one.lfs else one.blob_id)
    (commit,) = api.list_repo_commits(MODEL, revision="main")
    assert commit.title == "Training in progress, step 8"


def test_tags_are_steps_as_well(hub: Hub) -> None:
    hub.tags = {f"step-{i}": hub.commit(f"{i}", files_of(i)) for i in (5, 10)}
    hub.branches["main"] = hub.tags["step-10"]
    hub.start()
    assert rs.open_run(f"hf://{MODEL}").steps == (5, 10)


def test_titles_of_commits_are_steps_where_no_branch_is(hub: Hub) -> None:
    commits = [
        (hub.commit(f"t{i}", files_of(i)), title)
        for i, title in enumerate(
            [
                "Saving HF Model -- Step 20",
                "Saving Fabric Checkpoint -- Step 10",
                "Saving HF Model -- Step 10",
                "initial commit",
            ]
        )
    ]
    hub.branches["main"] = commits[0][0]
    hub.titles["main"] = commits
    hub.start()
    run = rs.open_run(f"hf://{MODEL}")
    assert run.steps == (10, 20)
    np.testing.assert_array_equal(q_of(run, 10), large_weights(1)[NAME])  # the last of its step


def test_a_revision_and_a_folder_in_it_are_read_by_themselves(hub: Hub) -> None:
    with_branches(hub, 0, 8)
    inside = {f"sub/{name}": content for name, content in files_of(3).items()}
    hub.branches["other"] = hub.commit("other", inside)
    hub.titles["other"] = [(hub.branches["other"], "Upload")]
    hub.start()
    assert rs.open_run(f"hf://{MODEL}@step8").steps == (8,)
    run = rs.open_run(f"hf://{MODEL}@other/sub")
    np.testing.assert_array_equal(q_of(run, run.steps[0]), large_weights(3)[NAME])
    commit = hub.branches["step0"]
    assert rs.open_run(f"hf://{MODEL}@{commit}").name == f"{MODEL}@{commit[:12]}"
    assert rs.open_run(f"hf://{MODEL}").steps == (0, 8)  # each has its own stand-ins
    with pytest.raises(WrongSettingError, match="no revision 'absent'"):
        rs.open_run(f"hf://{MODEL}@absent")
    with pytest.raises(WrongSettingError, match="not in that revision"):
        rs.open_run(f"hf://{MODEL}@other/absent")


def test_steps_with_the_same_weights_are_noticed_and_fetched_once(hub: Hub) -> None:
    for step, seed in ((0, 1), (8, 1), (16, 2)):
        hub.branches[f"step{step}"] = hub.commit(f"{step}", files_of(seed))
    hub.start()
    run = rs.open_run(f"hf://{MODEL}")
    assert identical_steps(run) == [(0, 8)]
    q_of(run, 0)
    hub.site.clear()
    q_of(run, 8)
    assert not hub.site.requests


def test_the_token_of_the_environment_goes_to_the_hub_alone(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    with_branches(hub, 0, 8).token = "hf_secret"
    with pytest.raises(RankscopeError) as caught:
        rs.open_run(f"hf://{MODEL}")
    assert caught.value.reason == "permission" and "HF_TOKEN" in str(caught.value)
    assert "none is set" in str(caught.value)
    hub.site.authorisations.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    q_of(rs.open_run(f"hf://{MODEL}"), 8)
    asked = zip(
        hub.site.requests[-len(hub.site.authorisations) :], hub.site.authorisations, strict=True
    )
    assert {(path.startswith("/cdn/"), bool(header)) for (_, path, _), header in asked} == {
        (True, False),
        (False, True),
    }
    assert not any(
        b"hf_secret" in one.read_bytes()
        for one in cache.rglob("*")
        if one.is_file() and one.stat().st_size < 10**6
    )


@pytest.mark.parametrize("is_installed", [pytest.param(True, marks=CLIENT), False])
def test_the_token_of_a_login_is_found_with_and_without_the_hubs_own_client(
    is_installed: bool, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not is_installed:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with_branches(hub, 0, 8).token = "hf_secret"
    (tmp_path / "hub-home").mkdir()
    (tmp_path / "hub-home" / "token").write_text("hf_secret\n")
    q_of(rs.open_run(f"hf://{MODEL}"), 8)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with pytest.raises(RankscopeError, match="none is set"):
        rs.open_run(f"hf://{MODEL}")


@pytest.mark.parametrize("rest", ["datasets/org/name", "org", "org/../x", "a/b@c@d/../../e"])
def test_what_is_no_model_is_wrong_use(hub: Hub, rest: str) -> None:
    hub.start()
    with pytest.raises(WrongSettingError):
        rs.open_run(f"hf://{rest}")


def test_hashes_of_a_listing_that_are_none_are_refused(hub: Hub, cache: Path) -> None:
    hub.branches = {"step1": "../../../../evil"}
    hub.start()
    with pytest.raises(RankscopeError, match="other than a listing"):
        rs.open_run(f"hf://{MODEL}")


def test_offline_says_how_to_read_the_hubs_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WrongSettingError, match="HF_HUB_OFFLINE"):
        rs.open_run(f"hf://{MODEL}")
    assert not hub.site.requests


def test_where_links_may_not_be_made_files_of_commits_are_stand_ins(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where it takes a right that few users have."""

    def refused(*_: object) -> None:
        raise OSError(22, "A required privilege is not held by the client")

    with_branches(hub, 0, 8)
    monkeypatch.setattr(Path, "symlink_to", refused)
    run = rs.open_run(f"hf://{MODEL}")
    np.testing.assert_array_equal(q_of(run, 8), large_weights(8)[NAME])
    assert not any(path.is_symlink() for path in run[8].path.iterdir())
    assert shown(run[8].path) == f"hf://{MODEL}@{hub.branches['step8']}"
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub.site.url)


def test_a_stand_in_of_a_host_with_a_port_has_no_colon(site: Site, cache: Path) -> None:
    for step in (7, 8):
        site.files[f"/step-{step}.safetensors"] = save(large_weights(step))
    run = rs.open_run(site.url)
    assert ":" not in str(run[7].path.relative_to(cache))
    assert shown(run[7].path) == f"{site.url}/step-7.safetensors"
    assert f"http://{run.name}" == site.url


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        (
            {"RateLimit": '"api";r=0;t=55', "RateLimit_Policy": '"fixed window";"api";q=500;w=300'},
            56,
        ),
        ({"Retry_After": "40"}, 40),
        ({"RateLimit": '"api";r=3;t=55'}, None),
    ],
)
def test_the_hub_is_left_alone_for_as_long_as_it_asks(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], waits: float | None
) -> None:
    """It counts requests of five minutes, and says by RateLimit when the next ones begin."""
    paused: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", paused.append)
    monkeypatch.setattr(retries, "_told", {})
    with_branches(hub, 0, 8)
    refs = f"/api/models/{MODEL}/refs"
    answer, refusals = hub.site.answers[refs], [429]
    hub.site.answers[refs] = lambda h: h.reply(refusals.pop(), **headers) if refusals else answer(h)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert rs.open_run(f"hf://{MODEL}").steps == (0, 8)
    assert [pause for pause in paused if pause > 1] == ([] if waits is None else [waits])
    assert [f"{waits} seconds" in str(one.message) for one in said] == [True] * (waits is not None)


def test_a_hub_that_wants_to_be_left_alone_for_long_is_a_line(hub: Hub) -> None:
    hub.site.answers[f"/api/models/{MODEL}/refs"] = lambda h: h.reply(429, Retry_After="4000")
    with pytest.raises(RankscopeError, match=r"HTTP 429; attempts: 1"):
        rs.open_run(f"hf://{MODEL}")


@pytest.mark.parametrize(
    ("code", "said"), [("GatedRepo", "it is gated"), ("RepoNotFound", "does not exist")]
)
def test_what_the_hub_means_by_a_refusal_is_said(hub: Hub, code: str, said: str) -> None:
    refs = f"/api/models/{MODEL}/refs"
    hub.site.answers[refs] = lambda h: h.reply(401, X_Error_Code=code)
    with pytest.raises(RankscopeError, match=rf"HTTP 401; .*HF_TOKEN.*{said}"):
        rs.open_run(f"hf://{MODEL}")
    api = pytest.importorskip("huggingface_hub").HfApi(endpoint=hub.site.url, token=False)
    theirs = "GatedRepo" if code == "GatedRepo" else "RepositoryNotFound"
    with pytest.raises(Exception, match="401") as caught:
        api.list_repo_refs(MODEL)
    assert type(caught.value).__name__ == f"{theirs}Error"  # what its own client makes of it


def test_a_model_that_was_renamed_is_found(hub: Hub) -> None:
    """The hub answers 307 with the new place; the token goes there, as it is the same host."""
    with_branches(hub, 0, 8)
    hub.token = ""
    old = "old/name"
    hub.site.answers[f"/api/models/{old}/refs"] = lambda h: h.reply(
        307, Location=f"/api/models/{MODEL}/refs"
    )
    for commit in hub.branches.values():
        hub.site.answers[f"/api/models/{old}/tree/{commit}"] = lambda h, c=commit: h.reply(
            307, Location=f"/api/models/{MODEL}/tree/{c}?recursive=true&expand=false"
        )
        for file in files_of(0):
            hub.site.answers[f"/{old}/resolve/{commit}/{file}"] = lambda h, c=commit, f=file: (
                h.reply(307, Location=f"/{MODEL}/resolve/{c}/{f}")
            )
    run = rs.open_run(f"hf://{old}")
    np.testing.assert_array_equal(q_of(run, 8), large_weights(8)[NAME])
