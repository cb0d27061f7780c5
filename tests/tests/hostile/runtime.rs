//! What a container can do to the runtime that starts it, and to the streams of the command.
