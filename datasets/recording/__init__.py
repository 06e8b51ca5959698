"""The flight recorder: steps from a control loop, through shared memory, into the store."""
