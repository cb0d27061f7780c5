//! The subcommands, and what they share.

pub(crate) mod args;
pub(crate) mod background;
pub(crate) mod cid_file;
pub(crate) mod doctor;
pub(crate) mod ending;
pub(crate) mod events;
pub(crate) mod faults;
pub(crate) mod hints;
pub(crate) mod job;
pub(crate) mod log;
#[cfg(test)]
mod messages;
pub(crate) mod ordinary;
pub(crate) mod output_file;
pub(crate) mod pages;
pub(crate) mod plain;
pub(crate) mod refused;
pub(crate) mod relay;
pub(crate) mod remark;
pub(crate) mod run;
pub(crate) mod shortage;
pub(crate) mod signals;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod sweep;
pub(crate) mod terminal;
pub(crate) mod trace;
pub(crate) mod unopened;
pub(crate) mod words;
