//! The programs that the library carries. `build.rs` builds them as static programs, so that they run in any root file system
//! and from memory. They use the standard library and a few functions of the C library, and nothing else of this workspace.
//!
//! Each is `None` if no static C library was found when this crate was built.

/// The process 1 of a container that asks for one: `init/main.rs`.
#[cfg(has_static_programs)]
pub const INIT: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/longshore-init")));
/// The process 1 of a container that asks for one: `init/main.rs`.
#[cfg(not(has_static_programs))]
pub const INIT: Option<&[u8]> = None;

/// The parent of a runtime's call, where the embedder's process cannot be it: `subreaper/main.rs`.
#[cfg(has_static_programs)]
pub const SUBREAPER: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/longshore-subreaper")));
/// The parent of a runtime's call, where the embedder's process cannot be it: `subreaper/main.rs`.
#[cfg(not(has_static_programs))]
pub const SUBREAPER: Option<&[u8]> = None;
