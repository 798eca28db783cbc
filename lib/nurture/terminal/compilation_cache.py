"""The cache of compiled programs on the disk."""

from __future__ import annotations

import os
import pathlib

from absl import logging

CACHE_VARIABLE = "NURTURE_COMPILATION_CACHE"


def enable_compilation_cache(min_seconds: float = 0.2) -> pathlib.Path | None:
  """Lets JAX keep compiled programs on the disk, so that the second start of a run does not compile.

  They lie in ~/.cache/nurture/jax, or in the directory that NURTURE_COMPILATION_CACHE names; "off" disables
  the cache. JAX's own JAX_COMPILATION_CACHE_DIR goes before both.

  Args:
    min_seconds: programs that compile faster are not kept. JAX's own bound of one second leaves out every
      program of a small experiment.

  Returns:
    The directory, or None when there is no cache (asked for, or because it cannot be written).
  """
  import jax  # noqa: PLC0415  (a binary that only reads files starts without it)

  if given := jax.config.values["jax_compilation_cache_dir"]:
    return pathlib.Path(given)
  setting = os.environ.get(CACHE_VARIABLE, "")
  if setting.lower() == "off":
    return None
  directory = pathlib.Path(setting or "~/.cache/nurture/jax").expanduser()
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    logging.warning("no compilation cache: %s (%s); set %s to move it.", directory, error.strerror, CACHE_VARIABLE)
    return None
  jax.config.update("jax_compilation_cache_dir", os.fspath(directory))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", min_seconds)
  return directory
