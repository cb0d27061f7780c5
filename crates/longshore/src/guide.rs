//! The guide: how to use Longshore, one subject a module.
//!
//! | module | answers |
//! |---|---|
//! | [`concepts`] | What are executors, containers, execs and ids? Which states does a container have, and where can I hold it? |
//! | [`streams`] | How do I read output and write input? What can hang? |
//! | [`cancel`] | How do I end a process, and what happens to the signal? How do I shut down? |
//! | [`exits`] | How did it end, and why? How do I learn of it? |
//! | [`testing`] | How do I test code that uses Longshore, without root? |
//! | [`ci_agent`] | A recipe: the steps of a CI job in one container |
//! | [`scheduler`] | A recipe: an actix actor that runs jobs, a few at a time |
//! | [`build_step`] | A recipe: mounts, secrets, limits, and containers that are kept ready |
//!
//! Every Rust block is complete: it compiles and runs as it is, in a crate that depends on `longshore` alone, with the
//! feature `sim`. The blocks run on the simulator, `longshore::sim`, so that they need neither root nor a runtime. On a real
//! runtime, the executor comes from [`Executor::builder`](crate::Executor::builder), and the rest stays the same.

#[doc = include_str!("guide/build_step.md")]
pub mod build_step {}
#[doc = include_str!("guide/cancel.md")]
pub mod cancel {}
#[doc = include_str!("guide/ci_agent.md")]
pub mod ci_agent {}
#[doc = include_str!("guide/concepts.md")]
pub mod concepts {}
#[doc = include_str!("guide/exits.md")]
pub mod exits {}
#[doc = include_str!("guide/scheduler.md")]
pub mod scheduler {}
#[doc = include_str!("guide/streams.md")]
pub mod streams {}
#[doc = include_str!("guide/testing.md")]
pub mod testing {}
