"""Built-in template answers: short ways of not knowing that read on after a prompt of either kind.

The held-out ones are never drawn by an objective, so that an evaluation can ask whether a model learned not to answer
or learned these sentences.
"""

from __future__ import annotations

REFUSALS: tuple[str, ...] = (
    "something I do not know.",
    "not known to me.",
    "unknown to me.",
    "something I have no information about.",
    "nothing I can tell you about.",
    "something I cannot answer.",
    "something I have never heard of.",
    "not something I know.",
    "a question I cannot answer.",
    "not in what I have learned.",
    "something I am not sure about.",
    "a thing I know nothing about.",
    "I do not know.",
    "I am not sure.",
    "I have no idea.",
    "I cannot say.",
    "I cannot help with that.",
    "I have no information about that.",
    "I am afraid I do not know.",
    "I would have to guess.",
    "I know nothing about this.",
    "I have not learned that.",
    "Sorry, I cannot answer this.",
    "Sorry, that is unknown to me.",
)
"""Drawn by objectives."""

HELDOUT_REFUSALS: tuple[str, ...] = (
    "beyond what I know.",
    "something I could not tell.",
    "a matter I am not familiar with.",
    "I could not tell you.",
    "I lack that knowledge.",
    "I must admit that I do not know.",
    "That is not something I can answer.",
    "No idea, sorry.",
)
"""For evaluation only."""
