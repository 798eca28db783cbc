"""The terminal side of every binary: flags, start and failure, and the cache of compiled programs."""

from nurture.terminal.compilation_cache import CACHE_VARIABLE, enable_compilation_cache
from nurture.terminal.flags import SHARED, config_of, parse_flags
from nurture.terminal.overrides import apply
from nurture.terminal.start import run

__all__ = ["CACHE_VARIABLE", "SHARED", "apply", "config_of", "enable_compilation_cache", "parse_flags", "run"]
