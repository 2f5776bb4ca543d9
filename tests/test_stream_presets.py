"""Presets and playlists: their file, which a person edits too, and what HTTP offers of them."""

# ruff: noqa: ASYNC240 - nobody waits for these small files

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from engines import ColourEngine
from peers import Serving, flat, serving
from test_stream_actions import act, refusal
from test_stream_session import FAST, INVERTED, ORANGE, expected

from stream import preset_file
from stream.config import ServerConfig
from stream.errors import ControlRefused, RequestRefused
from stream.preset_store import PresetStore
from stream.presets import MAX_ENTRIES, Playlist, Preset, Step, parse_playlist, parse_preset
from stream.tokens import Token

pytestmark = pytest.mark.usefixtures("corrected")

SHARED = (Token("anna", "s3cret-of-anna-alone"),)
BY_HAND = """\
# My looks; keep the first one for openings.
[presets.evening]
prompt = "invert"   # dark
strength = 1        # whole

  [presets."Late, \\"no\\""] # a name that is refused
prompt = "swap"

# The noon look is for guests.
[presets.noon]
# not too much
prompt = 'grey'
strength = 0.5

[playlists]
[playlists.show]
steps = [
  {preset = "evening", seconds = 20},
  {preset = "noon", seconds = 10},   # short
]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "presets.toml"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def test_nothing_is_written_before_a_preset_is_saved(path: Path) -> None:
    """Reading makes no file and no folder; saving makes both, with what was saved."""
    store = PresetStore(path)
    book = await store.read()
    assert (book.presets, book.playlists, book.problems) == ({}, {}, ())
    assert not path.parent.exists()
    look = {"prompt": 'a "blend":0.6 \\ ü', "strength": 0.25, "seed": 7, "transition_s": 2.0}
    assert await store.save(parse_preset("Abend 1", look))
    assert await store.save(Playlist("show", (Step("Abend 1", 2.5),), loop=True))
    assert not await store.save(parse_preset("Abend 1", {**look, "seed": 8}))
    book = await PresetStore(path).read()
    assert book.presets == {"Abend 1": Preset("Abend 1", {**look, "seed": 8})}
    assert book.playlists == {"show": Playlist("show", (Step("Abend 1", 2.5),), loop=True)}
    assert [each.name for each in path.parent.iterdir()] == ["presets.toml"]


async def test_what_a_person_wrote_stays(path: Path) -> None:
    """The server changes one table; every other line is as it was, comments included."""
    write(path, BY_HAND)
    store = PresetStore(path)
    assert (await store.read()).presets["noon"].look == {"prompt": "grey", "strength": 0.5}
    await store.save(parse_preset("noon", {"prompt": "swap", "seed": 3}))
    await store.save(parse_preset("new", {"stability": 0.75}))
    expected_text = BY_HAND.replace(
        "prompt = 'grey'\nstrength = 0.5\n", 'prompt = "swap"\nseed = 3\n'
    )
    assert path.read_text() == expected_text + "\n[presets.new]\nstability = 0.75\n"
    await store.delete("presets", "new")
    assert path.read_text() == expected_text
    await store.delete("playlists", "show")
    await store.delete("presets", "evening")
    text = path.read_text()
    assert text.startswith("# My looks; keep the first one for openings.\n")
    assert "# The noon look is for guests.\n[presets.noon]\n# not too much\n" in text
    assert "[playlists.show]" not in text
    assert list((await store.read()).presets) == ["noon"]


async def test_change_by_hand_is_seen_at_once(path: Path) -> None:
    """The file is read again when it has changed, by an editor that replaces it too."""
    write(path, BY_HAND)
    store = PresetStore(path)
    assert list((await store.read()).presets) == ["evening", "noon"]
    other = path.with_suffix(".new")
    other.write_text(BY_HAND.replace("presets.noon", "presets.none"))
    other.replace(path)
    assert list((await store.read()).presets) == ["evening", "none"]
    path.unlink()
    assert (await store.read()).presets == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[presets.a]\nprompt = ink\n", "presets.toml, line 2, column 10: invalid value"),
        ("[presets.a\n", "presets.toml, line 1, column 11: expected ']' at the end"),
        ("[presets.a]\nseed = 1\nseed = 2\n", "presets.toml, line 3, column 9: cannot overwrite"),
        ('[presets.a]\nprompt = "', "presets.toml, end of document: unterminated string"),
        ('[preset.a]\nprompt = "invert"\n', "presets.toml, line 1: tables are named like"),
        ("presets = 5\n", "presets.toml: tables are named like [presets.evening]"),
        (b'[presets.a]\nprompt = "\xff"\n', "presets.toml, line 2: this is not UTF-8 text"),
        ("x = 1\n" * 60_000, "presets.toml may have 262144 bytes"),
    ],
)
async def test_damaged_file_is_one_sentence_and_is_left_alone(
    path: Path, text: str | bytes, sentence: str
) -> None:
    """A file that cannot be read names the line; what was read last stays, nothing is written."""
    write(path, BY_HAND)
    store = PresetStore(path)
    before = await store.read()
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(data)
    book = await store.read()
    assert (book.presets, book.playlists) == (before.presets, before.playlists)
    (problem,) = book.problems
    assert problem.startswith("presets.toml")
    assert sentence in problem
    with pytest.raises(RequestRefused, match="so that nothing is lost") as refused:
        await store.save(parse_preset("noon", {"seed": 3}))
    assert refused.value.status == 409
    assert path.read_bytes() == data
    write(path, BY_HAND)
    assert len((await store.read()).problems) == 1


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("[presets.bad]\nstrength = 7\n", "line 21, preset 'bad': strength must be from 0 to 1"),
        ("[presets.bad]\nstrenght = 1\n", "line 21, preset 'bad': a preset has prompt, strength"),
        ("[presets.bad]\nbypass = true\n", "preset 'bad': a preset has prompt"),
        ("[presets.bad]\nseed = 2024-01-01\n", "preset 'bad': seed must be a whole number"),
        ("[presets.bad]\n", "preset 'bad': a preset sets at least one of"),
        ("[presets]\nbad = 5\n", "preset 'bad': settings are an object"),
        ("[playlists.bad]\nsteps = []\n", "line 21, playlist 'bad': steps is a list of 1 to 200"),
        (
            '[playlists.bad]\nsteps = [{preset = "nooon", seconds = 1}]\n',
            "playlist 'bad': there is no usable preset 'nooon'",
        ),
        (
            '[playlists.bad]\nsteps = [{preset = "noon", seconds = 0}]\n',
            "playlist 'bad': seconds in step 1 must be a number from 0.1 to 86400 (got '0')",
        ),
    ],
)
async def test_mistyped_entry_is_named_and_the_others_go_on(
    path: Path, entry: str, sentence: str
) -> None:
    """One wrong entry costs only itself, is kept in the file, and can be saved over."""
    text = BY_HAND.replace("[playlists]\n[playlists.show]", "[playlists.show]") + "\n" + entry
    text = text.replace('  [presets."Late, \\"no\\""] # a name that is refused\n', "[presets.x]\n")
    write(path, text)
    store = PresetStore(path)
    book = await store.read()
    assert {"evening", "noon"} <= book.presets.keys()
    assert "show" in book.playlists
    (problem,) = book.problems
    assert sentence in problem, problem
    await store.save(parse_preset("other", {"seed": 1}))
    assert entry in path.read_text()
    if entry.startswith("[presets.bad]"):
        await store.save(parse_preset("bad", {"seed": 1}))
        assert (await store.read()).problems == ()


async def test_form_that_is_not_edited_is_refused(path: Path) -> None:
    """An entry written in another of TOML's ways is used, and not guessed at when saving."""
    text = 'presets.evening = {prompt = "invert"}\n'
    write(path, text)
    store = PresetStore(path)
    assert (await store.read()).presets["evening"].look == {"prompt": "invert"}
    with pytest.raises(RequestRefused, match=r"change it by hand.*\[presets\.evening\]"):
        await store.save(parse_preset("evening", {"seed": 3}))
    with pytest.raises(RequestRefused, match="change it by hand"):
        await store.delete("presets", "evening")
    assert path.read_text() == text


async def test_write_that_fails_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is one sentence, and neither the file nor its folder has changed."""
    write(path, BY_HAND)
    store = PresetStore(path)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RequestRefused, match="No space left on device; it is as it was"):
        await store.save(parse_preset("noon", {"seed": 3}))
    assert path.read_text() == BY_HAND
    assert [each.name for each in path.parent.iterdir()] == ["presets.toml"]


async def test_link_to_a_file_stays_a_link(path: Path, tmp_path: Path) -> None:
    """Who keeps the file elsewhere and links it finds the change there."""
    real = tmp_path / "dotfiles.toml"
    real.write_text(BY_HAND)
    path.parent.mkdir()
    path.symlink_to(real)
    await PresetStore(path).save(parse_preset("noon", {"seed": 3}))
    assert path.is_symlink()
    assert tomllib.loads(real.read_text())["presets"]["noon"] == {"seed": 3}


async def test_number_of_entries_is_bounded(path: Path) -> None:
    """One more than 200 is refused; one of them can still be changed."""
    write(path, "".join(f"[presets.p{number}]\nseed = 1\n" for number in range(MAX_ENTRIES)))
    store = PresetStore(path)
    with pytest.raises(RequestRefused, match="there are 200 already"):
        await store.save(parse_preset("more", {"seed": 3}))
    assert not await store.save(parse_preset("p5", {"seed": 3}))


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", 'a"b', "a\n", "-a", "x" * 65])
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ControlRefused, match="a name has 1 to 64 letters"):
        parse_preset(name, {"seed": 1})


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"steps": [{"preset": "a", "seconds": 1}], "shuffle": True},
        {"steps": [{"preset": "a", "seconds": 1}], "loop": 1},
        {"steps": [{"preset": "a"}]},
        {"steps": [{"preset": 5, "seconds": 1}]},
        {"steps": [{"preset": "a", "seconds": True}]},
        {"steps": [{"preset": "a", "seconds": float("nan")}]},
        {"steps": "a 1"},
    ],
)
def test_bad_playlist_is_refused(values: object) -> None:
    with pytest.raises(ControlRefused) as refused:
        parse_playlist("show", values)
    assert refused.value.detail.isprintable()


def test_default_file_is_in_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preset_file.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    assert preset_file.find_default_file() == Path("/somewhere/sdxs-live/presets.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert preset_file.find_default_file() == Path.home() / ".config/sdxs-live/presets.toml"


async def ask(server: Serving, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with server.http.request(method, f"{server.base}/api/{path}", **options) as response:
        return response.status, await response.json()


async def test_presets_over_http(path: Path) -> None:
    """Saved, listed, applied to a session on air, deleted; each refusal is one sentence."""
    async with serving(ColourEngine, ServerConfig(presets=path)) as server:
        peer = await server.connect(flat(ORANGE), "?name=studio&prompt=invert")
        await peer.until_colour(INVERTED)
        status, book = await ask(server, "GET", "presets")
        assert (status, book["presets"], book["may_save"]) == (200, [], True)
        look = {"prompt": "swap", "strength": 0.5, "transition_s": 0}
        assert (await ask(server, "PUT", "presets/Abend%201", json=look))[0] == 201
        status, book = await ask(server, "PUT", "presets/Abend%201", json={**look, "strength": 1})
        assert status == 200
        assert book["presets"] == [
            {"name": "Abend 1", "prompt": "swap", "strength": 1.0, "transition_s": 0.0}
        ]
        answer = await act(server, "studio", "preset?name=Abend+1")
        assert answer["controls"]["prompt"] == "swap"
        await peer.until_colour(tuple(expected("swap", ORANGE).tolist()))
        await ask(server, "PUT", "presets/wrong", json={"prompt": "marmalade", "strength": 0})
        for action, status, words in [
            ("preset", 422, "needs a name"),
            ("preset?name=noon", 404, "no preset is named 'noon'; there are Abend 1, wrong"),
            ("preset?name=wrong", 422, 'no style is named "marmalade"'),
            ("start-playlist?name=show", 404, "no playlist is named 'show'; there is none yet"),
        ]:
            got, detail = await refusal(server, "studio", action)
            assert (got, words in detail) == (status, True), detail
        assert server.session(peer).controls.strength == 1
        steps = {"steps": [{"preset": "Abend 1", "seconds": 5}]}
        assert (await ask(server, "PUT", "playlists/show", json=steps))[0] == 201
        status, problem = await ask(server, "DELETE", "presets/Abend%201")
        assert (status, "needs this preset" in problem["detail"]) == (409, True)
        assert (await ask(server, "DELETE", "playlists/show"))[0] == 200
        status, book = await ask(server, "DELETE", "presets/Abend%201")
        assert (status, [each["name"] for each in book["presets"]]) == (200, ["wrong"])
        for method, what, values, wanted in [
            ("PUT", "presets/a", {"bypass": True}, 422),
            ("PUT", "presets/a%2Fb", {"seed": 1}, 422),
            ("PUT", "playlists/p", {"steps": [{"preset": "noon", "seconds": 5}]}, 422),
            ("DELETE", "presets/noon", None, 404),
            ("DELETE", "playlists/noon", None, 404),
        ]:
            assert (await ask(server, method, what, json=values))[0] == wanted, what


@pytest.mark.parametrize(
    ("config", "token", "wanted"),
    [
        ({}, "", 201),
        ({"names": ("example.org",)}, "", 403),
        ({"names": ("example.org",), "token": "s3cret-of-the-operator"}, "", 401),
        ({"token": "s3cret-of-the-operator"}, "s3cret-of-the-operator", 201),
        ({"tokens": SHARED}, "s3cret-of-anna-alone", 403),
        (
            {"tokens": SHARED, "token": "s3cret-of-the-operator"},
            "s3cret-of-the-operator",
            201,
        ),
    ],
)
async def test_who_may_save_is_who_may_change_what_all_see(
    path: Path, config: dict[str, Any], token: str, wanted: int
) -> None:
    """Where strangers get in, or several share the server, only the operator saves."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with serving(ColourEngine, ServerConfig(presets=path, **config)) as server:
        status, book = await ask(server, "GET", "presets", headers=headers)
        if status == 200:
            assert book["may_save"] is (wanted == 201)
            assert bool(book["refusal"]) is (wanted == 403)
        for what in ("presets/a", "playlists/a"):
            status, _ = await ask(server, "DELETE", what, headers=headers)
            assert status == (404 if wanted == 201 else wanted)
        status, _ = await ask(server, "PUT", "presets/a", json={"seed": 1}, headers=headers)
        assert status == wanted
    assert path.exists() is (wanted == 201)


async def test_server_without_a_file_keeps_none() -> None:
    async with serving(ColourEngine, FAST) as server:
        status, problem = await ask(server, "PUT", "presets/a", json={"seed": 1})
        assert (status, problem["detail"]) == (403, "this server keeps no presets")
