"""Training a pretext task: one loop, top to bottom. Stopped anywhere, it goes on exactly there."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.dataset import Dataset, ahead
from worker.device import autocast, to_device

State = dict[str, Any]  # all that is needed to go on; nothing that `torch.load(weights_only=True)` refuses

_LOOK_EVERY = 20  # steps between two looks at the loss, because each waits for the device
_ROLLBACKS = 2
_BATCHES_AHEAD = 4


class Diverged(Exception):
    """The loss was no number, at the learning rate, its half and its quarter. The sentence is for people."""


class _NotFinite(Exception):
    pass


class Task(Protocol):
    """What the loop asks of a `worker.pretext.PretextTask`."""

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor: ...

    def measures(self, net: nn.Module, batch: Tensor) -> dict[str, float]: ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    epochs: int
    batch_size: int
    seed: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up: float = 0.1  # share of the steps
    gradient_norm: float = 1.0

    def rate(self, done: float) -> float:
        """The learning rate when a share of the steps is done: a linear start, then a cosine down to 0."""
        if done < self.warm_up:
            return self.learning_rate * done / self.warm_up
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - self.warm_up) / (1 - self.warm_up)))


@dataclass(kw_only=True)
class Training:
    """One training: what it works on, and how far it is.

    prepare  uint8 (n, 3, s, s) on the device -> float (n, 3, s, s), augmented when given a generator
    watched  uint8 (m, 3, s, s): the items on which collapse is watched
    save     stores a state for good; called after each epoch and every `save_interval_s`
    report   progress 0..1 and a sentence
    """

    net: nn.Module  # with `backbone`, on the device
    task: Task
    dataset: Dataset
    recipe: Recipe
    device: torch.device
    prepare: Callable[[Tensor, torch.Generator | None], Tensor]
    watched: Tensor
    save: Callable[[State], None]
    save_interval_s: float
    report: Callable[[float, str], None]

    def __post_init__(self) -> None:
        torch.manual_seed(self.recipe.seed)  # for dropout inside the network
        self.generator = torch.Generator(self.device).manual_seed(self.recipe.seed)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), weight_decay=self.recipe.weight_decay)
        self.step = self.seen = self.rollbacks = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)  # of the epoch so far
        self.history: list[dict[str, float]] = []

    def run(self, resume: State | None = None) -> list[dict[str, float]]:
        """Train to the end, from `resume` if given; one object an epoch. Raises `Diverged`."""
        if resume is not None:
            self._restore(resume)
        self.last_state = copy.deepcopy(self._state())
        while True:
            try:
                return self._steps()
            except _NotFinite:
                rollbacks = self.rollbacks + 1
                if rollbacks > _ROLLBACKS:
                    raise Diverged(
                        "The training diverged: its loss was no number, even at a quarter of the learning "
                        "rate. Try another backbone, or look for extreme pixel values in the pool."
                    ) from None
                self._restore(self.last_state)
                self.rollbacks = rollbacks

    def _steps(self) -> list[dict[str, float]]:
        recipe, net = self.recipe, self.net
        steps_per_epoch = math.ceil(self.dataset.size / recipe.batch_size)
        steps = recipe.epochs * steps_per_epoch
        begun, begun_at = time.monotonic(), self.step
        saved = begun
        while self.step < steps:
            epoch, batches_done = divmod(self.step, steps_per_epoch)
            epoch_begun, seen_before = time.monotonic(), self.seen
            net.train()
            batches = self.dataset.batches(recipe.seed, epoch, recipe.batch_size, batches_done)
            with closing(ahead(batches, _BATCHES_AHEAD)) as ready:
                for pixels in ready:
                    self.step += 1
                    if len(pixels):
                        self._learn(pixels, recipe.rate(self.step / steps) * 0.5**self.rollbacks)
                    now = time.monotonic()
                    if self.step % _LOOK_EVERY == 0:
                        left = about((now - begun) / (self.step - begun_at) * (steps - self.step))
                        message = (
                            f"epoch {epoch + 1} of {recipe.epochs}, loss {self._loss():.3g}, {left} left"
                        )
                        self.report(self.step / steps, message)
                    if now - saved >= self.save_interval_s and self.step % steps_per_epoch:
                        self._save()
                        saved = now
            self._check_sound()
            seconds = time.monotonic() - epoch_begun
            self.history.append(
                {
                    "epoch": epoch + 1,
                    "loss": self._loss(),
                    "images_per_s": (self.seen - seen_before) / seconds,
                }
                | self.watch()
            )
            self.seen = 0
            self.loss_sum.zero_()
            self._save()
            saved = time.monotonic()
        return self.history

    def _learn(self, pixels: Tensor, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.prepare(to_device(pixels, self.device), self.generator)
        with autocast(self.device):
            losses = self.task.losses(self.net, batch, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.mean())
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.gradient_norm)
        self.optimizer.step()
        self.loss_sum += losses.detach().sum(dtype=torch.float64)
        self.seen += len(pixels)

    def _loss(self) -> float:
        """The mean of the epoch so far. Raises `_NotFinite`."""
        loss = self.loss_sum.item() / max(self.seen, 1)
        if not math.isfinite(loss):
            raise _NotFinite
        return loss

    def _check_sound(self) -> None:
        """What is stored can be gone on from. Raises `_NotFinite`."""
        self._loss()
        if not all(weight.isfinite().all() for weight in self.net.parameters()):
            raise _NotFinite

    def watch(self) -> dict[str, float]:
        """The signs of collapse and what the task measures, on the watched items in eval mode."""
        self.net.eval()
        with torch.no_grad(), autocast(self.device):
            parts = [
                self.prepare(to_device(part, self.device), None)
                for part in torch.split(self.watched, self.recipe.batch_size)
            ]
            measures = [self.task.measures(self.net, part) for part in parts]
        weights = torch.tensor([len(part) for part in parts], dtype=torch.float64)
        means = {
            name: float((weights * torch.tensor([one[name] for one in measures])).sum() / weights.sum())
            for name in measures[0]
        }
        return means | spread(self.net, parts, self.device)

    def _state(self) -> State:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "cuda_generator": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "step": self.step,
            "seen": self.seen,
            "loss_sum": self.loss_sum,
            "rollbacks": self.rollbacks,
            "history": self.history,
        }

    def _save(self) -> None:
        self._check_sound()
        self.last_state = copy.deepcopy(self._state())
        self.save(self.last_state)

    def _restore(self, state: State) -> None:
        state = copy.deepcopy(state)  # the optimizer would go on to write into it
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch_generator"].cpu())
        if state["cuda_generator"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_generator"].cpu(), self.device)
        self.step, self.seen, self.rollbacks = state["step"], state["seen"], state["rollbacks"]
        self.loss_sum = state["loss_sum"].to(self.device)
        self.history = state["history"]


def spread(net: nn.Module, batches: list[Tensor], device: torch.device) -> dict[str, float]:
    """How much of their space the embeddings use; both fall when training collapses.

    embedding_std  mean over dimensions of the standard deviation of the L2-normalised embeddings
    rank_me        effective rank (Garrido et al. 2023, https://arxiv.org/abs/2210.02885)
    """
    net.eval()
    with torch.no_grad(), autocast(device):
        embeddings = torch.cat([net.get_submodule("backbone")(batch).float() for batch in batches])
    singular = torch.linalg.svdvals(embeddings)
    shares = singular / singular.sum().clamp_min(1e-12) + 1e-7
    return {
        "embedding_std": functional.normalize(embeddings, dim=1).std(0, correction=0).mean().item(),
        "rank_me": torch.exp(-(shares * shares.log()).sum()).item(),
    }


def about(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
