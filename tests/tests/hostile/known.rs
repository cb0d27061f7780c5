//! Kinds of known vulnerabilities, replayed. `docs/security.md` has the table.
