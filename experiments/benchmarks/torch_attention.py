"""PyTorch's scaled_dot_product_attention for experiments.benchmarks.attention, in a process of its own.

Reads "batch length heads features causal dtype backward seconds" from every line of standard input, and prints the
seconds of one call by the fastest of its backends that serves the shape; a GPU is timed by its own events.
"""

import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)
SETS = 3  # of inputs
fastest = {}


def timed(inputs, causal, backward, backend, count):
  """Returns the seconds of one of `count` calls."""
  def run():
    for i in range(count):
      query, key, value, given = inputs[i % SETS]
      out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
      if backward:
        torch.autograd.grad(out, (query, key, value), given)

  with sdpa_kernel(backend), torch.set_grad_enabled(backward):
    if DEVICE == "cpu":
      began = time.perf_counter()
      run()
      return (time.perf_counter() - began) / count
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / count


def measure(batch, length, heads, features, causal, dtype, backward, seconds):
  """Returns the seconds of one call, over as many as take about `seconds`."""
  causal, backward, case = causal == "1", backward == "1", (batch, length, heads, features, causal, dtype, backward)
  size = int(batch), int(heads), int(length), int(features)
  if case not in fastest:
    if fastest and next(iter(fastest))[:6] != case[:6]:
      fastest.clear()  # one shape at a time: the inputs of the others are not needed again
    draw = lambda: torch.randn(size, device=DEVICE, dtype=getattr(torch, dtype)).requires_grad_(backward)
    inputs = [tuple(draw() for _ in range(4)) for _ in range(SETS)]
    each = {}
    for backend in BACKENDS:
      try:
        timed(inputs, causal, backward, backend, 1)
        each[backend] = timed(inputs, causal, backward, backend, 2)
      except RuntimeError:  # does not serve the shape, the dtype or the device
        continue
    best = min(each, key=each.get)
    fastest[case] = inputs, best, each[best]
  inputs, best, each = fastest[case]
  count = max(1, min(10_000, round(float(seconds) / each)))
  return timed(inputs, causal, backward, best, count)


if __name__ == "__main__":
  for line in sys.stdin:
    print(measure(*line.split()), flush=True)
