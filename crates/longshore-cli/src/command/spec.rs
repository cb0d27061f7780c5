//! `longshore spec`: the `config.json` that `run` would use, a bundle with it, or the specification that it is made of.

use std::io::{self, Write};
use std::process::ExitCode;

use longshore::{ContainerId, Sandbox};

use super::args::Spec;
use super::plain;
use super::status::Failure;

pub(crate) fn spec(arguments: Box<Spec>) -> Result<ExitCode, Failure> {
    let spec = arguments.run.spec()?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&spec);
        let json = json.map_err(|error| Failure::new(error.to_string(), "leave out --secret"))?;
        let _reader_gone = writeln!(io::stdout(), "{}", plain::json(&json));
        return Ok(ExitCode::SUCCESS);
    }
    let id = spec.id.clone().map_or_else(|| ContainerId::new("container"), Ok);
    let id = id.map_err(|error| Failure::new(error.to_string(), "choose another --id"))?;
    if let Some(bundle) = &arguments.bundle {
        Sandbox::export(&id, &spec, bundle)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Sandbox::preview(&id, &spec)?;
    let _reader_gone = writeln!(io::stdout(), "{}", plain::json(&config));
    Ok(ExitCode::SUCCESS)
}
