//! Values of tunnel keys that have several forms.

use std::fmt::Write as _;

use super::quoted;
use crate::config::model::{FlowLabel, GeneveOption, Pcp, SourcePort, Tos, Ttl};

pub fn src_port(port: SourcePort) -> String {
    match port {
        SourcePort::Flow => quoted("flow"),
        SourcePort::Range(min, max) => quoted(format!("{min}-{max}")),
        SourcePort::Fixed(port) => port.to_string(),
    }
}

pub fn ttl(ttl: Ttl) -> String {
    match ttl {
        Ttl::Fixed(ttl) => ttl.to_string(),
        Ttl::Inherit => quoted("inherit"),
    }
}

pub fn tos(tos: Tos) -> String {
    match tos {
        Tos::Fixed(tos) => tos.to_string(),
        Tos::Inherit => quoted("inherit"),
    }
}

pub fn flow_label(label: FlowLabel) -> String {
    match label {
        FlowLabel::Flow => quoted("flow"),
        FlowLabel::Inherit => quoted("inherit"),
        FlowLabel::Fixed(label) => format!("{label:#x}"),
    }
}

pub fn pcp(pcp: Pcp) -> String {
    match pcp {
        Pcp::Fixed(pcp) => pcp.to_string(),
        Pcp::Inherit => quoted("inherit"),
    }
}

pub fn option(option: &GeneveOption) -> String {
    let GeneveOption { class, kind, data } = option;
    let mut hex = String::with_capacity(2 * data.len());
    data.iter().for_each(|byte| _ = write!(hex, "{byte:02x}"));
    format!("{{ class = {class:#06x}, type = {kind:#04x}, data = {} }}", quoted(hex))
}
