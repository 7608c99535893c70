"""What parses bytes that others have written, where it is, and in which process it runs.

``tests/test_parsers.py`` holds this list to the sources, and the page docs/isolation-attacks.md to
this list. The rule: in the server's process hostile bytes are parsed in linear time and within a
bound, and each such parser is a target of ``tests/fuzzing.py``; whatever cannot promise that runs
in a process that may be killed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOTS = (ROOT, ROOT / "kernels" / "guest", ROOT / "kernels" / "sandbox-python")
PACKAGES = ("jupyter_sandbox", "sandbox_guest", "sandbox_python")

SERVER = "server"

# Calls that make a structure of bytes or text; for regular expressions see tests/linear_time.py.
_PARSERS = re.compile(
    r"""(?:.*\.)?(?:
        json\.loads? | yaml\.(?:compose|safe_load|load) | ast\.literal_eval | tomllib\.\w+
        | nbformat\.(?:reads?|writes|from_dict|validate) | nh3\.\w+ | MarkdownIt | highlight
        | find_lexer_class_for_filename | Draft\w+Validator | difflib\.\w+
        | base64\.\w+decode\w* | urlsplit | urlparse | parse_qsl? | ip_address | ip_network
        | \w*\.fromisoformat | strptime | PushMultipartParser | parse_options_header
        | unicodedata\.normalize | ssl\.PEM_\w+ | x509\.\w+ | int\.from_bytes
        | struct\.\w*unpack\w* | \w+\.unpack(?:_from)? | \w+\.deserialize | deserialize_\w+
        | (?:zlib|gzip|bz2|lzma)\.\w*(?:decompress|open)\w* | zipfile\.\w+ | tarfile\.\w+ | email\.\w+ | mimetypes\.\w+
        | csv\.\w+ | configparser\.\w+ | shlex\.split | pickle\.\w+ | ElementTree\.\w+ | HTMLParser
        | re\.\w+
    )""",
    re.VERBOSE,
)
_NO_PARSERS = frozenset(("re.escape", "re.Pattern"))


@dataclass(frozen=True)
class Parser:
    """Some modules that parse one kind of bytes.

    Attributes
    ----------
    of : str
        Who writes the bytes: "sandbox", "client" (any user's), "host" (administrators, this
        server's own files, its engines), several of them with a comma.
    process : str
        Where it runs; ``SERVER`` is the process of all users.
    bound : str
        What limits the bytes, or their cost.
    targets : tuple of str
        In ``tests/fuzzing.py``.
    """

    what: str
    modules: tuple[str, ...]
    of: str
    process: str
    bound: str
    targets: tuple[str, ...] = ()


PARSERS = (
    Parser(
        "frames of the guest's streams, and their JSON",
        ("sandbox.link", "policy.json_bounds", "sandbox_guest.frames"),
        "sandbox",
        SERVER,
        "4 MiB; 50,000 values, 32 levels",
        ("frames", "structure"),
    ),
    Parser(
        "answers of the file service, reports of commands",
        ("sandbox.answers", "sandbox.file_models", "tools.view_lines"),
        "sandbox",
        SERVER,
        "those of a frame; each member its own",
        ("answers",),
    ),
    Parser(
        "the transport of a kernel's sockets (ZMTP)",
        ("sandbox.zmtp",),
        "sandbox",
        SERVER,
        "frame, message and parts",
        ("zmtp",),
    ),
    Parser(
        "messages of a Python kernel",
        ("sandbox.kernel_messages", "sandbox.kernel_channels", "sandbox.dispatcher"),
        "sandbox",
        SERVER,
        "16 MiB; 200,000 values, 100 levels",
        ("kernel_message",),
    ),
    Parser(
        "records of a Python kernel's cells",
        ("sandbox.cell_reader", "sandbox.cell_result"),
        "sandbox",
        SERVER,
        "200,000 values, 100 levels",
        ("cell_records", "kernel_message"),
    ),
    Parser(
        "control sequences in output",
        ("tools.ansi",),
        "sandbox",
        SERVER,
        "the output limit of a call",
        ("output",),
    ),
    Parser(
        "types of files and sizes of pictures",
        ("policy.media", "policy.image_size"),
        "sandbox, client",
        SERVER,
        "8 KiB; 1,000 segments",
        ("pictures",),
    ),
    Parser(
        "HTML and Markdown that a kernel displays",
        ("policy.displays",),
        "sandbox",
        "preview worker",
        "64 KiB of HTML, 32 KiB of Markdown, 5,000 tags; 3 s of processor time, 1 GiB",
        ("displays",),
    ),
    Parser(
        "notebooks that are opened and saved",
        ("previews.notebooks",),
        "sandbox, client",
        "preview worker",
        "4 MiB of HTML; 3 s of processor time, 1 GiB",
        ("documents",),
    ),
    Parser(
        "files as text and base64",
        ("conversations.contents.documents", "conversations.contents.manager"),
        "sandbox, client",
        SERVER,
        "the upload limit; in a thread",
        ("contents",),
    ),
    Parser(
        "results in an exported notebook",
        ("tools.notebook_cells", "tools.notebooks"),
        "sandbox, client",
        SERVER,
        "the journal's; in a thread",
        ("results",),
    ),
    Parser(
        "bodies of requests, arguments of tools",
        (
            *("routes.base", "routes.messages", "routes.conversations", "tools.arguments"),
            *("tools.registry", "routes.mcp.messages", "routes.mcp.handler"),
        ),
        "client",
        SERVER,
        "16 MiB; 200,000 values, 100 levels",
        ("tool_calls",),
    ),
    Parser(
        "messages of a client's websocket",
        ("routes.websocket_messages",),
        "client",
        SERVER,
        "10 MiB; 200,000 values, 100 levels; parts that do not overlap",
        ("websocket",),
    ),
    Parser(
        "headers of requests",
        ("routes.ranges", "routes.receiving", "routes.preview_headers", "routes.leased"),
        "client",
        SERVER,
        "64 KiB",
        ("headers",),
    ),
    Parser("forms", ("routes.uploads",), "client", SERVER, "4 KiB of headers a part", ("form",)),
    Parser(
        "names of files",
        ("routes.disposition",),
        "sandbox, client",
        SERVER,
        "255 bytes",
        ("names",),
    ),
    Parser(
        "texts without colours",
        ("previews.file_previews", "previews.pages"),
        "sandbox, client",
        SERVER,
        "1 MB; in a thread",
        ("texts",),
    ),
    Parser(
        "the beginning of an HTML file",
        ("previews.clipboard_guard",),
        "sandbox, client",
        SERVER,
        "4 KiB",
        ("html_heads",),
    ),
    Parser(
        "what is shown in the log",
        ("policy.log_text",),
        "sandbox, client",
        SERVER,
        "the line's own",
        ("log_lines",),
    ),
    Parser(
        "texts in colours, Markdown and HTML files",
        ("previews.worker", "previews.highlighting", "previews.markdown", "previews.sanitizing"),
        "sandbox, client",
        "preview worker",
        "3 s of processor time, 1 GiB",
    ),
    Parser(
        "PDF files (pdf.js)",
        ("previews.pdf_viewer",),
        "sandbox, client",
        "the browser's frame, without an origin",
        "200 MB",
    ),
    Parser(
        "requests and TLS greetings for the egress proxy",
        (
            *("proxies.forward.head", "proxies.forward.client_hello", "proxies.forward.upstream"),
            *("policy.egress_names", "policy.egress_addresses"),
        ),
        "sandbox",
        "egress proxy",
        "16 KiB",
    ),
    Parser(
        "files, commands and output inside",
        (
            *("sandbox_guest.files.nearest", "sandbox_guest.files.paths"),
            *("sandbox_guest.files.search", "sandbox_guest.files.text"),
            *("sandbox_guest.bash.exported", "sandbox_guest.output", "cli.probe_inside"),
        ),
        "sandbox",
        "sandbox",
        "the sandbox's own",
    ),
    Parser(
        "the policy",
        ("policy.access_text", "conversations.access_file", "routes.policy"),
        "host",
        SERVER,
        "1 MiB",
        ("policy_text",),
    ),
    Parser(
        "settings, certificates, the host's own configuration",
        (
            *("policy.certificates", "policy.egress_lists", "proxies.client_hosts"),
            *("engines.bubblewrap_program", "engines.seccomp_bpf", "engines.docker"),
            *("routes.openapi.handler", "settings.problems", "directories"),
        ),
        "host",
        SERVER,
        "",
    ),
    Parser(
        "rows, records and keys that the server has written",
        (
            *("stores.database", "stores.message_records", "stores.master_keys", "stores.blobs"),
            *("stores.audit_log", "events.emitting", "conversations.journal", "engines.records"),
            *("engines.bubblewrap_launch", "sandbox.homes", "proxies.forward.control"),
            *("proxies.forward.kept_bytes", "previews.rendering", "encoded_json"),
            *("stores.call_records", "stores.plain_rows", "stores.vault_opening"),
        ),
        "host",
        SERVER,
        "",
    ),
    Parser(
        "answers of a server, files of the user's",
        (
            *("cli.audit", "cli.doctor", "cli.mcp", "cli.probe", "cli.replay", "cli.replay_cells"),
            *("cli.running_server", "cli.sandboxes", "cli.server_settings", "cli.site_mirrors"),
            *("client.exchange", "client.results", "demo.assistant"),
        ),
        "host",
        "command line, clients",
        "",
    ),
)


def parsing_modules() -> dict[str, list[str]]:
    """Give the modules of the product that call a parser, and what they call."""
    found: dict[str, list[str]] = {}
    for name, path in _sources():
        calls = {
            text
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and _PARSERS.fullmatch(text := ast.unparse(node.func))
            and text not in _NO_PARSERS
        }
        if calls:
            found[name] = sorted(calls)
    return found


def all_modules() -> set[str]:
    """Give the modules of the product, by the names that the list has."""
    return {name for name, _ in _sources()}


def _sources() -> Iterator[tuple[str, Path]]:
    for root, package in zip(ROOTS, PACKAGES, strict=True):
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            yield name.removeprefix("jupyter_sandbox.").removesuffix(".__init__"), path


def table() -> str:
    """Give the list as the page has it."""
    lines = ["| what | who writes it | process | bound | modules |", "|---|---|---|---|---|"]
    for each in PARSERS:
        modules = ", ".join(f"`{module}`" for module in each.modules)
        lines.append(f"| {each.what} | {each.of} | {each.process} | {each.bound} | {modules} |")
    return "\n".join(lines) + "\n"
