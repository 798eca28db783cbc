"""The network of experiments.benchmarks.ensemble in PyTorch, eager, one step after another, as it is usually written.

Reads a number of seconds from every line of standard input, trains for about that long, and prints the steps a
second, with one thread or with all of them, whichever is faster. It has a process of its own because the threads
of two frameworks in one process starve each other.
"""

import sys
import time

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Training:
  """SGD with clipping by the global norm and annealed noise, on random data."""

  def __init__(self, sizes, batch, examples, learning_rate, max_norm, eta, gamma):
    layers = [m for a, b in zip(sizes[:-1], sizes[1:]) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    self.model = torch.nn.Sequential(*layers[:-1]).to(DEVICE)
    self.parameters = list(self.model.parameters())
    self.optimizer = torch.optim.SGD(self.parameters, lr=learning_rate)
    self.images = torch.randint(0, 256, (examples, sizes[0]), dtype=torch.uint8, device=DEVICE)
    self.labels = torch.randint(0, sizes[-1], (examples,), device=DEVICE)
    self.batch, self.max_norm, self.eta, self.gamma, self.count = batch, max_norm, eta, gamma, 0

  def step(self):
    rows = torch.randint(0, len(self.labels), (self.batch,), device=DEVICE)
    self.optimizer.zero_grad()
    logits = self.model(self.images[rows].float() / 255)
    torch.nn.functional.cross_entropy(logits, self.labels[rows]).backward()
    torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
    deviation = (self.eta / (1 + self.count) ** self.gamma) ** 0.5
    for parameter in self.parameters:
      parameter.grad.add_(torch.randn_like(parameter), alpha=deviation)
    self.optimizer.step()
    self.count += 1


def main():
  sizes = [int(n) for n in sys.argv[1].split(",")]
  batch, examples = int(sys.argv[2]), int(sys.argv[3])
  training = Training(sizes, batch, examples, *map(float, sys.argv[4:8]))
  measured = {}
  for threads in {1, torch.get_num_threads()}:  # small layers may be faster on one
    torch.set_num_threads(threads)
    rate(training, 0.5)
    measured[threads] = rate(training, 1.0)
  torch.set_num_threads(max(measured, key=measured.get))
  for line in sys.stdin:
    print(rate(training, float(line)), flush=True)


def rate(training, seconds):
  """Returns steps per second over about `seconds`."""
  steps, began = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - began) < seconds:
    for _ in range(20):
      training.step()
    if DEVICE == "cuda":
      torch.cuda.synchronize()
    steps += 20
  return steps / elapsed


if __name__ == "__main__":
  main()
