"""Which states, in which order, in which process: recording runs, finding crash states, running recoveries in forked workers."""
