"""What training SCAN costs on Flickr30K and MSCOCO: disk exactly, arithmetic by counting, hours as an estimate.

Counted per step of 128 pairs, a multiply-add as two operations, backward as twice forward: the image encoder, the GRU,
and the one large product of the cross attention. `python benchmarks/cost.py [--tflops 10]`
"""

import argparse

BATCH, REGIONS, WORDS, FEATURES, WIDTH, WORD_DIM = 128, 36, 14, 2048, 1024, 300
DATA = {  # name: train images, dev and test images, epochs
    "Flickr30K": (29_000, 2_014, 30),
    "MSCOCO": (113_287, 10_000, 20),
}


def step_operations() -> float:
    """Floating point operations of one training step."""
    images = BATCH * REGIONS * FEATURES * WIDTH
    gru = 2 * BATCH * WORDS * 3 * WIDTH * (WORD_DIM + WIDTH)
    attention = (BATCH * REGIONS) * (BATCH * WORDS) * WIDTH
    return 3 * 2.0 * (images + gru + attention)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tflops", type=float, default=10.0, help="arithmetic that the device sustains, in TFLOP/s")
    tflops = parser.parse_args().tflops
    print(f"one step: {step_operations() / 1e9:.0f} GFLOP; hours are an estimate for {tflops:g} TFLOP/s sustained")
    for name, (train, held_out, epochs) in DATA.items():
        disk = (train + held_out) * REGIONS * FEATURES * 4 / 1e9
        steps = epochs * train * 5 // BATCH
        hours = steps * step_operations() / tflops / 1e12 / 3600
        print(f"{name}: {disk:.1f} GB of float32 features, {steps:,} steps in {epochs} epochs, {hours:.1f} h")


if __name__ == "__main__":
    main()
