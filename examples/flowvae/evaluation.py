"""Figures of a trained model on test sequences, by one path for all models: errors, likelihoods, codes, recovery."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from torchflowfield.metrics import commutator_norms, equivariance_error, transformation_recovery, usage

from .data.sequences import Batch
from .data.transforms import FACTORS
from .disentanglement import disentanglement, labelled_frames
from .likelihood import log_likelihood

if TYPE_CHECKING:
    from .base import SequenceVAE

# The likelihood of so many sequences of every loader is estimated, the codes of so many images are analysed.
LIKELIHOOD_SEQUENCES, LABELLED_IMAGES = 256, 2000


class Evaluation:
    """Collects test batches: one loader per factor, then sequences of the training motion.

    Noise is off: codes are posterior means and coefficients are the most probable ones.
    """

    def __init__(self, model: "SequenceVAE", data: Any) -> None:
        self.model, self.data = model, data
        self.factors: tuple[str, ...] = getattr(data, "factors", FACTORS)
        self.errors: dict[str, dict[str, list[Tensor]]] = {factor: {} for factor in self.factors}
        self.chosen: list[tuple[Tensor, Tensor]] = []
        self.inferred: dict[str, list[Tensor]] = {"spikes": [], "slabs": [], "true": []}
        self.codes: list[Tensor] = []

    @torch.no_grad()
    def update(self, batch: Batch, loader: int) -> None:
        """Add a batch of the given test loader."""
        frames = batch["frames"].transpose(0, 1)
        if loader < len(self.factors):
            self._update_errors(frames, batch, self.factors[loader])
        elif hasattr(self.model, "infer"):
            draw = self.model.infer(frames)
            self.inferred["spikes"].append(draw.spikes)
            self.inferred["true"].append(batch["weights"].transpose(0, 1))
            if draw.slabs is not None:
                self.inferred["slabs"].append(draw.slabs)

    def _update_errors(self, frames: Tensor, batch: Batch, factor: str) -> None:
        model = self.model
        z = model.rollout(frames, batch).z
        predictions = {
            "flow": model.decode(z),
            "off": model.decode(z[0]).expand_as(frames),
            "reencoded": model.reconstruct(frames),
            **{name: model.decode(codes) for name, codes in model.alternatives(frames, batch).items()},
        }
        collected = self.errors[factor]
        for name, logits in predictions.items():
            for relative in (False, True):
                error = equivariance_error(logits.sigmoid(), frames, relative=relative)
                collected.setdefault(f"{name}_relative" if relative else name, []).append(error)
        done = sum(len(part) for part in collected.get("log_p_gaussian", []))
        if done < LIKELIHOOD_SEQUENCES:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(done)
                for name, values in log_likelihood(model, frames, batch).items():
                    collected.setdefault(name, []).append(values)
        self.codes.append(z[0])
        if hasattr(model, "selector"):
            weights, _ = model.coefficients(frames, batch)
            self.chosen.append((weights[0].argmax(-1), batch["factor"]))

    def results(self) -> dict[str, Any]:
        """All figures, by name."""
        results: dict[str, Any] = {}
        for factor, errors in self.errors.items():
            if not errors:
                continue
            row = {name: torch.cat(values).mean().item() for name, values in errors.items()}
            row["ratio"] = row["flow"] / row["reencoded"]
            row["off_ratio"] = row["off"] / row["flow"]
            results[factor] = row
        if self.chosen:
            chosen, true = (torch.cat(part) for part in zip(*self.chosen, strict=True))
            controls = self.model.flows.num_controls
            one_hot = torch.nn.functional.one_hot
            recovery = transformation_recovery(
                one_hot(chosen, controls).double(), one_hot(true, len(self.factors)).double()
            )
            results["selector"] = {
                "accuracy": (recovery.matching.to(true)[true] == chosen).double().mean().item(),
                "matching": recovery.matching.tolist(),
            }
        if self.inferred["spikes"]:
            results["recovery"] = self._recovery()
        if hasattr(self.model, "flows") and self.codes:
            commutators = commutator_norms(self.model.flows, 1.0, torch.cat(self.codes)[:256])
            results["commutators"] = [[round(x, 4) for x in row] for row in commutators.tolist()]
        labelled = labelled_frames(self.data, LABELLED_IMAGES)
        if labelled is not None:
            frames, values = labelled
            results["disentanglement"] = disentanglement(self._codes_of(frames), values)
        results["needs_labels"] = self.model.needs_labels
        return results

    @torch.no_grad()
    def _codes_of(self, frames: Tensor) -> Tensor:
        """Means of what the encoder describes; of capsules that is z and u, before they are combined."""
        parts = [self.model.encode(part.to(self.model.device))[0].cpu() for part in frames.split(250)]
        return torch.cat(parts)

    def _recovery(self) -> dict[str, Any]:
        spikes, true = torch.cat(self.inferred["spikes"], 1), torch.cat(self.inferred["true"], 1)
        slabs = torch.cat(self.inferred["slabs"], 1) if self.inferred["slabs"] else None
        found = transformation_recovery(spikes, (true > 0).to(true), slabs, true if slabs is not None else None)
        kind = {}
        if self.model.flows.control == "double":
            names = ("potential", "rotational")
            kind = {"kind": [names[k // self.model.flows.K] if k >= 0 else "none" for k in found.matching.tolist()]}
        return {
            "f1": found.f1.tolist(),
            "mean_f1": found.f1.mean().item(),
            "slab_correlation": found.slab_correlation.tolist() if slabs is not None else None,
            "matching": found.matching.tolist(),
            "usage": usage(spikes).tolist(),
            "true_usage": usage((true > 0).double()).tolist(),
            "confusion": found.confusion.tolist(),
            **kind,
        }

    def report(self) -> dict[str, Any]:
        """Print the figures as tables and write them to `test.json` beside the logs."""
        results, console = self.results(), Console(width=110)
        trainer = self.model.trainer
        data = self.data.name
        table = Table(title=f"Σₜ‖x̂ₜ − xₜ‖₁ on test sequences, {data}", title_justify="left")
        for column in ("transformation", "predicted", "relative", "frame 0", "re-encoding", "over re-enc.", "log p(x)"):
            table.add_column(column, justify="left" if column == "transformation" else "right")
        for factor in self.errors:
            r = results[factor]
            table.add_row(
                factor,
                f"{r['flow']:.1f}",
                f"{r['flow_relative']:.3f}",
                f"{r['off']:.1f}",
                f"{r['reencoded']:.1f}",
                f"{r['ratio']:.3f}",
                f"{r['log_p_gaussian']:.1f}",
            )
        console.print(table)
        if "disentanglement" in results:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in results["disentanglement"].items())
            console.print(f"Codes: {scores}")
        if "selector" in results:
            console.print(
                f"The selector names the transformation of {results['selector']['accuracy']:.2%} of sequences."
            )
        if "recovery" in results:
            r = results["recovery"]
            table = Table(title="Recovered transformations", title_justify="left")
            for column in ("factor", "flow", "F1", "speed correlation"):
                table.add_column(column, justify="left" if column == "factor" else "right")
            for i, factor in enumerate(self.factors):
                speed = "" if r["slab_correlation"] is None else f"{r['slab_correlation'][i]:.3f}"
                control = str(r["matching"][i]) + (f" ({r['kind'][i]})" if "kind" in r else "")
                table.add_row(factor, control, f"{r['f1'][i]:.3f}", speed)
            console.print(table)
            console.print("usage of the flows: " + " ".join(f"{share:.3f}" for share in r["usage"]))
        results["data"] = data
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.json").write_text(json.dumps(results, indent=1) + "\n")
        console.print(f"Figures: {folder / 'test.json'}")
        return results
