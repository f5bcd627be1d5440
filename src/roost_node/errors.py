"""What ends a node: one sentence and an exit code, never a traceback."""

from __future__ import annotations

from roost_node.vocab import EXIT_BAD_INPUT, EXIT_PAYLOAD_FAILED


class NodeError(Exception):
    """The node cannot go on; the message is one sentence that says what is wrong and what to do."""

    exit_code = EXIT_PAYLOAD_FAILED


class BadInput(NodeError):
    """Wrong arguments, configuration or credentials: nothing was started."""

    exit_code = EXIT_BAD_INPUT
