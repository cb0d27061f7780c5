//! Other users of the host, and directories that somebody else has prepared.
