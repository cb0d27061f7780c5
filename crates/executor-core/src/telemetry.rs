//! Where the programs in a container send traces.

use std::path::PathBuf;

use crate::InvalidSpec;
use crate::spec::{absolute, invalid};
use serde::{Deserialize, Serialize};

/// Where the processes of a container send traces, and which span is their parent. Variables that a process sets
/// itself are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// A socket of the host that accepts OTLP (gRPC). It is bound into the container, and the `OTEL_*` variables of
    /// the OpenTelemetry specification name it.
    pub socket: Option<PathBuf>,
    /// The parent of the spans of the program, as `TRACEPARENT`; see W3C Trace Context.
    pub traceparent: Option<String>,
    /// The state that belongs to `traceparent`, as `TRACESTATE`.
    pub tracestate: Option<String>,
}

impl Telemetry {
    pub(crate) fn validate(&self) -> Result<(), InvalidSpec> {
        self.socket.as_deref().map_or(Ok(()), |socket| absolute("tracing socket", socket))?;
        if let Some(parent) = &self.traceparent {
            let fields: Vec<_> = parent.split('-').collect();
            let hex = |field: &str, length| {
                field.len() == length
                    && field.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            };
            let right = matches!(fields.as_slice(), [version, trace, span, flags]
                if hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2));
            if !right {
                return Err(invalid("traceparent", format!("{parent:?}: give VERSION-TRACE-SPAN-FLAGS")));
            }
        }
        match self.tracestate.as_deref().filter(|state| state.contains(char::is_control)) {
            Some(state) => Err(invalid("tracestate", format!("{state:?} is no header's value"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_has_the_form_of_the_specification() {
        let field = |parent: &str| {
            let telemetry = Telemetry { traceparent: Some(parent.into()), ..Telemetry::default() };
            telemetry.validate().err().map(|error| error.field)
        };
        assert_eq!(field("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), None);
        for bad in ["", "00-1-2-3", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "x"] {
            assert_eq!(field(bad), Some("traceparent"), "{bad:?}");
        }
    }
}
