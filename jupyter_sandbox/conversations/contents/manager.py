"""The contents manager of one conversation, as jupyter_server's handlers ask it.

It finds the area of a path and turns nodes into models; files are the areas' business. The rule: a
path becomes names here, each of which must be one that a file may have, and nothing is told to
Jupyter's event bus, where every user of the server listens.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jupyter_server.services.contents.manager import AsyncContentsManager, copy_pat

from ...encoded_json import EncodedJson, encode
from ...errors import Forbidden, InvalidRequest, LimitExceeded, NotFound
from ...fair_turns import in_thread
from ...policy.names import decide_file_name
from ...previews.rendering import Renderer
from .area import Area, Node, Parts
from .chunked import ChunkedFiles
from .documents import Model, decode_file, encode_text, to_model

_IN_A_THREAD_BYTES = 256 * 1024


class SandboxContentsManager(AsyncContentsManager):
    """The files of one conversation.

    Raises our errors; ``HTTPError`` only where jupyter_server's own code does.

    Parameters
    ----------
    conversation_id : str
    owner : str
    created_at : datetime
        Of the conversation: the time of the root folder.
    areas : mapping
        The top-level folders by name, in the order of a listing.
    chunked : ChunkedFiles
        Of this process.
    naming : asyncio.Lock
        Of the conversation: held while a free name is found and taken.
    limit_bytes : int
        Of a file whose contents are given as a model.
    trust_outputs : bool
        Whether outputs that are stored in notebooks are given as they are.
    renderer : Renderer
        Reads and writes notebooks.
    """

    def __init__(
        self,
        conversation_id: str,
        owner: str,
        created_at: datetime,
        areas: Mapping[str, Area],
        *,
        chunked: ChunkedFiles,
        naming: asyncio.Lock,
        limit_bytes: int,
        trust_outputs: bool,
        renderer: Renderer,
        log: logging.Logger,
    ) -> None:
        # No parent: settings that an administrator made for the server's own files are not for
        # these. Hidden files are shown: JupyterLab leaves them out unless its user wants them.
        super().__init__(log=log, allow_hidden=True)
        self._conversation_id = conversation_id
        self._owner = owner
        self._created_at = created_at
        self._areas = areas
        self._chunked = chunked
        self._naming = naming
        self._limit_bytes = limit_bytes
        self._trust_outputs = trust_outputs
        self._renderer = renderer

    def __repr__(self) -> str:
        return f"<SandboxContentsManager {self._conversation_id}>"

    # What there is

    async def file_exists(self, path: str = "") -> bool:
        """Say whether a path is a file."""
        node = await self.look(path)
        return node is not None and not node.is_folder

    async def dir_exists(self, path: str = "") -> bool:
        """Say whether a path is a folder."""
        node = await self.look(path)
        return node is not None and node.is_folder

    async def is_hidden(self, path: str) -> bool:
        """Say no: see ``allow_hidden``."""
        return False

    async def look(self, path: str) -> Node | None:
        """Give what a path is; None if there is nothing, or no file could have that name."""
        names = _names(path)
        if not names:
            return Node("", True, False, self._created_at, self._created_at)
        area = self._areas.get(names[0])
        if area is None or not all(decide_file_name(name) for name in names):
            return None
        return await area.look(names[1:])

    async def get(
        self,
        path: str,
        content: bool = True,
        type: str | None = None,
        format: str | None = None,
        require_hash: bool = False,
    ) -> Model:
        """Give the model of a file or a folder."""
        node = await self.look(path)
        if node is None:
            raise NotFound("There is no such file or folder.")
        if node.is_folder:
            if type not in (None, "directory"):
                raise InvalidRequest(f"{node.path} is a folder, not a {type}.", status=400)
            return await self._folder_model(node) if content else to_model(node)
        if type == "directory":
            raise InvalidRequest(f"{node.path} is not a folder.", status=400)
        model = to_model(node, type)
        if content or (require_hash and node.sha256 is None):
            await self._fill(model, content, format)
        if require_hash and node.sha256 is not None and model["hash"] is None:
            model.update(hash=node.sha256, hash_algorithm="sha256")
        return model

    # Changes

    async def save(self, model: Model, path: str = "") -> Model:
        """Save a file, a chunk of one, or make a folder; give its model without content."""
        area, parts = self._place(path)
        kind, message = model.get("type"), None
        if model.get("chunk") is not None:
            return await self._save_chunk(area, parts, model)
        if kind == "directory":
            await area.make_folder(parts)
        else:
            size = len(content) if isinstance(content := model.get("content"), str) else 0
            if size > 2 * self._limit_bytes:
                raise LimitExceeded(
                    f"The file is larger than {self._limit_bytes:,} bytes.", status=413
                )
            data, message = await self._encode(model)
            await _write(area, parts, data)
        saved = await self.get(path, content=False)
        if message:
            saved["message"] = message
        return saved

    async def delete(self, path: str) -> None:
        """Delete a file or a folder."""
        await self.delete_file(path)

    async def delete_file(self, path: str) -> None:
        """Delete a file or a folder."""
        area, parts = self._place(path, missing=True)
        await area.remove(parts)

    async def rename(self, old_path: str, new_path: str) -> None:
        """Give another name, in the same area."""
        await self.rename_file(old_path, new_path)

    async def rename_file(self, old_path: str, new_path: str) -> None:
        """Give another name, in the same area."""
        area, parts = self._place(old_path, missing=True)
        to_area, to_parts = self._place(new_path)
        if area is not to_area:
            raise InvalidRequest(
                f"Files cannot be moved from {area.name} to {to_area.name}; copy them.", status=400
            )
        async with self._naming:
            await area.rename(parts, to_parts)

    async def new_untitled(self, path: str = "", type: str = "", ext: str = "") -> Model:
        """Make a file or a folder under a name that is free."""
        async with self._naming:
            model: Model = await super().new_untitled(path, type, ext)  # type: ignore[no-untyped-call]
        return model

    async def copy(self, from_path: str, to_path: str | None = None) -> Model:
        """Copy a file byte for byte; into a folder under a name that is free there."""
        source, parts = self._place(from_path, missing=True)
        folder = "/".join(_names(from_path)[:-1]) if to_path is None else to_path.strip("/")
        async with self._naming:
            if await self.dir_exists(folder):
                name = copy_pat.sub(".", _names(from_path)[-1])
                free = await self.increment_filename(name, folder, "-Copy")  # type: ignore[no-untyped-call]
                folder = f"{folder}/{free}"
            area, to_parts = self._place(folder)
            async with source.reading(parts) as (_, reader):
                incoming = await area.begin(to_parts)
                try:
                    async for piece in reader.pieces():
                        await incoming.write(piece)
                    await incoming.keep()
                finally:
                    await incoming.close()
        return await self.get(folder, content=False)

    def emit(self, data: Any) -> None:
        """Tell nobody: every user of the server may listen to its events."""

    # Checkpoints: none are kept. A shared file has versions, an upload is what was saved last; but
    # JupyterLab asks for one after each save and takes a refusal for a failed save.

    async def create_checkpoint(self, path: str) -> Model:
        """Answer as if; ``list_checkpoints`` tells the truth."""
        node = await self._file(path)
        return {"id": "none", "last_modified": node.modified_at}

    async def list_checkpoints(self, path: str) -> list[Model]:
        """Give none."""
        await self._file(path)
        return []

    async def restore_checkpoint(self, checkpoint_id: str, path: str) -> None:
        """Refuse: there is none."""
        raise NotFound("No checkpoints are kept of files in a sandbox.")

    async def delete_checkpoint(self, checkpoint_id: str, path: str) -> None:
        """Refuse: there is none."""
        raise NotFound("No checkpoints are kept of files in a sandbox.")

    # Parts of the above

    async def _folder_model(self, node: Node) -> Model:
        names = _names(node.path)
        if names:
            nodes = await self._areas[names[0]].entries(names[1:])
        else:
            found = [await area.look(()) for area in self._areas.values()]
            nodes = [entry for entry in found if entry is not None]
        return {**to_model(node), "content": [to_model(entry) for entry in nodes], "format": "json"}

    async def _fill(self, model: Model, content: bool, wanted: str | None) -> None:
        """Read a file into its model."""
        area, parts = self._place(model["path"])
        async with area.reading(parts) as (node, reader):
            if (node.size_bytes or 0) > self._limit_bytes:
                raise LimitExceeded(
                    f"The file has {node.size_bytes:,} bytes; up to {self._limit_bytes:,} can be "
                    "opened here. Download it instead.",
                    status=413,
                )
            data = b"".join([piece async for piece in reader.pieces()])
        model.update(size=len(data), last_modified=node.modified_at, writable=node.is_writable)
        model.update(hash=hashlib.sha256(data).hexdigest(), hash_algorithm="sha256")
        if not content:
            return
        if model["type"] == "notebook":
            await self._fill_notebook(model, data)
            return
        text, known = await _in_a_thread(data, decode_file, data, wanted)
        default = "text/plain" if known == "text" else "application/octet-stream"
        model.update(content=text, format=known, mimetype=node.media_type or default)

    async def _fill_notebook(self, model: Model, data: bytes) -> None:
        name = "trusted" if self._trust_outputs else ""
        read = await self._renderer.read("notebook", name, data)
        if read is None:
            raise LimitExceeded(
                "This notebook takes too long to be read here. Download it instead.", status=413
            )
        message, _, content = read.partition(b"\n")
        model.update(content=EncodedJson(content.decode("ascii")), format="json")
        if message := json.loads(message):
            model["message"] = message

    async def _encode(self, model: Model) -> tuple[bytes, str | None]:
        """Give the bytes of a model that is saved, and what is wrong with a notebook.

        Raises
        ------
        InvalidRequest
            400: the content does not fit type or format.
        LimitExceeded
            413: the notebook takes too long to be written.
        """
        kind, content = model.get("type"), model.get("content")
        if kind == "notebook":
            given = await in_thread(encode, content)
            written = await self._renderer.read("save", "", given.encode("ascii"))
            if written is None:
                raise LimitExceeded("This notebook takes too long to be saved.", status=413)
            message, _, data = written.partition(b"\n")
            return data, json.loads(message)
        if kind != "file":
            raise InvalidRequest("type: must be file, notebook or directory.", status=400)
        if not isinstance(content, str):
            raise InvalidRequest("content: must be a string.", status=400)
        return await in_thread(encode_text, content, model.get("format")), None

    async def _save_chunk(self, area: Area, parts: Parts, model: Model) -> Model:
        content = model.get("content")
        if model.get("type") != "file" or not isinstance(content, str):
            raise InvalidRequest("A chunk must be of a file, with a content.", status=400)
        data = await in_thread(encode_text, content, model.get("format"))
        path = area.path(parts)
        size = await self._chunked.take(
            (self._conversation_id, path),
            model["chunk"],
            data,
            lambda: area.begin(parts),
            self._owner,
        )
        if size is None:
            return await self.get(path, content=False)
        now = datetime.now(UTC)
        return to_model(Node(path, False, True, now, now, size), "file")

    async def _file(self, path: str) -> Node:
        node = await self.look(path)
        if node is None or node.is_folder:
            raise NotFound("There is no such file.")
        return node

    def _place(self, path: str, missing: bool = False) -> tuple[Area, Parts]:
        """Give the area of a path, and the path in it.

        Parameters
        ----------
        missing : bool
            What cannot be is missing (404); else it is a place for a file that cannot be.
        """
        names = _names(path)
        area = self._areas.get(names[0]) if names else None
        if area is None:
            if missing and names:
                raise NotFound("There is no such file or folder.")
            places = " or ".join(self._areas)
            raise Forbidden(f"There can be nothing else here: use one of the folders {places}.")
        for name in names:
            decision = decide_file_name(name)
            if not decision:
                if missing:
                    raise NotFound("There is no such file or folder.")
                raise InvalidRequest(f"This name cannot be: {decision.reason}.", status=400)
        return area, names[1:]


async def _write(area: Area, parts: Parts, data: bytes) -> None:
    incoming = await area.begin(parts)
    try:
        await incoming.write(data)
        await incoming.keep()
    finally:
        await incoming.close()


async def _in_a_thread(data: bytes, decode: Any, *arguments: Any) -> Any:
    if len(data) < _IN_A_THREAD_BYTES:
        return decode(*arguments)
    return await in_thread(decode, *arguments)


def _names(path: str) -> Parts:
    """Give the names of a path; slashes at its ends mean nothing."""
    path = path.strip("/")
    return tuple(path.split("/")) if path else ()
