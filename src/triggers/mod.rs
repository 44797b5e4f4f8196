//! What starts handlers: the one-second wake-up, the planner of slots, and the intake of callbacks.
