"""Parts of `gpu.py`: how long loss, step and evaluation take, against the release's way and the bare products."""

import functools

import evaluation
import loss
import step
import torch
import training
from gpu_embeddings import embeddings
from gpu_notes import (
    CARD,
    DIRECTIONS,
    OUT,
    PRECISIONS,
    SMOKE,
    Part,
    cell,
    forget,
    profiled,
    ratio,
    waits,
    warm_up,
    what_bounds,
)
from measuring import DEVICE, Call, once, peak_beyond_now

from uwml_lib.config import Precision
from uwml_lib.evaluation import products, retrieval_metrics, score_matrix
from uwml_lib.models import SCAN
from uwml_lib.support.files import write_text

SIZES = {"batch": 6, "regions": 4, "words": (2, 5), "width": 16} if SMOKE else {}
OF_STEP = {"regions": 4, "features": 16, "width": 16, "words": (2, 5), "vocabulary": 50} if SMOKE else {}
PAIRS, LARGE = (6, 12) if SMOKE else (step.BATCH, training.LARGE)
LOSS_SIZES = (32, 64) if SMOKE else (*loss.SIZES, 16384)
COCO, ONE_K, SAMPLE = (
    (12, 12, 4) if SMOKE else (5000, 1000, evaluation.SAMPLE)
)  # images; captions are five times as many
FEATURES, WIDTH = (16, 16) if SMOKE else (training.FEATURES, step.WIDTH)
FASTER = {"loop, kit's loss": 20, "loop": 50}  # than these a step is to be
PRODUCTS, SECONDS = 3, 10  # a step, of the bare products in tf32; MSCOCO's 5K
STEP, TRAINING, LARGE_STEP, ALONE = "Attention and loss", "A training step", "A large batch", "The loss alone"


def steps(part: Part) -> None:
    """The step at the paper's size, a training step, a large batch, the loss alone, and losses from embeddings."""
    warm_up()
    for what, measure in ((STEP, attention), (TRAINING, training_step), (LARGE_STEP, large_step)):
        for direction in DIRECTIONS:
            part.attempt(f"{what}, {direction}", functools.partial(measure, part, direction))
            forget()
    part.attempt(ALONE, lambda: loss_alone(part))
    embeddings(part)
    if DEVICE.type == "cuda":
        part.say("The GRU is cuDNN's, which by torch's default takes tf32 products in float32, too.")


def attention(part: Part, direction: str) -> None:
    """Cross attention and loss, forward and backward: both forms, the loops and the bare products."""
    batch = step.inputs(**SIZES)
    forms = step.calls(direction, batch)
    found = {}
    for precision in PRECISIONS:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        forms["floor"] = step.floor(batch, dtype)
        calls = {name: products(precision, DEVICE)(call) for name, call in forms.items()}
        took = part.medians({name: calls[name] for name in ("floor", "kit", "plain")})
        took |= part.medians({name: calls[name] for name in FASTER}, most=3)
        seen = profiled(calls["kit"])
        found[precision] = {"milliseconds": took, "launches": seen.launches, "kernel_milliseconds": seen.milliseconds}
        part.add(**{f"attention_{direction}": found})
        part.row(STEP, {
            "step": f"{direction}, {precision}", "kit, ms": cell(took["kit"]), "plain, ms": cell(took["plain"]),
            "loop, kit's loss, ms": cell(took["loop, kit's loss"]), "loop, ms": cell(took["loop"]),
            "bare products, ms": cell(took["floor"]), "launches": f"{seen.launches:,}",
            "kernels, ms": cell(seen.milliseconds),
        })  # fmt: skip
        if precision == "float32":
            for name, wanted in FASTER.items():
                if faster := ratio(took[name], took["kit"]):
                    part.aim(f"{direction}, float32: {name} / kit", faster, wanted)
        elif precision == "tf32" and (above := ratio(took["kit"], took["floor"])):
            part.aim(f"{direction}, tf32: kit / bare products", above, PRODUCTS, at_most=True)
            part.say(what_bounds(f"{direction}, tf32", took["kit"], seen, took["floor"]))
        if precision != "float32":
            found[precision]["errors"] = step.accuracy(direction, batch, precision)
    found["peak_bytes"] = {name: peak_of(part, name, forms[name]) for name in ("kit", "plain", "loop, kit's loss")}
    part.add(**{f"attention_{direction}": found})


def peak_of(part: Part, what: str, call: Call) -> float | None:
    """Return the bytes of a call at its peak; None where there are not as many."""
    return part.attempt(f"memory of {what}", lambda: peak_beyond_now(call))


def training_step(part: Part, direction: str) -> None:
    """Encoders, attention, loss, gradients, clipping and Adam, and whether the host ever waits."""
    whole = training.Step(direction, PAIRS, **OF_STEP)
    calls = {precision: products(precision, DEVICE)(whole.kit) for precision in PRECISIONS}
    took = part.medians({**calls, "images": whole.images, "captions": whole.captions, "update": whole.update})
    took |= part.medians({"loop": whole.loop}, most=3)
    seen, waited = profiled(calls["tf32"]), waits(whole.kit)
    part.row(TRAINING, {
        "step": direction, **{f"{name}, ms": cell(took[name]) for name in (*PRECISIONS, "loop")},
        **{f"of it {name}, ms": cell(took[name]) for name in ("images", "captions", "update")},
        "launches": f"{seen.launches:,}", "kernels, ms": cell(seen.milliseconds),
    })  # fmt: skip
    numbers = {"milliseconds": took, "launches": seen.launches, "kernel_milliseconds": seen.milliseconds}
    part.add(
        **{
            f"training_{direction}": numbers
            | {"waits": waited, "peak_bytes": peak_of(part, "a training step", whole.kit)}
        }
    )
    part.say(what_bounds(f"Training step, {direction}, tf32", took["tf32"], seen, None))
    if waited is not None:
        part.aim(f"{direction}: waits of the host in a training step", waited, 0, at_most=True)


def large_step(part: Part, direction: str) -> None:
    """A training step with many pairs, and the memory it needs."""
    whole = training.Step(direction, LARGE, **OF_STEP)
    calls = {precision: products(precision, DEVICE)(whole.kit) for precision in PRECISIONS}
    took, peak = part.medians(calls, most=5), peak_of(part, "a training step", whole.kit)
    times = {f"{name}, ms": cell(took[name]) for name in PRECISIONS}
    size = f"{LARGE:,} pairs, {direction}"
    part.row(LARGE_STEP, {"step": size, **times, "peak memory, GB": cell(peak and peak / 1e9)})
    part.add(**{f"large_{direction}": {"pairs": LARGE, "milliseconds": took, "peak_bytes": peak}})
    if peak is not None:
        part.aim(f"{size}: peak memory, GB", peak / 1e9, training.MEMORY, at_most=True)


def loss_alone(part: Part) -> None:
    """The polynomial loss by batch size, forward and backward; the loop as far as it takes less than seconds."""
    found, forms = {}, ("kit", "reductions", "copy", "loop")
    for n in LOSS_SIZES:
        calls = loss.candidates(n)
        loop = {"loop": calls.pop("loop")} if "loop" in calls else {}
        took = part.medians(calls, 0.5) | part.medians(loop, 0.5, most=2)
        seen = profiled(calls["kit"])
        found[n] = took | {"launches": seen.launches, "kernel_milliseconds": seen.milliseconds}
        part.add(loss=found)
        part.row(ALONE, {
            "pairs": f"{n:,}", **{f"{name}, ms": cell(took.get(name)) for name in forms},
            "launches": f"{seen.launches:,}", "kernels, ms": cell(seen.milliseconds),
        })  # fmt: skip
        if n in (128, LOSS_SIZES[-1]):
            part.say(what_bounds(f"Loss alone, {n:,} pairs", took["kit"], seen, None))
        del calls, loop  # a gigabyte each of the largest


class Kept(evaluation.Split):
    """A split whose random regions are drawn once, so that drawing them is not measured."""

    images = functools.cache(evaluation.Split.images)


def scoring(part: Part) -> None:
    """MSCOCO's 5,000 x 25,000 from features to recalls, and scoring alone against the loop on 1,000 x 5,000."""
    warm_up()
    split = Kept(COCO, step.REGIONS if not SMOKE else 4, FEATURES)
    vocabulary = evaluation.VOCABULARY
    models = {
        direction: SCAN(FEATURES, vocabulary, embed_size=WIDTH, direction=direction).to(DEVICE)
        for direction in DIRECTIONS
    }
    score_matrix(models["i2t"], split, precision="tf32")
    for precision in PRECISIONS:
        for direction, model in models.items():
            what = f"an evaluation, {direction}, {precision}"
            if precision != "bf16" or part.left > 15:
                part.attempt(what, functools.partial(evaluate, part, direction, precision, model, split))
    for direction in DIRECTIONS:
        part.attempt(f"the loop, {direction}", functools.partial(against_the_loop, part, direction))
    part.say(
        "An evaluation embeds images and captions and scores all pairs on the device; ranks are counted on the CPU. "
        "Features are in memory: reading them from a disk comes on top."
    )


def evaluate(part: Part, direction: str, precision: Precision, model: SCAN, split: Kept) -> None:
    """Time one evaluation: embedding and scoring, and ranking."""
    scores: list[torch.Tensor] = []
    seconds = {"scoring": once(lambda: scores.append(score_matrix(model, split, precision=precision)))}
    seconds["ranking"] = once(lambda: retrieval_metrics(scores[0]))
    whole = sum(seconds.values())
    size = f"{len(split.features):,} x {len(split):,}"
    part.row("An evaluation", {
        "images x captions": size, "direction": direction, "precision": precision, "seconds": cell(whole),
        "of it ranking": cell(seconds["ranking"]),
    })  # fmt: skip
    part.add(evaluation=part.found.get("evaluation", {}) | {f"{direction}, {precision}": seconds})
    if precision != "bf16":
        part.aim(f"{size}, {direction}, {precision}: seconds", whole, SECONDS, at_most=True)


def against_the_loop(part: Part, direction: str) -> None:
    """Time the scoring of embedded images and captions, and a sample of it as the release works."""
    split = Kept(ONE_K, *((4, WIDTH) if SMOKE else ()))
    model = evaluation.Embedded(direction, WIDTH).to(DEVICE)
    score_matrix(model, split)
    seconds = {"kit": once(lambda: score_matrix(model, split))}
    share = len(split.features) * len(split) / (SAMPLE * SAMPLE * evaluation.CAPTIONS)
    evaluation.loop(model, split, SAMPLE)
    seconds["loop"] = once(lambda: evaluation.loop(model, split, SAMPLE)) * share
    bare = torch.no_grad()(evaluation.floor(model, split, SAMPLE))
    seconds["floor"] = (part.medians({"floor": bare}, 0.2)["floor"] or 0) / 1e3 * share
    part.row("Scoring alone, float32", {
        "images x captions": f"{len(split.features):,} x {len(split):,}", "direction": direction,
        "kit, s": cell(seconds["kit"]), "loop, s (extrapolated)": cell(seconds["loop"]),
        "bare products, s (extrapolated)": cell(seconds["floor"]),
        "loop / kit": cell(seconds["loop"] / seconds["kit"]),
    })  # fmt: skip
    part.add(**{f"scoring_{direction}": seconds, "extrapolated_from_images": SAMPLE})


def kernels(part: Part) -> None:
    """Where the time of a step goes: the ten largest kernels, also as text."""
    warm_up()
    text = [f"The ten largest kernels of a step at the paper's size in tf32, on {CARD}, by torch.profiler\n"]
    for direction in DIRECTIONS:
        whole = training.Step(direction, PAIRS, **OF_STEP)
        alone = step.calls(direction, step.inputs(**SIZES))["kit"]
        for what, call in ((f"{STEP}, {direction}, tf32", alone), (f"{TRAINING}, {direction}, tf32", whole.kit)):
            seen = profiled(products("tf32", DEVICE)(call))
            text.append(f"\n{what}: {seen.launches:,} launches, {seen.milliseconds:.3f} ms\n")
            for name, times, took in seen.largest():
                share = took / max(seen.milliseconds, 1e-9)
                text.append(f"{took:10.3f} ms {share:6.1%} {times:6,} x  {name[:300]}\n")
                row = {"kernel": name[:80], "times": f"{times:,}", "ms": f"{took:.3f}", "share": f"{share:.1%}"}
                part.row(what, row)
            write_text(OUT / "kernels.txt", "".join(text))
            part.say(f"{what}: {seen.launches:,} launches, kernels {seen.milliseconds:.3g} ms.")
