"""Flags as Go programs take them."""

from __future__ import annotations

import click


class ValuedFlags(click.Command):
    """A command whose flags can be given as --flag=true and --flag=false too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse *args* as Docker Compose does: a flag may have a value, as in --flag=false."""
        flags = {n: p for p in self.params if isinstance(p, click.Option) and p.is_flag for n in p.opts}
        valued = {n for p in self.params if isinstance(p, click.Option) and not p.is_flag for n in p.opts}
        out: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            name, sep, value = word.partition("=")
            if word == "--" or not (word.startswith("-") or ctx.allow_interspersed_args):
                return super().parse_args(ctx, [*out, word, *rest])  # the rest is somebody else's
            if sep and name in flags and value.lower() in ("true", "1", "false", "0"):
                option = flags[name]
                no = option.secondary_opts[:1]
                out += [name] if value.lower() in ("true", "1") else no
                continue
            out.append(word)
            if word in valued and rest:
                out.append(rest.pop(0))
        return super().parse_args(ctx, out)
