//! Which interface a tunnel goes out of.

use super::Validator;
use crate::config::diagnostic::Diagnostic;
use crate::config::model::Name;
use crate::config::raw::{Field, RawInterface, RawTunnel, RoleName};

/// What tunnels that name no underlay may be given.
pub(super) enum Underlays {
    /// The only one.
    One(Name),
    /// None, or these.
    Several(Vec<Name>),
    /// Some interface's role is not known.
    Unknown,
}

impl Underlays {
    pub fn of(interfaces: &[RawInterface]) -> Self {
        if interfaces.iter().any(|interface| interface.role.given().is_none()) {
            return Self::Unknown;
        }
        let underlay = |interface: &&RawInterface| interface.role.value() == Some(&RoleName::Underlay);
        let names: Vec<Name> =
            interfaces.iter().filter(underlay).map(|interface| interface.name.value.clone()).collect();
        match &names[..] {
            [name] => Self::One(name.clone()),
            _ => Self::Several(names),
        }
    }
}

impl Validator<'_, '_> {
    /// The interface that a tunnel goes out of.
    pub fn underlay(&mut self, raw: &RawTunnel) -> Option<Name> {
        let given = match &raw.underlay {
            Field::Given(given) => given,
            Field::Bad => return None,
            Field::Missing => {
                let label = match &self.underlays {
                    Underlays::One(name) => return Some(name.clone()),
                    Underlays::Unknown => return None,
                    Underlays::Several(names) if names.is_empty() => {
                        "the file has no interface with `role = \"underlay\"`: add one".to_owned()
                    }
                    Underlays::Several(names) => {
                        let some: Vec<&str> = names.iter().take(4).map(|name| &**name).collect();
                        let more = if some.len() < names.len() { ", ..." } else { "" };
                        format!("add `underlay = \"NAME\"`, one of: {}{more}", some.join(", "))
                    }
                };
                return self.missing("tunnel", &raw.name, "underlay", &label);
            }
        };
        match self.interfaces.get(&given.value) {
            None => self.no_interface(given, "add it as one, with `role = \"underlay\"`"),
            Some(interface) => {
                if let Some(role) = interface.role.given().filter(|role| role.value != RoleName::Underlay) {
                    let title = format!("interface {} is not an underlay", given.value);
                    let error =
                        Diagnostic::at(given.span, title, "name an interface with `role = \"underlay\"`");
                    self.report.error(error.also(role.span, "its role"));
                }
            }
        }
        Some(given.value.clone())
    }
}
