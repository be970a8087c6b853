"""A ``.proto`` text compiled to its descriptor, by protoc in a process of its own: it is C++, the text is anybody's."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

#: How long protoc may take; it takes milliseconds, on a machine that has time for it.
SECONDS = 60.0


class Unsound(ValueError):
    """The text is no definition that a schema can have; says why."""


def compiled(definition: str) -> FileDescriptorProto:
    """The descriptor of ``definition``, which imports nothing, as in Pub/Sub.

    Raises:
        Unsound: it is no such definition.
        subprocess.TimeoutExpired: the machine has no time, which is not the definition's fault.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "schema.proto").write_text(definition, encoding="utf-8")
        arguments = [f"-I{folder}", "-ocompiled", "schema.proto"]
        done = subprocess.run(  # noqa: S603 (our own arguments, no shell)
            [sys.executable, "-m", "grpc_tools.protoc", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
        if done.returncode:
            # Beside the faults there are words of its own logging, and each fault begins with where the file was.
            faults = [line.partition("schema.proto:")[2] for line in done.stderr.splitlines() if folder in line]
            raise Unsound("; ".join(faults)[:1000] or done.stderr.strip()[-1000:])
        file: FileDescriptorProto = FileDescriptorSet.FromString(Path(folder, "compiled").read_bytes()).file[0]
    if file.dependency:
        raise Unsound(f"it imports {', '.join(file.dependency)}; imports are refused.")
    if len(file.message_type) != 1:
        raise Unsound(f"it has {len(file.message_type)} top-level messages; it must have one.")
    return file
