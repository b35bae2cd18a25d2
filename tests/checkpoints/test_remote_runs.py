"""Runs on a web server: what is fetched, and what becomes of what fails or changes there."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from typer.testing import CliRunner

import rankscope as rs
from rankscope.analysis.plan import plan_run
from rankscope.analysis.preview import preview
from rankscope.analysis.request import Selection
from rankscope.analysis.worker import decompose_all
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.remote import range_cache, retries
from rankscope.checkpoints.remote.ledger import fetched
from rankscope.checkpoints.remote.remote_file import AHEAD, GAP
from rankscope.cli.app import app
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError
from rankscope.pipeline.engine import Failure
from tests.checkpoints.web_server import Handler, Site, serving
from tests.conftest import (
    CONFIG,
    TinyRun,
    random_factors,
    random_weights,
    write_adapter,
    write_model,
)

NAME = "model.layers.0.self_attn.q_proj.weight"


def q_of(run: rs.Run, step: int) -> np.ndarray:
    tensor = run[step].contents.parameters[NAME].tensor
    assert tensor is not None
    return tensor.read()


def large_weights(seed: int) -> dict[str, np.ndarray]:
    """Weights whose matrices are not within what is read of a file with its header."""
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(4 * AHEAD // 64, 16)).astype(np.float32)
    return {**random_weights(rng), "lm_head.weight": embedding}


def serve_steps(site: Site, *steps: int) -> dict[int, dict[str, np.ndarray]]:
    """Serve a Hugging Face run; returns the weights by step."""
    weights = {step: large_weights(step) for step in steps}
    for step, tensors in weights.items():
        site.files[f"/run/checkpoint-{step}/model.safetensors"] = save(tensors)
        site.files[f"/run/checkpoint-{step}/config.json"] = json.dumps(CONFIG).encode()
    return weights


@pytest.mark.slow
def test_a_run_elsewhere_has_the_table_of_its_copy_and_is_fetched_once(
    site: Site, relora_run: TinyRun, tmp_path: Path
) -> None:
    site.add(relora_run.path, "/exp/relora")
    address = f"{site.url}/exp/relora"
    remote = rs.analyze(address, out=tmp_path / "out", jobs=1)
    assert remote.equals(rs.analyze(relora_run.path, jobs=1))
    record = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert record["runs"][0]["path"] == address
    site.clear()
    rs.analyze(address, out=tmp_path / "out", jobs=1)
    assert not site.asked_for_bytes() and site.requests
    assert rs.diagnose(address, results=tmp_path / "out").runs == ("relora",)


def test_only_headers_and_asked_tensors_are_fetched(site: Site) -> None:
    big = {
        f"model.layers.{i}.mlp.up_proj.weight": np.ones((512, 512), np.float32) for i in range(8)
    }
    content = save(big)
    site.files["/run/checkpoint-5/model.safetensors"] = content
    site.files["/run/checkpoint-5/config.json"] = json.dumps(CONFIG).encode()
    run = rs.open_run(f"{site.url}/run")
    tensors = run[5].contents.parameters
    for layer in (2, 5):
        tensor = tensors[f"model.layers.{layer}.mlp.up_proj.weight"].tensor
        assert tensor is not None and (tensor.read() == 1).all()
    assert (last := tensors["model.layers.7.mlp.up_proj.weight"].tensor) is not None
    assert (last.elements(0, 10) == 1).all()
    header = 8 + int.from_bytes(content[:8], "little")
    asked = 2 * 512 * 512 * 4
    assert asked <= site.sent <= 1.01 * (header + asked) + AHEAD + len(json.dumps(CONFIG))
    assert fetched().size == site.sent
    site.clear()
    assert (q := tensors["model.layers.2.mlp.up_proj.weight"].tensor) is not None
    assert (q.read() == 1).all() and site.sent == 0


def test_inspecting_fetches_no_data(site: Site) -> None:
    serve_steps(site, 5, 10)
    found = survey([f"{site.url}/run"])
    site.clear()
    described = preview(found)
    assert described["runs"][0]["described_step"] == 10 and not described["skips"]
    assert not site.requests


def test_a_worker_fetches_neighbouring_matrices_together(site: Site) -> None:
    serve_steps(site, 5, 10)
    plans = plan_run(rs.open_run(f"{site.url}/run"), Selection.of(components="weight"))
    chunk = [(task.recipe, task.files) for plan in plans for task in plan.tasks]
    site.clear()
    outcomes = decompose_all(chunk)
    assert len(outcomes) == 28 and not any(isinstance(one, Failure) for one in outcomes)
    assert len(site.requests) == 2  # one for each file


def test_a_zip_is_read_by_its_directory(site: Site) -> None:
    rng = np.random.default_rng(6)
    tensors = {
        f"model.layers.{i}.mlp.up_proj.weight": rng.normal(size=(128, 96)) for i in range(24)
    }
    packed = io.BytesIO()
    np.savez(packed, **tensors)
    site.files["/run/step_5.npz"] = packed.getvalue()
    name = "model.layers.17.mlp.up_proj.weight"
    found = rs.open_run(f"{site.url}/run")[5].contents.parameters[name].tensor
    assert found is not None
    np.testing.assert_array_equal(found.read(), tensors[name])
    assert site.sent < len(packed.getvalue()) / 4


def test_neighbouring_ranges_are_one_request_and_distant_ones_are_not() -> None:
    from rankscope.checkpoints.remote.remote_file import _iter_missing

    near = [(0, 10), (10 + GAP, 20 + GAP), (21 + 2 * GAP, 30 + 2 * GAP)]
    assert list(_iter_missing(near, [], 10**6)) == [(0, 20 + GAP), (21 + 2 * GAP, 30 + 2 * GAP)]
    assert list(_iter_missing([(0, 10)], [(0, 4), (4, 7)], 10**6)) == [(7, 10)]


def test_a_connection_that_is_cut_is_made_again(site: Site) -> None:
    weights = serve_steps(site, 5, 10)
    for path in site.files:
        site.faults[path] = ["cut", 503, 429]
    run = rs.open_run(f"{site.url}/run")
    np.testing.assert_array_equal(q_of(run, 10), weights[10][NAME])


def test_a_server_of_the_other_protocol_is_asked_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(retries, "_pause", lambda seconds, _: pauses.append(seconds))
    other = site.url.replace("http://", "https://")
    with pytest.raises(RankscopeError, match=r"does not answer in https \(.*\): try http://"):
        rs.open_run(f"{other}/run")
    assert not pauses


def test_what_cannot_be_fetched_costs_its_step(site: Site) -> None:
    weights = serve_steps(site, 5, 10, 15)
    site.faults["/run/checkpoint-10/model.safetensors"] = ["always"]
    run = rs.open_run(f"{site.url}/run")
    assert run.steps == (5, 10, 15)
    with pytest.raises(RankscopeError) as caught:
        q_of(run, 10)
    assert caught.value.reason == "connection"
    assert f"{site.url}/run/checkpoint-10/model.safetensors" in str(caught.value)
    np.testing.assert_array_equal(q_of(run, 15), weights[15][NAME])


def test_a_single_file_whose_bytes_do_not_come_is_named(site: Site) -> None:
    for step in (5, 10, 15):
        site.files[f"/run/step_{step}.safetensors"] = save(random_weights(np.random.default_rng(1)))
    site.faults["/run/step_10.safetensors"] = ["always"]
    found = survey([f"{site.url}/run"])
    lines = [*map(str, found.skips), *map(str, found.notes)]
    assert found.runs[0].steps == (5, 10, 15) or any("step_10" in line for line in lines)


def test_an_object_that_changed_is_refused_and_read_once_listed_anew(site: Site) -> None:
    serve_steps(site, 5, 10)
    run = rs.open_run(f"{site.url}/run")
    contents = run[10].contents
    other = large_weights(99)
    site.files["/run/checkpoint-10/model.safetensors"] = save(other)
    tensor = contents.parameters[NAME].tensor
    assert tensor is not None
    with pytest.raises(RankscopeError) as caught:
        tensor.read()
    assert caught.value.reason == "changed-while-reading"
    again = rs.open_run(f"{site.url}/run")
    np.testing.assert_array_equal(q_of(again, 10), other[NAME])
    with pytest.raises(RankscopeError, match="written to"):  # the header of before
        from rankscope.checkpoints.file_states import as_planned

        with as_planned(contents.states.items()):
            tensor.read()


def test_the_key_of_an_object_needs_none_of_its_bytes(site: Site) -> None:
    serve_steps(site, 5)
    (path,) = rs.open_run(f"{site.url}/run")[5].contents.parameters[NAME].tensor.paths
    site.clear()
    before = fingerprint(path)
    assert before == fingerprint(path) and not site.requests
    site.files["/run/checkpoint-5/model.safetensors"] = save(large_weights(99))
    rs.open_run(f"{site.url}/run")
    assert fingerprint(path) != before


def test_an_object_that_is_gone_is_named(site: Site) -> None:
    serve_steps(site, 5, 10)
    run = rs.open_run(f"{site.url}/run")
    tensor = run[10].contents.parameters[NAME].tensor
    del site.files["/run/checkpoint-10/model.safetensors"]
    with pytest.raises(RankscopeError) as caught:
        assert tensor is not None
        tensor.read()
    assert caught.value.reason == "missing"
    assert rs.open_run(f"{site.url}/run/checkpoint-5").steps == (5,)
    del site.files["/run/checkpoint-10/config.json"]
    assert survey([f"{site.url}/run"]).runs[0].steps == (5,)


def test_a_server_without_ranges_sends_the_whole_up_to_a_limit(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = serve_steps(site, 5)
    site.has_ranges = False
    run = rs.open_run(f"{site.url}/run")
    np.testing.assert_array_equal(q_of(run, 5), weights[5][NAME])
    whole = len(site.files["/run/checkpoint-5/model.safetensors"])
    assert site.sent <= 2 * whole
    serve_steps(site, 6)
    monkeypatch.setattr("rankscope.checkpoints.remote.web_source.WHOLE", whole - 1)
    with pytest.raises(RankscopeError, match="does not serve parts of a file") as caught:
        q_of(rs.open_run(f"{site.url}/run"), 6)
    assert caught.value.reason == "no-ranges"


def test_an_answer_with_another_range_is_not_believed(site: Site) -> None:
    serve_steps(site, 5)
    run = rs.open_run(f"{site.url}/run")
    tensor = run[5].contents.parameters[NAME].tensor
    path = "/run/checkpoint-5/model.safetensors"
    content = site.files[path]

    def shifted(handler: Handler) -> None:
        start, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
        part = content[int(start) + 4 : int(last) + 5]
        where = f"bytes {int(start) + 4}-{int(last) + 4}/{len(content)}"
        handler.reply(206, part, Content_Range=where, ETag=f'"{_etag(content)}"')

    site.answers[path] = shifted
    with pytest.raises(RankscopeError, match="a range other than"):
        assert tensor is not None
        tensor.read()


def test_more_than_was_asked_for_is_not_read(site: Site) -> None:
    serve_steps(site, 5)
    run = rs.open_run(f"{site.url}/run")
    tensor = run[5].contents.parameters[NAME].tensor
    path = "/run/checkpoint-5/model.safetensors"
    content = site.files[path]

    def endless(handler: Handler) -> None:
        where = f"bytes {handler.headers['Range'].removeprefix('bytes=')}/{len(content)}"
        handler.reply(206, content, Content_Range=where, ETag=f'"{_etag(content)}"')

    site.answers[path] = endless
    with pytest.raises(RankscopeError) as caught:
        assert tensor is not None
        tensor.read()
    assert caught.value.reason == "over-limit"


def test_a_wrong_size_of_the_cache_is_wrong_use(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKSCOPE_CACHE_SIZE", "much")
    with pytest.raises(WrongSettingError, match="RANKSCOPE_CACHE_SIZE"):
        rs.open_run(f"{site.url}/run")
    assert not site.requests


def _etag(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusals_are_not_tried_again_and_show_no_secret(site: Site, status: int) -> None:
    host = site.url.removeprefix("http://")
    path = "/run/model.safetensors"
    site.answers[path] = lambda handler: handler.reply(status)
    with pytest.raises(RankscopeError) as caught:
        rs.open_run(f"http://me:password@{host}{path}?X-Signature=hidden")
    line = str(caught.value)
    assert f"http://{host}{path}" in line and str(status) in line
    assert "password" not in line and "hidden" not in line
    assert len([one for one in site.requests if one[1].startswith(path)]) == 1
    if status != 404:
        assert "credentials looked for" in line and caught.value.reason == "permission"


def test_a_signed_address_is_read_and_its_signature_is_in_no_table_and_no_key(
    site: Site, cache: Path
) -> None:
    weights = random_weights(np.random.default_rng(3))
    content = save(weights)

    def signed(handler: Handler) -> None:
        if "X-Signature=hidden" not in handler.path or handler.command == "HEAD":
            handler.reply(403)
            return
        handler._file(content)

    site.answers["/run/step-7.safetensors"] = signed
    address = f"{site.url}/run/step-7.safetensors"
    run = rs.open_run(f"{address}?X-Signature=hidden")
    assert run.steps == (7,)
    np.testing.assert_array_equal(q_of(run, 7), weights[NAME])
    shown = CliRunner().invoke(app, ["inspect", "--json", f"{address}?X-Signature=hidden"])
    assert shown.exit_code == 0 and "hidden" not in shown.output
    described = json.loads(shown.output)
    assert described["runs"][0]["path"] == address and described["fetched"]["size"] > 0
    holding = [p for p in cache.rglob("*") if p.is_file() and p.stat().st_size < 10**5]
    holding = [p for p in holding if b"hidden" in p.read_bytes() or "hidden" in str(p)]
    assert [p.parent.name for p in holding] == ["secrets"]
    assert stat.S_IMODE((cache / "secrets").stat().st_mode) == 0o700


def test_a_redirection_is_followed_without_the_password(site: Site) -> None:
    content = save(random_weights(np.random.default_rng(3)))
    with serving(Site()) as other:
        other.files["/data/one"] = content
        where = f"{other.url}/data/one"
        site.answers["/run/step-7.safetensors"] = lambda h: h.reply(302, Location=where)
        host = site.url.removeprefix("http://")
        run = rs.open_run(f"http://me:password@{host}/run/step-7.safetensors")
        assert q_of(run, 7).shape == (16, 16)
        assert any(site.authorisations) and not any(other.authorisations)


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://127.0.0.1/run"])
def test_a_redirection_off_the_web_is_refused(site: Site, where: str) -> None:
    site.answers["/run/step-7.safetensors"] = lambda h: h.reply(302, Location=where)
    with pytest.raises(RankscopeError) as caught:
        rs.open_run(f"{site.url}/run/step-7.safetensors")
    assert caught.value.reason == "outside"


@pytest.mark.parametrize("shard", ["../other/model.safetensors", "http://127.0.0.1:1/x", "/etc/x"])
def test_an_index_leads_nowhere_but_into_its_run(site: Site, shard: str) -> None:
    site.files["/run/checkpoint-5/config.json"] = json.dumps(CONFIG).encode()
    listing = {"weight_map": {NAME: shard}}
    site.files["/run/checkpoint-5/model.safetensors.index.json"] = json.dumps(listing).encode()
    site.files["/other/model.safetensors"] = save(random_weights(np.random.default_rng(3)))
    rs.open_runs([f"{site.url}/other"])
    with pytest.raises(RankscopeError):
        _ = rs.open_run(f"{site.url}/run")[5].contents
    assert all(path.startswith(("/run/", "/other/")) for _, path, _ in site.requests)


def test_an_adapter_elsewhere_leads_to_no_folder_here_but_takes_a_base_that_is_given(
    site: Site, tmp_path: Path
) -> None:
    weights = random_weights(np.random.default_rng(4))
    write_model(tmp_path / "base", weights)
    write_adapter(tmp_path / "one", random_factors(np.random.default_rng(5)), scale=2.0)
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "base")
    (tmp_path / "one" / "adapter_config.json").write_text(json.dumps(config))
    assert rs.open_run(tmp_path / "one").checkpoints[0].contents.base is not None
    site.add(tmp_path / "one", "/run/checkpoint-5")
    site.add(tmp_path / "base", "/base")
    assert rs.open_run(f"{site.url}/run")[5].contents.base is None
    given = rs.open_run(f"{site.url}/run", base=f"{site.url}/base")[5].contents
    assert given.parameters[NAME].tensor is not None


def test_links_of_a_page_to_other_places_are_ignored(site: Site) -> None:
    serve_steps(site, 5)
    links = ["checkpoint-5/", "/other/", "http://127.0.0.1:1/evil.safetensors", "%2e%2e/", "a%2fb"]
    page = "".join(f'<a href="{link}">x</a>' for link in links).encode()
    site.answers["/run/"] = lambda h: h.reply(200, page, Content_Type="text/html")
    assert rs.open_run(f"{site.url}/run").steps == (5,)
    assert all(path.startswith("/run/") for _, path, _ in site.requests)


def test_headers_of_many_checkpoints_are_fetched_at_once_over_few_connections(site: Site) -> None:
    serve_steps(site, *range(1, 41))
    busy, most, lock = [0], [0], threading.Lock()
    original = Handler._file

    def slow(handler: Handler, content: bytes) -> None:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.005)
        original(handler, content)
        with lock:
            busy[0] -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "_file", slow)
        run = rs.open_run(f"{site.url}/run")
    site.clear()
    assert all(checkpoint.contents.parameters for checkpoint in run)
    assert not site.requests  # all are there
    assert 4 <= most[0] <= 16


def test_a_damaged_or_removed_range_is_fetched_again(site: Site, cache: Path) -> None:
    weights = serve_steps(site, 5)
    run = rs.open_run(f"{site.url}/run")
    expected = q_of(run, 5)
    ranges = [path for path in (cache / "ranges").rglob("*") if path.is_file()]
    for path in ranges:
        content = path.read_bytes()
        path.write_bytes(bytes(byte ^ 1 for byte in content[:-16]) + content[-16:])
    np.testing.assert_array_equal(q_of(rs.open_run(f"{site.url}/run"), 5), expected)
    for path in (cache / "ranges").rglob("*"):
        if path.is_file():
            path.unlink()
    np.testing.assert_array_equal(q_of(rs.open_run(f"{site.url}/run"), 5), weights[5][NAME])


def test_the_cache_keeps_to_its_size_and_drops_what_was_used_least_recently(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKSCOPE_CACHE_SIZE", "10kB")
    monkeypatch.setattr(range_cache, "_added", {})
    one, other = (range_cache.RangeCache.of(cache, name * 16) for name in ("ab", "cd"))
    for i in range(8):
        one.put(i * 1000, bytes(1000))
        os.utime(one.folder / f"{i * 1000}-{(i + 1) * 1000}", (i, i))
    assert one.get(0, 1000) is not None  # used now
    for i in range(3):
        other.put(i * 1000, bytes(1000))
    total = sum(p.stat().st_size for p in (cache / "ranges").rglob("*") if p.is_file())
    assert total <= 10_000 + 1016
    assert one.get(0, 1000) is not None and one.get(1000, 2000) is None


def test_an_undated_object_is_not_taken_from_an_earlier_call(site: Site) -> None:
    site.has_versions = False
    serve_steps(site, 5)
    before = q_of(rs.open_run(f"{site.url}/run"), 5)
    serve_steps(site, 5)
    other = large_weights(77)
    site.files["/run/checkpoint-5/model.safetensors"] = save(other)
    after = q_of(rs.open_run(f"{site.url}/run"), 5)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, other[NAME])


def test_stand_ins_take_no_room(site: Site, cache: Path) -> None:
    serve_steps(site, 5)
    rs.open_run(f"{site.url}/run")
    (path,) = (cache / "rankscope-elsewhere").rglob("model.safetensors")
    assert path.stat().st_size == len(site.files["/run/checkpoint-5/model.safetensors"])
    assert path.stat().st_blocks == 0 and not any(path.read_bytes())


def test_nothing_at_an_address_is_wrong_use_and_so_is_what_needs_files_here(
    site: Site, tmp_path: Path
) -> None:
    serve_steps(site, 5)
    (tmp_path / "novel.txt").write_text("It was a bright cold day in April.")
    with pytest.raises(WrongSettingError, match="not there"):
        rs.open_run(f"{site.url}/nowhere")
    with pytest.raises(WrongSettingError, match="copy the run here"):
        rs.evaluate(f"{site.url}/run", text=tmp_path / "novel.txt")
    with pytest.raises(WrongSettingError, match="not on this machine"):
        rs.analyze(f"{site.url}/run", out="s3://bucket/results")
    with pytest.raises(WrongSettingError, match="not a kind of address"):
        rs.open_run("nonsense://host/run")


def page(*names: str) -> Callable[[Handler], None]:
    """Answers with a page of links."""
    body = "".join(f"<a href='{name}'>x</a>" for name in names).encode()
    return lambda handler: handler.reply(200, body, Content_Type="text/html")


@pytest.mark.parametrize("name", ["latest", "private/", "sizeless"])
@pytest.mark.parametrize("status", [403, 404])
def test_what_a_page_lists_and_nobody_can_have_costs_itself(
    site: Site, name: str, status: int
) -> None:
    """As a broken link in a folder that Python's own server lists."""

    def refuse(handler: Handler) -> None:
        if name == "sizeless":
            handler.reply(200, Content_Length="?")
        else:
            handler.reply(status)

    serve_steps(site, 1, 2)
    site.answers["/run/"] = page("checkpoint-1/", "checkpoint-2/", name)
    site.answers[f"/run/{name}"] = refuse
    with pytest.warns(RankscopeWarning, match=f"1 of what .*/run lists .* the first: .*/{name}: "):
        run = rs.open_run(f"{site.url}/run")
    assert [one.step for one in run] == [1, 2]


def test_a_folder_that_is_elsewhere_by_now_is_named(site: Site) -> None:
    serve_steps(site, 1)
    other = site.url.replace("127.0.0.1", "localhost")
    for where in ("/run/", f"{other}/run/?key=hidden"):
        site.answers["/old/"] = lambda handler, where=where: handler.reply(302, Location=where)  # type: ignore[misc]
        with pytest.raises(RankscopeError, match=r"leads to http://\S*/run/: give that") as refused:
            rs.open_run(site.url.replace("http://", "http://me:hidden@") + "/old")
        assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://me:qx/zq@127.0.0.1:1/run", "http://me:qx?zq@127.0.0.1:1/run",
        "https://me:qxzq@[::1/run", "https://me:qxzq@host:x/run", "s3://me:qxzq@bucket/run",
    ],
)  # fmt: skip
def test_a_password_in_an_address_that_cannot_be_read_is_not_shown(address: str) -> None:
    with pytest.raises(WrongSettingError) as refused:
        rs.open_run(address)
    assert "qx" not in str(refused.value) and "zq" not in str(refused.value)


def test_a_password_may_be_escaped(site: Site) -> None:
    serve_steps(site, 1)
    rs.open_run(site.url.replace("http://", "http://me:a%2Fb%40@") + "/run")
    said = base64.b64encode(b"me:a/b@").decode()
    assert set(site.authorisations) == {f"Basic {said}"}


def test_a_cache_that_cannot_be_made_is_wrong_use(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_steps(site, 1)
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        monkeypatch.setenv("RANKSCOPE_CACHE", str(tmp_path / place))
        with pytest.raises(WrongSettingError, match="set RANKSCOPE_CACHE to a folder"):
            rs.open_run(f"{site.url}/run")
    assert not site.requests


def test_a_file_with_the_name_of_a_folder_is_left_out(site: Site) -> None:
    serve_steps(site, 1)
    site.files["/run/checkpoint-1"] = b"x"
    site.answers["/run/"] = page("checkpoint-1", "checkpoint-1/")
    with pytest.warns(RankscopeWarning, match="such as 'checkpoint-1'"):
        assert [one.step for one in rs.open_run(f"{site.url}/run")] == [1]
