"""The interactive session: typed lines in, requests and shown text out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cli.chat import Composer, Conversation, Shell
from runtime.client import Address, Client
from schemas.errors import UsageError
from schemas.render import Output
from tests.support.scripted_server import Reply, ScriptedServer, document, lines

LINE = st.text(st.characters(exclude_characters='"\n\r', codec="utf-8"))


# -- composing ------------------------------------------------------------------------------------


def composed(*typed: str) -> list[str | None]:
    composer = Composer()
    return [composer.feed(line) for line in typed]


@pytest.mark.parametrize(
    ("typed", "messages"),
    [
        (["hello "], ["hello"]),
        (["", "a"], ["", "a"]),
        (['"""one', "  two", 'three"""'], [None, None, "one\n  two\nthree"]),
        (['"""', "one", '"""', "two"], [None, None, "\none\n", "two"]),
        (['"""all in one"""'], ["all in one"]),
        (['""""""'], [""]),
        (['/set system """you', 'are""" '], [None, "/set system you\nare"]),
        (['say """'], ['say """']),
    ],
)
def test_three_quotes_hold_lines_together(typed: list[str], messages: list[str | None]) -> None:
    assert composed(*typed) == messages


@given(st.lists(LINE, min_size=1, max_size=5))
def test_any_lines_between_quotes_come_out_as_they_went_in(typed: list[str]) -> None:
    text = "\n".join(typed)
    fed = f'"""{text}"""'.split("\n")
    assert composed(*fed)[-1] == text


def test_an_abandoned_message_leaves_nothing() -> None:
    composer = Composer()
    composer.feed('"""one')
    assert composer.open
    composer.abandon()
    assert composer.feed("two") == "two"


# -- the conversation -----------------------------------------------------------------------------


def test_a_request_carries_the_turns_so_far() -> None:
    talk = Conversation("m", keep_alive="5m", system="be brief", options={"seed": 1})
    talk.remember("a", "b")
    assert talk.request("c") == {
        "model": "m",
        "options": {"seed": 1},
        "keep_alive": "5m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
        "stream": True,
    }


def test_what_is_not_set_is_not_sent() -> None:
    assert Conversation("m").base() == {"model": "m"}


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("temperature", ["0.2"], 0.2),
        ("num_ctx", ["4096"], 4096),
        ("stop", ["a", "b"], ["a", "b"]),
    ],
)
def test_parameters_have_their_types(name: str, words: list[str], value: object) -> None:
    talk = Conversation("m")
    talk.set_parameter(name, words)
    assert talk.options == {name: value}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("heat", ["1"]),
        ("use_mmap", ["true"]),
        ("temperature", ["hot"]),
        ("top_p", ["7"]),
        ("seed", []),
    ],
)
def test_wrong_parameters_are_told_and_not_kept(name: str, words: list[str]) -> None:
    talk = Conversation("m")
    with pytest.raises(UsageError):
        talk.set_parameter(name, words)
    assert talk.options == {}


# -- the shell ------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as started:
        started.answers["/api/chat"] = lambda body: spoken(
            f"You: {body['messages'][-1]['content']}"
        )
        yield started


def spoken(*pieces: str, **last: Any) -> Reply:
    middle = ({"message": {"role": "assistant", "content": piece}} for piece in pieces)
    return lines(*middle, {"message": {"content": ""}, "done": True, **last})


def session(
    server: ScriptedServer,
    *typed: str | type[BaseException],
    remember: Callable[[bool], None] = lambda _: None,
    verbose: bool = False,
) -> None:
    """A shell that has read these lines, to the end of input."""
    left = list(typed)

    def read(_prompt: str) -> str:
        if not left:
            raise EOFError
        line = left.pop(0)
        if isinstance(line, str):
            return line
        raise line

    client = Client(Address.parse(server.host))
    talk = Conversation("m")
    Shell(client, talk, Output(), read, remember=remember, verbose=verbose).loop()


def test_a_conversation(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    session(server, "one", "", "two", "/bye", "never read")
    assert capsys.readouterr() == ("You: one\n\nYou: two\n\n", "")
    assert [m["content"] for m in server.asked[-1][1]["messages"]] == ["one", "You: one", "two"]
    assert len(server.asked) == 2


def test_an_answer_cannot_drive_the_terminal(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/api/chat"] = lambda _: spoken("\x1b", "[2J\x1b]52;c;", "aGk=\x07\r\nok\x9b")
    session(server, "x", "y")
    assert capsys.readouterr().out == "␛[2J␛]52;c;aGk=␇\nok?\n\n" * 2 + "\n"
    assert server.asked[1][1]["messages"][1]["content"].startswith("\x1b[2J"), (
        "the model's own words"
    )


def test_an_error_ends_the_answer_and_not_the_session(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/api/chat"] = lambda _: document({"error": "server busy"}, 503)
    session(server, "one", "/?")
    out, err = capsys.readouterr()
    assert err == "error[server-busy]: server busy\n"
    assert "/set parameter" in out


def test_an_error_halfway_stands_on_its_own_line(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    half = {"message": {"content": "Well"}}
    server.answers["/api/chat"] = lambda _: lines(half, {"error": "the worker died"})
    session(server, "one")
    assert capsys.readouterr() == ("Well\n\n", "error[serving]: the worker died\n")


def test_clear_forgets(server: ScriptedServer) -> None:
    session(server, "one", "/clear", "two")
    assert [m["content"] for m in server.asked[-1][1]["messages"]] == ["two"]


def test_set(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    remembered: list[bool] = []
    session(
        server,
        '/set system """be', 'brief"""',
        "/set parameter temperature 0",
        "/set nohistory",
        "/set verbose",
        "hi",
        remember=remembered.append,
    )  # fmt: skip
    body = server.asked[-1][1]
    assert body["messages"][0] == {"role": "system", "content": "be\nbrief"}
    assert body["options"] == {"temperature": 0}
    assert remembered == [False]
    assert capsys.readouterr().out.count("\n") == 7


def test_timings(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {
        "total_duration": 1_500_000_000,
        "load_duration": 20_000_000,
        "prompt_eval_count": 26,
        "prompt_eval_duration": 130_000_000,
        "eval_count": 20,
        "eval_duration": 1_000_000_000,
    }
    server.answers["/api/chat"] = lambda _: spoken("hi", **figures)
    session(server, "x", verbose=True)
    assert capsys.readouterr().err.splitlines() == [
        "total duration:       1.5s",
        "load duration:        20ms",
        "prompt eval count:    26 tokens",
        "prompt eval duration: 130ms",
        "prompt eval rate:     200.00 tokens/s",
        "eval count:           20 tokens",
        "eval duration:        1.0s",
        "eval rate:            20.00 tokens/s",
    ]


def test_show(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"template": "{{\x1b}}", "details": {"family": "llama"}, "parameters": "seed 1"}
    server.answers["/api/show"] = lambda _: document(answer)
    session(
        server,
        "/set parameter seed 2",
        "/show template",
        "/show info",
        "/show parameters",
        "/show license",
        "/show me",
    )
    out, err = capsys.readouterr()
    assert "{{␛}}\n" in out
    assert "architecture  llama" in out
    assert "seed 1\nSet in this session:\n  seed  2\n" in out
    assert "The model has no license.\n" in out
    assert err.startswith("error[usage]: cannot show 'me'. ")


@pytest.mark.parametrize("typed", ["/?", "/help", "/set", "/show"])
def test_help_fits_a_terminal(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    session(server, typed)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "Commands:"
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize("typed", ["/nothing", "/set parameter", "/set sytem x", "/show x"])
def test_unknown_commands_are_not_sent_to_the_model(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    session(server, typed)
    assert capsys.readouterr().err.startswith("error[usage]: ")
    assert server.asked == []


def test_a_path_is_no_command(server: ScriptedServer) -> None:
    session(server, "/etc/hosts is a file, is it not?")
    assert server.asked[0][1]["messages"][0]["content"].startswith("/etc/hosts")


def test_ctrl_c_at_the_prompt_abandons_the_line(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    session(server, '"""one', KeyboardInterrupt, "two")
    assert "Use Ctrl-D or /bye to leave." in capsys.readouterr().out
    assert [m["content"] for m in server.asked[-1][1]["messages"]] == ["two"]


# -- models, pictures, thinking -------------------------------------------------------------------


def test_save_makes_a_model_of_the_session(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/api/create"] = lambda _: document({"status": "success"})
    session(
        server, "/set system Be kind.", "/set parameter seed 1", "Hi", "/save mine", "/save a b"
    )
    assert server.asked[-1] == (
        "/api/create",
        {
            "model": "mine",
            "from": "m",
            "system": "Be kind.",
            "parameters": {"seed": 1},
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "You: Hi"},
            ],
            "stream": False,
        },
    )
    out, err = capsys.readouterr()
    assert "Created new model 'mine'.\n" in out
    assert err.startswith("error[usage]: under which name?")


def test_load_goes_on_with_another_model(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(body: Any) -> Reply:
        if body["model"] == "there":
            return document({"done_reason": "load"})
        return document({"error": "model not found"}, 404)

    server.answers["/api/generate"] = load
    session(server, "Hi", "/load nowhere", "Ho", "/load there", "Hu")
    asked = [body for path, body in server.asked if path == "/api/chat"]
    assert [(body["model"], len(body["messages"])) for body in asked] == [
        ("m", 1), ("m", 3), ("there", 1),
    ]  # fmt: skip
    assert capsys.readouterr().err == "error[not-found]: couldn't find model 'nowhere'\n"


def test_format_and_thinking_are_set(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    session(server, "/set format json", "/set think", "a", "/set noformat", "/set nothink", "b")
    first, second = (body for _, body in server.asked)
    assert (first["format"], first["think"]) == ("json", True)
    assert ("format" in second, second["think"]) == (False, False)
    session(server, "/set format xml")
    assert capsys.readouterr().err.startswith("error[usage]: cannot answer in 'xml'")


def test_thinking_is_shown_apart(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    thought = {"message": {"role": "assistant", "content": "", "thinking": "Hm."}}
    said = {"message": {"role": "assistant", "content": "Yes."}}
    server.answers["/api/chat"] = lambda _: lines(thought, thought, said, {"done": True})
    session(server, "x")
    assert capsys.readouterr().out == "Thinking...\nHm.Hm.\n...done thinking.\n\nYes.\n\n\n"


def test_a_picture_is_sent_to_a_model_that_sees(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a picture.PNG"
    path.write_bytes(b"png")
    typed = f"What is {str(path).replace(' ', chr(92) + ' ')} about?"
    server.answers["/api/show"] = lambda _: document({"capabilities": ["completion"]})
    session(server, typed)
    assert "model 'm' does not take images" in capsys.readouterr().err
    server.answers["/api/show"] = lambda _: document({"capabilities": ["vision"]})
    session(server, typed)
    (turn,) = server.asked[-1][1]["messages"]
    assert turn == {"role": "user", "content": "What is  about?", "images": ["cG5n"]}
    assert "Added image" in capsys.readouterr().err


def test_a_path_that_leads_nowhere_is_text(server: ScriptedServer) -> None:
    session(server, "Look at /nowhere/at-all.png, please")
    assert server.asked[0][1]["messages"][0]["content"] == "Look at /nowhere/at-all.png, please"


def test_the_keys_are_told(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    session(server, "/? shortcuts")
    assert "Ctrl-K" in capsys.readouterr().out
