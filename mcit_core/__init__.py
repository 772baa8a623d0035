"""Learning: one vision-language model, one instruction task after another, and what it keeps of the earlier ones."""

from mcit_core.stages.sources import OURS, SOURCES

SOURCES.remember(OURS)  # as the sources are now, before any of them is imported; see `mcit_core.stages.sources`
