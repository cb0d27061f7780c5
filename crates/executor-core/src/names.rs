//! How a container resolves names: its `/etc/hosts` and `/etc/resolv.conf`.

use std::net::IpAddr;
use std::str::FromStr;

use crate::InvalidSpec;
use crate::spec::{host_name, invalid};
use serde::{Deserialize, Serialize};

/// A line of the `/etc/hosts` of a container, in addition to those of localhost and of its own name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

impl ExtraHost {
    pub(crate) fn validate(&self) -> Result<(), InvalidSpec> {
        host_name(&self.name).map_err(|error| InvalidSpec::new("extra host", error.why))
    }
}

impl FromStr for ExtraHost {
    type Err = InvalidSpec;

    /// Reads `NAME:ADDRESS`; an IPv6 address may stand in brackets.
    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let form = || invalid("extra host", format!("{text:?}: give NAME:ADDRESS, as in db:10.0.0.7"));
        let (name, address) = text.split_once(':').ok_or_else(form)?;
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let host = Self { name: name.to_owned(), address: address.parse().map_err(|_| form())? };
        host.validate().map(|()| host)
    }
}

/// How a container resolves names. Empty lists have the values of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// The addresses of name servers.
    pub nameservers: Vec<IpAddr>,
    /// The domains in which short names are searched.
    pub search: Vec<String>,
    /// Options of its resolver, as in resolv.conf(5).
    pub options: Vec<String>,
}

impl Dns {
    pub(crate) fn validate(&self) -> Result<(), InvalidSpec> {
        let not_in_a_word = |c: char| c.is_whitespace() || c.is_control();
        let words = self.search.iter().chain(&self.options);
        match words.into_iter().find(|word| word.is_empty() || word.contains(not_in_a_word)) {
            Some(word) => Err(invalid("dns", format!("{word:?} is not one word"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_are_read() {
        for (text, address) in [("db:10.0.0.7", "10.0.0.7"), ("db:::1", "::1"), ("db:[fd00::1]", "fd00::1")] {
            let host: ExtraHost = text.parse().unwrap();
            assert_eq!((host.name.as_str(), host.address.to_string().as_str()), ("db", address));
        }
        for bad in ["", "db", "db:", ":1.2.3.4", "a b:1.2.3.4", "db:host"] {
            assert!(bad.parse::<ExtraHost>().is_err(), "{bad:?} was taken");
        }
    }
}
