"""Training a pretext task: one loop, top to bottom. Stopped anywhere, it goes on exactly there.

Several trainers may run it together, one a device (`worker.collectives`): each learns from its part of every batch,
and all decide from the same numbers, so that none does what the others do not.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worker import collectives
from worker.arrays import Floats
from worker.device import Sent, autocast, send, to_device
from worker.errors import JobFailed
from worker.evaluation.diagnostics import Diagnostics, collapse, of_embeddings, of_losses, peak_memory_gb
from worker.pool.dataset import Dataset, ahead, sharded
from worker.pretraining.ema import Average
from worker.pretraining.recipe import Recipe
from worker.scoring import score

State = dict[str, Any]  # all that is needed to go on; nothing that `torch.load(weights_only=True)` refuses

_LOOK_EVERY = 20  # steps between two looks at the loss, because each waits for the device
_EXPLODED = 3  # times the loss of the first step, on top of it
_ROLLBACKS = 2
_LOWER = 0.25  # the learning rate after a rollback
_PLATEAU = 0.01  # a loss is smaller when it is by that share
_COLLAPSE_SHOWS = 0.15  # of the steps
_WATCHED = 512
_BATCHES_AHEAD = 4

_PLAIN_STATE = (
    "step", "rollbacks", "seen", "seen_before", "loss_sum_before", "first_loss", "untrained", "history",
)  # fmt: skip


class Diverged(JobFailed):
    """The loss exploded, at the learning rate, its quarter and its sixteenth. The sentence is for people."""


class _Unsound(Exception):
    """Says what the loss was."""


class Task(score.Task, Protocol):
    """The part of `worker.pretext.PretextTask` that the loop needs."""

    def after_step(self, net: nn.Module, done: float) -> None: ...

    def finalise(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None: ...

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]: ...


@dataclass(kw_only=True)
class Training:
    """One training: what it works on, and how far it is.

    prepare  decoded items (n, *item_shape) on the device -> what the network takes, augmented when given a generator
    sample   (m, *item_shape): random items, decoded. All of them finalise the task, the first are watched
    traits   (m,) each: what the losses of the sample should not merely follow
    save     stores a state for good; called after each epoch and every `save_interval_s`
    report   progress 0..1 and a sentence
    warn     a sentence that is to be kept
    """

    net: nn.Module  # with `backbone`, on the device
    task: Task
    dataset: Dataset
    recipe: Recipe
    device: torch.device
    prepare: Callable[[Tensor, torch.Generator | None], Tensor]
    sample: Tensor
    save: Callable[[State], None]
    save_interval_s: float
    report: Callable[[float, str], None]
    warn: Callable[[str], None]
    traits: dict[str, Floats] = field(default_factory=dict)
    least_spread: float = 0.7  # see `Modality`
    least_rank: float = 0.5

    def __post_init__(self) -> None:
        recipe = self.recipe
        torch.manual_seed(recipe.seed)  # for dropout inside the network
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.optimizer = recipe.make_optimizer(self.net.parameters())
        self.average = Average(self.net, recipe.average) if recipe.average is not None else None
        self.losses = collectives.data_parallel(
            self.net, lambda batch: self.task.losses(self.net, batch, self.generator)
        )
        if recipe.compile:
            self.net.get_submodule("backbone").compile()
        self.steps_per_epoch = math.ceil(self.dataset.size / recipe.batch_size)
        self.steps = recipe.epochs * self.steps_per_epoch
        self.step = self.rollbacks = 0
        self.seen = self.seen_before = 0  # items in the epoch, of all trainers: so far, and at the last look
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)  # over those items
        self.loss_sum_before = 0.0
        self.first_loss: float | None = None
        self.untrained: Diagnostics = {}
        self.history: list[Diagnostics] = []

    @property
    def result(self) -> nn.Module:
        """The network that is watched, and worth keeping."""
        return self.average.net if self.average is not None else self.net

    def run(self, resume: State | None = None) -> Diagnostics:
        """Train to the end, from `resume` if given. What the result is like; raises `Diverged`."""
        if resume is None:
            self.untrained = self.watch()
        else:
            self._restore(resume)
        self.last_state = copy.deepcopy(self._state())
        while True:
            try:
                self._steps()
                break
            except _Unsound as unsound:
                self._roll_back(unsound)
        self._finalise()
        return self.watch()

    def _steps(self) -> None:
        recipe = self.recipe
        begun, begun_at = time.monotonic(), self.step
        saved = begun
        while self.step < self.steps and not self._plateaued():
            epoch, batches_done = divmod(self.step, self.steps_per_epoch)
            epoch_begun, seen_before = time.monotonic(), self.seen
            self.net.train()
            dataset = sharded(self.dataset)
            batches = dataset.batches(recipe.seed, epoch, recipe.batch_size, batches_done)
            sent = (send(items, self.device) for items in batches)
            with closing(ahead(sent, _BATCHES_AHEAD)) as ready:
                for items in ready:
                    self.step += 1
                    self._learn(items, recipe.rate(self.step / self.steps) * _LOWER**self.rollbacks)
                    now = time.monotonic()
                    if self.step % _LOOK_EVERY == 0:
                        left = about((now - begun) / (self.step - begun_at) * (self.steps - self.step))
                        message = (
                            f"epoch {epoch + 1} of {recipe.epochs}, loss {self._look():.3g}, {left} left"
                        )
                        self.report(self.step / self.steps, message)
                    if self.step == math.ceil(_COLLAPSE_SHOWS * self.steps):
                        self._look_for_collapse()
                    due = collectives.broadcast_from_first(now - saved >= self.save_interval_s)
                    if due and self.step % self.steps_per_epoch:
                        self._save()
                        saved = now
            self._check_sound()
            seconds = time.monotonic() - epoch_begun
            self.history.append(
                {
                    "epoch": epoch + 1,
                    "loss": self.loss_sum.item() / max(self.seen, 1),
                    "images_per_s": (self.seen - seen_before) / seconds,
                    "peak_memory_gb": peak_memory_gb(self.device),
                }
                | self.watch()
            )
            self.seen = self.seen_before = 0
            self.loss_sum.zero_()
            self.loss_sum_before = 0.0
            self._save()
            saved = time.monotonic()

    def _learn(self, sent: Sent, rate: float) -> None:
        items = collectives.all_gather_counts(len(sent))
        if not all(items):  # nothing that can be read, or too little for all trainers at the end of an epoch
            return
        collectives.reseed(self.generator, self.recipe.seed, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.prepare(to_device(sent.arrived(), self.device), self.generator)
        with autocast(self.device):
            losses = self.losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(collectives.weighted_mean(losses, sum(items)))
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.gradient_norm)
        self.optimizer.step()
        self.task.after_step(self.net, self.step / self.steps)
        if self.average is not None:
            self.average.follow(self.net, self.step)
        self.loss_sum += collectives.all_reduce_sum(losses.detach().sum(dtype=torch.float64))
        self.seen += sum(items)
        if self.first_loss is None:
            self.first_loss = collectives.all_reduce_mean(losses.detach()).item()

    # ---- is it going well? ----

    def _look(self) -> float:
        """The mean loss of the epoch so far. Raises `_Unsound` for what came since the last look."""
        loss_sum = self.loss_sum.item()
        if self.seen > self.seen_before:
            lately = (loss_sum - self.loss_sum_before) / (self.seen - self.seen_before)
            if not math.isfinite(lately):
                raise _Unsound("was no number")
            first = lately if self.first_loss is None else self.first_loss
            if lately > first + _EXPLODED * max(abs(first), 1):
                raise _Unsound(f"rose to {lately:.3g} from {first:.3g} at the start")
            self.seen_before, self.loss_sum_before = self.seen, loss_sum
        return loss_sum / max(self.seen, 1)

    def _check_sound(self) -> None:
        """Check the state before it is stored: training can resume from it. Raises `_Unsound`."""
        self._look()
        finite = torch.stack([value.isfinite().all() for value in self.net.state_dict().values()])
        if collectives.any_rank(not finite.all()):
            raise _Unsound("left weights that are no numbers")

    def _roll_back(self, unsound: _Unsound) -> None:
        """To the last state that was sound. Raises `Diverged` after the second time."""
        rollbacks, failed_at = self.rollbacks + 1, self.step
        if rollbacks > _ROLLBACKS:
            raise Diverged(
                f"The training diverged: its loss {unsound}, even at a sixteenth of the learning rate of "
                f"{self.recipe.learning_rate:g}. Set a smaller one in the project's pretext_training, try another "
                "backbone, or look for extreme items in the pool."
            ) from None
        self._restore(self.last_state)
        self.rollbacks = rollbacks
        self.warn(
            f"The loss {unsound} at step {failed_at}; the training went back to step {self.step} and on with a "
            "quarter of its learning rate."
        )

    def _look_for_collapse(self) -> None:
        self._check_sound()
        collapsed = collapse(
            self.untrained,
            self.watch(),
            len(self.sample[:_WATCHED]),
            least_spread=self.least_spread,
            least_rank=self.least_rank,
        )
        self.net.train()
        if collapsed:
            self.warn(f"After {_COLLAPSE_SHOWS:.0%} of the steps: {collapsed}")

    def _plateaued(self) -> bool:
        patience, losses = self.recipe.patience, [epoch["loss"] for epoch in self.history]
        if patience is None or len(losses) <= patience:
            return False
        least = min(losses[:-patience])
        return min(losses[-patience:]) > least - _PLATEAU * abs(least)

    def watch(self) -> Diagnostics:
        """The task's measures and the signs of collapse, on the watched items in eval mode."""
        self.result.eval()
        parts = [
            self.prepare(to_device(part, self.device), None)
            for part in torch.split(self.sample[:_WATCHED], self.recipe.batch_size)
        ]
        scored = [score.score(self.result, self.task, part) for part in parts]
        with torch.no_grad(), autocast(self.device):
            measures = [self.task.diagnostics(self.result, part) for part in parts]
        weights = torch.tensor([len(part) for part in parts], dtype=torch.float64)
        means = {
            name: float((weights * torch.tensor([one[name] for one in measures])).sum() / weights.sum())
            for name in measures[0]
        }
        traits = {name: values[:_WATCHED] for name, values in self.traits.items()}
        return (
            means
            | of_embeddings(torch.cat([part.embeddings for part in scored]))
            | of_losses(torch.cat([part.losses for part in scored]), traits)
        )

    def _finalise(self) -> None:
        self.result.eval()
        sample = self.prepare(to_device(self.sample, self.device), None)
        with torch.no_grad(), autocast(self.device):
            generator = torch.Generator(self.device).manual_seed(self.recipe.seed)
            self.task.finalise(self.result, sample, generator)

    # ---- states ----

    def _state(self) -> State:
        return {
            "net": self.net.state_dict(),
            "average": self.average.net.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "cuda_generator": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "loss_sum": self.loss_sum,
            **{name: getattr(self, name) for name in _PLAIN_STATE},
        }

    def _save(self) -> None:
        self._check_sound()
        self.last_state = copy.deepcopy(self._state())
        self.save(self.last_state)

    def _restore(self, state: State) -> None:
        state = copy.deepcopy(state)  # the optimizer would go on to write into it
        self.net.load_state_dict(state["net"])
        if self.average is not None:
            self.average.net.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch_generator"].cpu())
        if state["cuda_generator"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_generator"].cpu(), self.device)
        self.loss_sum = state["loss_sum"].to(self.device)
        for name in _PLAIN_STATE:
            setattr(self, name, state[name])


def about(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
