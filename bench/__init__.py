"""The benchmarks: what each stage costs on this machine, measured in one run and printed, never asserted."""
