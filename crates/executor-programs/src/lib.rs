//! The programs that the library carries. `build.rs` builds them as static programs, so that they run in any root file system
//! and from memory. They use the standard library and a few functions of the C library, and nothing else of this workspace. The
//! keeper uses neither. Its protocol, [`wire`] and [`messages`], is compiled into the library as well, for the client.
//!
//! `INIT` and `SUBREAPER` are `None` if no static C library was found when this crate was built.

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

/// The parent of an executor's processes that outlives the embedder: `keeper/main.rs`. `None` on an architecture that it is not
/// written for.
#[cfg(has_keeper)]
pub const KEEPER: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/longshore-keeper")));
/// The parent of an executor's processes that outlives the embedder: `keeper/main.rs`. `None` on an architecture that it is not
/// written for.
#[cfg(not(has_keeper))]
pub const KEEPER: Option<&[u8]> = None;

/// Identifies [`KEEPER`]: a hash of its source, in hexadecimal digits. A keeper says it of itself.
pub const KEEPER_HASH: &str = env!("LONGSHORE_KEEPER_HASH");

#[path = "../keeper/messages.rs"]
pub mod messages;
#[path = "../keeper/wire.rs"]
pub mod wire;
