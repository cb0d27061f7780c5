//! `longshore spec`: the `config.json` that `run` would use.

use std::io::{self, Write};
use std::process::ExitCode;

use longshore::{ContainerId, Sandbox};

use super::args::Container;
use super::status::Failure;

pub(crate) fn spec(arguments: Box<Container>) -> Result<ExitCode, Failure> {
    let spec = arguments.spec().map_err(longshore::Error::from)?;
    spec.validate().map_err(longshore::Error::from)?;
    let id = spec.id.clone().map_or_else(|| ContainerId::new("container"), Ok);
    let id = id.map_err(|error| Failure::new(error.to_string(), "choose another --id"))?;
    let config = Sandbox::preview(&id, &spec)?;
    let _reader_gone = writeln!(io::stdout(), "{config}");
    Ok(ExitCode::SUCCESS)
}
