"""How a run is resumed: what is kept every minute and every epoch, and how a training goes on from it, to the last bit.

After an epoch these are written, in this order:

1. `checkpoint/new.safetensors`, the weights, if the epoch is the best so far;
2. the epoch's line of `metrics.jsonl`, behind those of its steps;
3. `checkpoint/last.pt`, the state: all that the next epoch depends on, every line of metrics.jsonl, and the digest of
   the best weights;
4. the new name of the new weights, `checkpoint/best.safetensors`.

Each file is whole or not there. Where the process is killed between two of them, the state decides, and the other files
are made to agree with it: metrics.jsonl is written anew; new weights with the digest that the state knows are renamed,
and any others belong to an epoch that is trained again. The digests also tell whether a file was changed since.

Inside an epoch only `checkpoint/last.pt` is written, after a step, every `checkpoint_minutes`. It then also holds how
far the epoch is, and the metrics of the steps since the last line of metrics.jsonl. A digest of all that are no tensors
goes with it, for with other words beside the weights a training would go on to other numbers.

The order of the training pairs is no part of the state: it depends on the seed and the number of the epoch alone, so
those that the epoch has had are skipped unread. Of several processes, the state holds the first one's random numbers:
the models here draw none while they train.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from uwml_lib.runs.checkpoints import check_record, load_state, save_model, save_state
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_files, seal_of, sha256_of, write_text, writing
from uwml_lib.support.progress import Say

SEALED = ("records", "sessions", "best_rsum", "epoch_so_far", "files")
"""What of a state its digest is of; states from before have none, and are taken as they are."""


class TrainingState:
    """What a training has done so far, in memory and in its run folder; of several processes the first writes.

    records: the lines of metrics.jsonl. sessions: the provenance of this process, after that of earlier ones that had
    other code or versions. best_rsum: on the images that choose the best epoch. step: the steps of the epoch in the
    state that was kept last, which took `seconds`; kept_at: when that was, by the monotonic clock, as is started, when
    the epoch began. pending: metrics of the steps since the last line, scalars on the device.
    """

    def __init__(
        self, folder: Path, model: nn.Module, optimizer: Any, accelerator: Accelerator, session: dict[str, Any]
    ) -> None:
        self.folder, self.model, self.optimizer, self.accelerator = folder, model, optimizer, accelerator
        self.records: list[dict[str, Any]] = []
        self.sessions = [session]
        self.best_rsum, self.best_digest = -math.inf, ""
        self.step, self.seconds = 0, 0.0
        self.pending: list[dict[str, Tensor]] = []
        self.started = self.kept_at = time.monotonic()
        self.metrics, self.file = folder / "metrics.jsonl", folder / "checkpoint" / "last.pt"
        self.new_weights, self.best_weights = (self.file.with_name(f"{name}.safetensors") for name in ("new", "best"))

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The records of the finished epochs."""
        return [record for record in self.records if record["kind"] == "epoch"]

    @property
    def reached(self) -> str:
        """Say after what the state that was kept last goes on."""
        epoch = len(self.epochs)
        return f"step {self.step} of epoch {epoch + 1}" if self.step else f"epoch {epoch}"

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        self.records.append(record)
        if self.accelerator.is_main_process:
            with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def keep_step(self, step: int) -> None:
        """Keep all that the epoch's next step depends on."""
        self.step, self.seconds = step, time.monotonic() - self.started
        self._keep()

    def finish_epoch(self, record: dict[str, Any], description: dict[str, Any]) -> None:
        """Keep an epoch's record and all that the next one depends on; description: goes with the best weights."""
        better = record["dev_rsum"] > self.best_rsum
        self.best_rsum = max(self.best_rsum, record["dev_rsum"])
        if better and self.accelerator.is_main_process:
            save_model(self.new_weights, self.model, description)
            self.best_digest = sha256_of(self.new_weights)
        self.append(record)
        self.step, self.seconds = 0, 0.0
        self._keep()
        if better and self.accelerator.is_main_process:
            os.replace(self.new_weights, self.best_weights)

    def resume(self, say: Say) -> None:
        """Go on from the state that was kept last, if there is one, and make the files agree with it.

        Raises UWMLError for a state of something else, and for files that were changed since.
        """
        files = self._restore(load_state(self.file), say) if self.file.exists() else {}
        if not self.accelerator.is_main_process:
            return
        if self.new_weights.exists() and sha256_of(self.new_weights) == self.best_digest:
            os.replace(self.new_weights, self.best_weights)
        check_files(self.folder, files)
        if files:
            say(f"goes on after {self.reached}")
        self.new_weights.unlink(missing_ok=True)
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in self.records))

    def _keep(self) -> None:
        if self.accelerator.is_main_process:
            save_state(self.file, self._state())
        self.kept_at = time.monotonic()

    def _state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler  # of the gradients in half precision
        files = {name: sha256_of(self.folder / name) for name in ("config.json", "vocabulary.json")}
        if self.best_digest:
            files["checkpoint/best.safetensors"] = self.best_digest
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),
            "records": self.records,
            "sessions": self.sessions,
            "best_rsum": self.best_rsum,
            "epoch_so_far": {"step": self.step, "seconds": self.seconds, "pending": read_steps(self.pending)},
            "files": files,
        }
        return state | {"seal": seal_of({name: state[name] for name in SEALED})}

    def _restore(self, state: dict[str, Any], say: Say) -> dict[str, str]:
        """Take over a state; return the digests of the files that it builds on."""
        try:
            if "seal" in state and state["seal"] != seal_of({name: state.get(name) for name in SEALED}):
                raise ValueError("was changed after it was written")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for parameter, moments in self.optimizer.state.items():
                if moments["exp_avg"].shape != parameter.shape or moments["exp_avg_sq"].shape != parameter.shape:
                    raise ValueError("the optimizer's moments do not fit the parameters")
            self.records, self.best_rsum, files = state["records"], state["best_rsum"], dict(state["files"])
            self.best_digest = files.get("checkpoint/best.safetensors", "")
            if so_far := state.get("epoch_so_far"):  # older states have none: they are of the end of an epoch
                self.step, self.seconds = so_far["step"], so_far["seconds"]
                self.pending = [
                    {name: torch.tensor(value, device=self.accelerator.device) for name, value in step.items()}
                    for step in so_far["pending"]
                ]
            for record in self.records:
                check_record(record)
            self._note_earlier(state["sessions"], say)
            torch.set_rng_state(state["torch_rng"])
            if len(state["cuda_rng"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["cuda_rng"])
            if self.accelerator.scaler and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UWMLError(
                f"{self.file}: is the state of another model, or was changed since; remove it to start over"
            ) from error
        return files

    def _note_earlier(self, earlier: list[dict[str, Any]], say: Say) -> None:
        """Keep who worked on this run before, and say so if it was other code or other versions."""
        now, last = self.sessions[0], earlier[-1]
        changed = [name for name in ("library", "versions", "python") if now[name] != last[name]]
        if changed:
            say(f"goes on with another {' and '.join(changed)} than it was begun with; this is noted")
        self.sessions = [*earlier, now] if changed else earlier


def read_steps(steps: list[dict[str, Tensor]]) -> list[dict[str, float]]:
    """Read the metrics of some steps, scalars of the same names, from the device, all at once."""
    rows = [torch.stack([value.float() for value in step.values()]) for step in steps]
    values = torch.stack(rows).tolist() if rows else []
    return [dict(zip(step, row, strict=True)) for step, row in zip(steps, values, strict=True)]
