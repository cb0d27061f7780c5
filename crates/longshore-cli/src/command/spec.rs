//! `longshore spec`: the `config.json` that `run` would use, a bundle with it, or the specification that it is made of.

use std::process::ExitCode;

use longshore::{ContainerId, Error, Sandbox};

use super::args::{DefaultInit, Spec};
use super::plain;
use super::refused::Refused;
use super::status::Failure;

pub(crate) fn spec(arguments: Box<Spec>) -> Result<ExitCode, Failure> {
    // A specification is run with the files that it needs, a configuration without.
    let init = if arguments.json { DefaultInit::Yes } else { DefaultInit::No };
    let spec = arguments.run.spec(init)?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&spec);
        let json = json.map_err(|error| Refused::SecretInJson { why: error.to_string() })?;
        plain::print(plain::json(&json))?;
        return Ok(ExitCode::SUCCESS);
    }
    let id = spec.id.clone().map_or_else(|| ContainerId::new("container"), Ok);
    let id = id.map_err(Error::from)?;
    if let Some(bundle) = &arguments.bundle {
        Sandbox::export(&id, &spec, bundle)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Sandbox::preview(&id, &spec)?;
    plain::print(plain::json(&config))?;
    Ok(ExitCode::SUCCESS)
}
