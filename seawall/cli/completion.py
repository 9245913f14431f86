"""`seawall completion`: what a shell needs to complete the command's words."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from seawall.exits import Exit

__all__ = ["complete_service", "completion"]

#: Where click looks for a shell's question.
VARIABLE = "_SEAWALL_COMPLETE"


@click.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script that makes SHELL complete commands, options and services.

    In ~/.bashrc: eval "$(seawall completion bash)"; in ~/.zshrc: eval "$(seawall completion zsh)"; for fish:
    seawall completion fish > ~/.config/fish/completions/seawall.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(click.Group(), {}, "seawall", VARIABLE).source())
    return Exit.OK


def complete_service(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys of services: of the modules that the line names, of seawall.toml, and of the broker if it answers soon.

    Says nothing when something is wrong: nobody wants an error in the middle of a word.
    """
    from seawall.boot import boot
    from seawall.fleet import read_fleet
    from seawall.runtime import registry

    known: set[str] = set()
    try:
        given = {name: ctx.params.get(name) for name in ("broker_url", "namespace")}
        _, runtime = boot(given, ctx.params.get("modules") or (), process="completion", for_people=True)
        known = {service.key for service in registry.all()}
        known |= {line.key for line in read_fleet(runtime, registry).services}
    except Exception:
        return [CompletionItem(key) for key in sorted(known) if key.startswith(incomplete)]
    return [CompletionItem(key) for key in sorted(known) if key.startswith(incomplete)]
