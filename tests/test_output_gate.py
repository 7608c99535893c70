"""What of a kernel's messages goes on to a client: bounds per request, types, forged parents."""

from __future__ import annotations

import pytest

from jupyter_sandbox.policy.displays import ToClean, bundles_of
from jupyter_sandbox.sandbox.kernel_messages import KernelMessage
from jupyter_sandbox.sandbox.output_gate import OutputGate

LIMIT = 4096
NOTICE = "... output truncated (exceeded 4,096 bytes) ..."


def message(msg_type: str, content: dict, parent: str = "mine", size: int = 100, **more):
    header = {"msg_id": "k1", "msg_type": msg_type, "evil": "x", "session": "s" * 1000, "date": 7}
    return KernelMessage(
        msg_type,
        parent,
        "execute_request",
        content,
        {"m": 1},
        size,
        header,
        {"msg_id": parent},
        **more,
    )


@pytest.fixture
def gate():
    gate = OutputGate(LIMIT)
    gate.note_request("mine")
    return gate


def texts(admitted) -> str:
    return "".join(each["content"]["text"] for each in admitted)


def test_text_of_a_request_is_cut_at_the_limit_with_one_notice_on_stderr(gate):
    sent = []
    for _ in range(10):
        sent += gate.admit("iopub", message("stream", {"name": "stdout", "text": "é" * 500}))
    assert texts(sent[:-1]) == "é" * (LIMIT // 2)
    assert sent[-1]["content"] == {"name": "stderr", "text": f"\n{NOTICE}\n"}
    assert sent[-1]["header"]["msg_type"] == "stream"
    assert gate.admit("iopub", message("stream", {"name": "stdout", "text": "x"})) == []
    # the next request has its own bound, and an end always passes
    gate.note_request("next")
    assert texts(gate.admit("iopub", message("stream", {"text": "x"}, "next"))) == "x"
    [idle] = gate.admit("iopub", message("status", {"execution_state": "idle"}))
    assert idle["content"] == {"execution_state": "idle"}


def test_one_message_of_twenty_megabytes_is_its_beginning_and_the_notice(gate):
    sent = gate.admit("iopub", message("stream", {"text": "x" * 20_000_000}, size=20_000_000))
    assert texts(sent) == "x" * LIMIT + f"\n{NOTICE}\n"


def test_displays_have_a_larger_bound_of_their_own_and_their_text_the_same(gate):
    bundle = {"data": {"text/plain": "x"}, "metadata": {}}
    sizes = [
        len(gate.admit("iopub", message("display_data", bundle, size=LIMIT))) for _ in range(10)
    ]
    assert sizes == [1] * 8 + [1, 0]  # the ninth is the notice
    gate.note_request("mine")
    long = {"data": {"text/plain": "y" * 5000}, "metadata": {}, "execution_count": 1}
    shown, told = gate.admit("iopub", message("execute_result", long, size=5000))
    assert shown["content"]["data"]["text/plain"] == "y" * LIMIT
    assert told["content"]["text"] == f"\n{NOTICE}\n"


def test_html_counts_as_text_because_cleaning_it_takes_time(gate):
    bundle = {"data": {"text/html": "<b>x</b>" * 300}, "metadata": {}}
    sent = [gate.admit("iopub", message("display_data", bundle)) for _ in range(4)]
    assert [len(each) for each in sent] == [1, 1, 0, 0]
    assert sent[1][0]["content"]["text"] == f"\n{NOTICE}\n"


def test_parents_that_the_client_never_sent_share_one_bound_that_refills():
    now = 0.0
    gate = OutputGate(LIMIT, clock=lambda: now)
    now = 100.0
    sent = []
    for number in range(100):
        sent += gate.admit("iopub", message("stream", {"text": "x" * 1000}, f"forged{number}"))
    assert len(texts(sent)) < LIMIT + 200
    now = 200.0
    assert texts(gate.admit("iopub", message("stream", {"text": "x"}, "forged"))) == "x"


def test_requests_that_are_remembered_are_bounded(gate):
    for number in range(5000):
        gate.note_request(str(number))
    assert repr(gate) == "<OutputGate 1000 requests>"


@pytest.mark.parametrize(
    ("channel", "msg_type"),
    [
        ("iopub", "comm_open"),
        ("iopub", "comm_msg"),
        ("iopub", "debug_event"),
        ("iopub", "unheard_of"),
        ("shell", "unheard_of"),
        ("shell", "display_data"),
        ("control", "debug_reply"),
        ("stdin", "stream"),
    ],
)
def test_types_that_could_reach_code_in_the_page_do_not_pass(gate, channel, msg_type):
    assert gate.admit(channel, message(msg_type, {"data": {}})) == []
    trusting = OutputGate(LIMIT, trusted=True)
    trusting.note_request("mine")
    [passed] = trusting.admit(channel, message(msg_type, {"data": {}}, buffers=(b"1",)))
    assert (passed["content"], passed["buffers"]) == ({"data": {}}, [b"1"])


def test_messages_are_rebuilt_from_what_their_type_has(gate):
    html = "<b>x</b><script>y()</script>"
    content = {
        "data": {"text/html": html},
        "metadata": {"text/html": {"isolated": True}},
        "transient": {"display_id": "d", "evil": 1},
        "evil": 1,
    }
    [shown] = gate.admit("iopub", message("display_data", content))
    assert shown["content"] == {
        "data": {"text/html": ToClean("html", html)},  # it cannot be sent before it is cleaned
        "metadata": {},
        "transient": {"display_id": "d"},
    }
    assert shown["metadata"] == {}
    assert shown["header"] == {"msg_id": "k1", "msg_type": "display_data", "session": "s" * 200}
    [info] = gate.admit(
        "shell",
        message("kernel_info_reply", {"help_links": [{"url": "javascript:x"}], "debugger": True}),
    )
    assert (info["content"]["help_links"], info["content"]["debugger"]) == ([], False)
    gate.note_request("mine")
    [seen] = gate.admit(
        "shell", message("inspect_reply", {"found": True, "data": {"text/html": html}})
    )
    waiting = {"text/html": ToClean("html", html)}
    assert seen["content"]["data"] == waiting
    reply = {
        "status": "ok",
        "payload": [{"source": "page", "data": {"text/html": html}}, {"source": "evil"}, 3],
        "user_expressions": {"a": {"status": "ok", "data": {"text/html": html}}},
    }
    gate.note_request("mine")
    [done] = gate.admit("shell", message("execute_reply", reply))
    assert [each["data"] for each in done["content"]["payload"]] == [waiting]
    assert done["content"]["user_expressions"]["a"]["data"] == waiting
    assert bundles_of(done["content"]) == [waiting, waiting]
    assert bundles_of(seen["content"]) == [waiting]


@pytest.mark.parametrize("content", [{}, {"data": 3, "text": [], "payload": {}, "history": [[1]]}])
def test_nonsense_of_a_right_type_raises_nothing(gate, content):
    for channel, types in (
        (
            "iopub",
            "status stream display_data update_display_data execute_result execute_input "
            "error clear_output",
        ),
        (
            "shell",
            "execute_reply kernel_info_reply complete_reply inspect_reply history_reply "
            "is_complete_reply comm_info_reply shutdown_reply interrupt_reply",
        ),
        ("stdin", "input_request"),
    ):
        for msg_type in types.split():
            gate.note_request("mine")
            for each in gate.admit(channel, message(msg_type, content)):
                assert isinstance(each["content"], dict)


def test_a_reply_that_is_too_long_is_an_error_in_its_place(gate):
    [reply] = gate.admit("shell", message("history_reply", {}, size=5_000_000))
    assert reply["content"]["status"] == "error"


def test_a_request_is_answered_once_and_nothing_else_is(gate):
    reply = message("execute_reply", {"status": "ok"})
    assert [len(gate.admit("shell", reply)) for _ in range(3)] == [1, 0, 0]
    assert gate.admit("shell", message("execute_reply", {}, "forged")) == []
    asked = message("input_request", {"prompt": "> "}, size=1000)
    assert [len(gate.admit("stdin", asked)) for _ in range(6)] == [1, 1, 1, 1, 0, 0]
