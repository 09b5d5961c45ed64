//! `[tunnel.NAME]`.

use std::net::IpAddr;

use super::{Validator, segment_of, sorted};
use crate::config::diagnostic::Diagnostic;
use crate::config::fit::misfit;
use crate::config::keys;
use crate::config::model::{Name, Tunnel};
use crate::config::raw::{Field, RawTunnel};
use crate::protocol::{HasId, Protocol};

impl Validator<'_, '_> {
    pub fn tunnel(&mut self, raw: &RawTunnel, underlay: Option<Name>) -> Option<Tunnel> {
        for (key, span) in &raw.keys {
            if let Some(misfit) = misfit(raw, key)
                && !(misfit.lacks && self.report.is_incomplete())
            {
                self.report.error(misfit.at(*span));
            }
        }
        let protocol = self.tunnel_protocol(raw);
        let id = protocol.and_then(|protocol| self.id(raw, protocol));
        let local_id =
            protocol.and_then(|protocol| self.id_in_range(raw, "local_id", &raw.local_id, protocol));
        let service_id = protocol.and_then(|protocol| self.service_id(raw, protocol));
        let inner = match &raw.inner {
            Field::Missing => {
                let label = "add `inner = [\"ADDRESS\"]`, what lives behind the far end";
                self.missing("tunnel", &raw.name, "inner", label)
            }
            field => field.value(),
        };
        let remote = self.remote(raw, protocol);
        let dst_port = protocol.and_then(|protocol| self.dst_port(raw, protocol));
        let (protocol, id, remote) = (protocol?, id?, remote?);
        let has_ipv6 = remote.is_some_and(|remote| remote.is_ipv6());
        let udp_checksum = raw.udp_checksum.value().copied().unwrap_or(has_ipv6);
        Some(Tunnel {
            at: self.locate.line(raw.name.span),
            protocol,
            id,
            local_id: local_id?.filter(|local_id| Some(*local_id) != id),
            service_id: service_id?,
            payload: raw.payload.value().copied().unwrap_or(protocol.payload()),
            segment: segment_of(&raw.segment)?,
            underlay: underlay?,
            remote,
            local: raw.local.value().copied(),
            local_mac: raw.local_mac.value().copied(),
            remote_mac: raw.remote_mac.value().copied(),
            inner: sorted(inner?),
            from: raw.from.value().map(|from| sorted(from)).unwrap_or_default(),
            src_port: raw.src_port.value().copied().unwrap_or_default(),
            dst_port: dst_port?,
            ttl: raw.ttl.value().copied().unwrap_or_default(),
            tos: raw.tos.value().copied().unwrap_or_default(),
            df: raw.df.value().copied().unwrap_or_default(),
            flow_label: raw.flow_label.value().copied().unwrap_or_default(),
            udp_checksum: protocol.has_udp().then_some(udp_checksum),
            pcp: raw.pcp.value().copied().unwrap_or_default(),
            gbp: raw.gbp.value().copied(),
            options: raw.options.value().cloned().unwrap_or_default(),
            checksum: raw.checksum.value().copied().unwrap_or(false),
            sequence: raw.sequence.value().copied().unwrap_or(false),
            variant: raw.variant.value().copied().unwrap_or(0),
            qfi: raw.qfi.value().copied(),
            uplink: raw.uplink.value().copied().unwrap_or(false),
            inner_mac: raw.inner_mac.value().copied(),
            mtu: raw.mtu.value().copied(),
            mss_clamp: raw.mss_clamp.value().copied().unwrap_or(false),
            flood: raw.flood.value().copied().unwrap_or(false),
            redirect: raw.redirect.value().copied().unwrap_or(true),
            debug: raw.debug.value().copied().unwrap_or(false),
        })
    }

    fn tunnel_protocol(&mut self, raw: &RawTunnel) -> Option<Protocol> {
        if raw.protocol.is_missing() {
            let label = format!("add `protocol = \"PROTOCOL\"`: {}", keys::protocols());
            return self.missing("tunnel", &raw.name, "protocol", &label);
        }
        raw.protocol.value().copied()
    }

    /// None: it is missing or wrong.
    fn id(&mut self, raw: &RawTunnel, protocol: Protocol) -> Option<Option<u32>> {
        if raw.id.is_missing() && protocol.has_id() == HasId::Always {
            let label = format!("add `id = NUMBER`, the {}", protocol.id_range().0);
            return self.missing("tunnel", &raw.name, "id", &label);
        }
        self.id_in_range(raw, "id", &raw.id, protocol)
    }

    fn id_in_range(
        &mut self,
        raw: &RawTunnel,
        key: &str,
        id: &Field<i128>,
        protocol: Protocol,
    ) -> Option<Option<u32>> {
        let id = match id {
            Field::Given(id) if keys::has_key(protocol, key) => id,
            Field::Bad => return None,
            _ => return Some(None),
        };
        let (what, min, max) = protocol.id_range();
        if let Ok(value) = u32::try_from(id.value)
            && (min..=max).contains(&value)
        {
            return Some(Some(value));
        }
        let title = if id.value > max.into() && max == 0xff_ffff {
            format!("{what} does not fit in 24 bits")
        } else {
            format!("{what} out of range")
        };
        let error = Diagnostic::at(id.span, title, format!("allowed: {min} to {max}"));
        let label = format!("a {protocol} tunnel, which takes this default");
        self.report.error(if raw.has(key) { error } else { error.also(raw.name.span, label) });
        None
    }

    fn service_id(&mut self, raw: &RawTunnel, protocol: Protocol) -> Option<Option<u32>> {
        match &raw.service_id {
            Field::Missing if protocol == Protocol::Qinq => {
                let label =
                    "add `service_id = NUMBER`, the VLAN id of the outer tag; `id` is the inner one's";
                self.missing("tunnel", &raw.name, "service_id", label)
            }
            Field::Missing => Some(None),
            field => field.value().map(|id| Some(*id)),
        }
    }

    fn remote(&mut self, raw: &RawTunnel, protocol: Option<Protocol>) -> Option<Option<IpAddr>> {
        if raw.remote.is_missing() && protocol.is_some_and(Protocol::has_outer_ip) {
            let label = "add `remote = \"ADDRESS\"`, the far end's outer address";
            return self.missing("tunnel", &raw.name, "remote", label);
        }
        if let (Some(local), Some(remote)) = (raw.local.given(), raw.remote.given())
            && local.value == remote.value
        {
            let title = "`local` and `remote` are one address";
            let error = Diagnostic::at(local.span, title, "write this end's address");
            self.report.error(error.also(remote.span, "the far end's"));
        }
        match &raw.remote {
            Field::Missing => Some(None),
            field => field.value().map(|remote| Some(*remote)),
        }
    }

    /// 0 for protocols without.
    fn dst_port(&mut self, raw: &RawTunnel, protocol: Protocol) -> Option<u16> {
        match (&raw.dst_port, protocol.default_port()) {
            (Field::Missing, None) if protocol.has_udp() => {
                let label =
                    format!("add `dst_port = PORT`, as at the far end: {protocol} has none of its own");
                self.missing("tunnel", &raw.name, "dst_port", &label)
            }
            (Field::Missing, port) => Some(port.unwrap_or(0)),
            (field, _) => field.value().copied(),
        }
    }
}
