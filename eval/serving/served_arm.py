# SPDX-License-Identifier: Apache-2.0
"""One arm of a configuration, served: by run, latency and stress alike."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from eval.config.schema import Arm, Config
from eval.serving.command import server_command
from eval.serving.server import Server, choose_port


class ServedArm:
    """The server of one arm, and where it and the harness write."""

    def __init__(
        self,
        config: Config,
        arm: Arm,
        executable: str,
        folder: Path,
        taken: Collection[int] = (),
        tells: bool = True,
    ) -> None:
        """Prepare, without starting anything.

        Args:
            config: Whose arm it is.
            arm: Of these.
            executable: The ``vllm`` that serves.
            folder: Is there, for its log and its events.
            taken: Ports of the other servers that run at the same time.
            tells: False: its plugin writes no events, as nothing but the model is to be timed.

        Raises:
            ServerError: The configured port is taken.
        """
        self.arm = arm
        self.folder = folder
        self.events = (folder / "events").absolute()
        self.port = choose_port(config.serve.port, taken)
        events = self.events if tells else None
        self.command = server_command(config, arm, executable, self.port, events)
        environment = {**config.serve.environment, **arm.environment}
        self.server = Server(self.command, environment, folder / "server.log", self.port)
        self.ready_after = 0.0
        """Seconds from the start of the process until it was found healthy."""

    @property
    def label(self) -> str:
        """What the person calls it."""
        return f"arm {self.arm.name}"


@contextmanager
def serve(
    config: Config,
    arms: Sequence[tuple[Arm, Path]],
    executable: str,
    console: Console,
    tells: bool = True,
) -> Iterator[list[ServedArm]]:
    """Start the servers of some arms together; all are healthy inside, and none is left after it.

    Args:
        config: Whose arms they are.
        arms: With the folder of each.
        executable: The ``vllm`` that serves.
        console: For what goes on.
        tells: Whether their plugins write events.

    Raises:
        ServerError: One did not start; says what failed first.
    """
    with ExitStack() as running:
        served: list[ServedArm] = []
        for arm, folder in arms:
            taken = [one.port for one in served]
            served.append(ServedArm(config, arm, executable, folder, taken, tells))
        for one in served:
            running.enter_context(one.server)
        timeout = config.serve.start_timeout
        for one in served:
            one.ready_after = one.server.wait_until_healthy(timeout, console, one.label)
        yield served
