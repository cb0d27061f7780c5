//! A keeper, with real processes. Each test ends by counting what is left.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod calls;
#[path = "keeper/stage.rs"]
mod stage;

#[path = "keeper/children.rs"]
mod children;
#[path = "keeper/embedder.rs"]
mod embedder;
#[path = "keeper/held.rs"]
mod held;
#[path = "keeper/host.rs"]
mod host;
#[path = "keeper/logs.rs"]
mod logs;
#[path = "keeper/memory.rs"]
mod memory;
#[path = "keeper/start.rs"]
mod start;
#[path = "keeper/strangers.rs"]
mod strangers;
#[path = "keeper/upgrade.rs"]
mod upgrade;
