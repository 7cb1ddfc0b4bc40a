"""The official code's numbers against ours. `golden.safetensors` holds what the code of OrLichter/lcm-lookahead gave.

How: its U-Nets with the channels 320, 640, 1280 written as 32, 64, 128 (all else as it is: 70 transformer blocks, heads
of 64, text of 2048), its resampler 128 wide, every weight by `tests.official.checkpoint.drawn` from its name in the
authors' checkpoint, float32 on a CPU, one thread. The script that ran it is not here: that code has no licence.
"""
