"""What can be brought in, as tables for people."""

from collections.abc import Mapping

__all__ = ["support_table"]


def support_table(what: str, meaning: str, said: Mapping[str, str]) -> str:
    """Names and what is said of each, as Markdown; those of which the same is said share a row."""
    names: dict[str, list[str]] = {}
    for name, text in said.items():
        names.setdefault(text, []).append(f"`{name}`")
    rows = [f"| {', '.join(alike)} | {text} |" for text, alike in names.items()]
    return "\n".join([f"| {what} | {meaning} |", "| --- | --- |", *rows])
