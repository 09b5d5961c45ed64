//! From the tree of one text to the raw tables: which tables and keys there are, and which reader has which key.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Report, Span};
use super::keys;
use super::model::Name;
use super::raw::{At, Raw, RawInterface, RawTunnel};
use super::value::{Reader, short};

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

/// A key's name and what reads it.
type Key<T> = (&'static str, for<'a, 'i> fn(&mut T, &mut Reader<'_>, Value<'a, 'i>));

/// The keys of `[interface.NAME]`, in the order in which they are listed.
const INTERFACE: [Key<RawInterface>; 10] = [
    ("role", |interface, read, value| interface.role = read.role(value).into()),
    ("mode", |interface, read, value| interface.mode = read.mode(value).into()),
    ("dispatcher", |interface, read, value| {
        interface.dispatcher = read.boolean("dispatcher", value).into();
    }),
    ("segment", |interface, read, value| interface.segment = read.segment(value).into()),
    ("addresses", |interface, read, value| interface.addresses = read.addresses(value).into()),
    ("mac", |interface, read, value| interface.mac = read.mac("mac", value).into()),
    ("gateway", |interface, read, value| interface.gateway = read.gateway(value).into()),
    ("to", |interface, read, value| interface.to = read.reference("to", value).into()),
    ("peer", |interface, read, value| interface.peer = read.peer(value).into()),
    ("manage", |interface, read, value| interface.manage = read.manage(value).into()),
];

/// The keys of `[tunnel.NAME]` and `[defaults]`.
const TUNNEL: [Key<RawTunnel>; 34] = [
    ("protocol", |tunnel, read, value| tunnel.protocol = read.protocol(value).into()),
    ("id", |tunnel, read, value| tunnel.id = read.integer("id", value).into()),
    ("local_id", |tunnel, read, value| tunnel.local_id = read.integer("local_id", value).into()),
    ("service_id", |tunnel, read, value| tunnel.service_id = read.service_id(value).into()),
    ("payload", |tunnel, read, value| tunnel.payload = read.payload(value).into()),
    ("segment", |tunnel, read, value| tunnel.segment = read.segment(value).into()),
    ("underlay", |tunnel, read, value| tunnel.underlay = read.reference("underlay", value).into()),
    ("remote", |tunnel, read, value| tunnel.remote = read.outer_address("remote", value).into()),
    ("local", |tunnel, read, value| tunnel.local = read.outer_address("local", value).into()),
    ("local_mac", |tunnel, read, value| tunnel.local_mac = read.mac("local_mac", value).into()),
    ("remote_mac", |tunnel, read, value| tunnel.remote_mac = read.mac("remote_mac", value).into()),
    ("inner", |tunnel, read, value| tunnel.inner = read.prefixes("inner", value).into()),
    ("from", |tunnel, read, value| tunnel.from = read.prefixes("from", value).into()),
    ("src_port", |tunnel, read, value| tunnel.src_port = read.src_port(value).into()),
    ("dst_port", |tunnel, read, value| tunnel.dst_port = read.port("dst_port", value).into()),
    ("ttl", |tunnel, read, value| tunnel.ttl = read.ttl(value).into()),
    ("tos", |tunnel, read, value| tunnel.tos = read.tos(value).into()),
    ("df", |tunnel, read, value| tunnel.df = read.df(value).into()),
    ("flow_label", |tunnel, read, value| tunnel.flow_label = read.flow_label(value).into()),
    ("udp_checksum", |tunnel, read, value| tunnel.udp_checksum = read.boolean("udp_checksum", value).into()),
    ("pcp", |tunnel, read, value| tunnel.pcp = read.pcp(value).into()),
    ("gbp", |tunnel, read, value| tunnel.gbp = read.small("gbp", value, (0, 65535)).into()),
    ("options", |tunnel, read, value| tunnel.options = read.options(value).into()),
    ("checksum", |tunnel, read, value| tunnel.checksum = read.boolean("checksum", value).into()),
    ("sequence", |tunnel, read, value| tunnel.sequence = read.boolean("sequence", value).into()),
    ("variant", |tunnel, read, value| tunnel.variant = read.small("variant", value, (0, 1)).into()),
    ("qfi", |tunnel, read, value| tunnel.qfi = read.small("qfi", value, (0, 63)).into()),
    ("uplink", |tunnel, read, value| tunnel.uplink = read.boolean("uplink", value).into()),
    ("inner_mac", |tunnel, read, value| tunnel.inner_mac = read.mac("inner_mac", value).into()),
    ("mtu", |tunnel, read, value| tunnel.mtu = read.mtu(value).into()),
    ("mss_clamp", |tunnel, read, value| tunnel.mss_clamp = read.boolean("mss_clamp", value).into()),
    ("flood", |tunnel, read, value| tunnel.flood = read.boolean("flood", value).into()),
    ("redirect", |tunnel, read, value| tunnel.redirect = read.boolean("redirect", value).into()),
    ("debug", |tunnel, read, value| tunnel.debug = read.boolean("debug", value).into()),
];

/// The keys of `[interface.NAME]`.
pub fn interface_keys() -> [&'static str; INTERFACE.len()] {
    INTERFACE.map(|(name, _)| name)
}

/// The keys of `[tunnel.NAME]` and of `[defaults]`.
pub fn tunnel_keys() -> [&'static str; TUNNEL.len()] {
    TUNNEL.map(|(name, _)| name)
}

impl Raw {
    /// Adds what one text says.
    pub fn read(&mut self, file: usize, root: &DeTable<'_>, report: &mut Report) {
        let mut read = Reader { file, report };
        for (key, value) in root {
            let span = Span::new(file, key.span());
            match key.get_ref().as_ref() {
                "interface" => read.named("interface", value, |read, name, table| {
                    let mut interface = RawInterface::new(name);
                    let owner = format!("interface {}", interface.name.value);
                    let others = ("tunnels", &tunnel_keys()[..]);
                    interface.keys = read.keys(&mut interface, table, &INTERFACE, &owner, others);
                    self.interfaces.push(interface);
                }),
                "tunnel" => {
                    // There may be thousands, and to grow the list means to copy them.
                    self.tunnels.reserve(value.get_ref().as_table().map_or(0, DeTable::len));
                    read.named("tunnel", value, |read, name, table| {
                        let mut tunnel = RawTunnel::new(name);
                        let owner = format!("tunnel {}", tunnel.name.value);
                        let others = ("interfaces", &interface_keys()[..]);
                        tunnel.keys = read.keys(&mut tunnel, table, &TUNNEL, &owner, others);
                        self.tunnels.push(tunnel);
                    })
                }
                "defaults" => self.read_defaults(&mut read, span, value),
                other => read.report.error(unknown_table(span, other, value.get_ref())),
            }
        }
    }

    fn read_defaults(&mut self, read: &mut Reader<'_>, span: Span, value: Value<'_, '_>) {
        let DeValue::Table(table) = value.get_ref() else {
            let title = "`defaults` is a table";
            read.report.error(Diagnostic::at(
                span,
                title,
                "write [defaults], and its keys on the lines below",
            ));
            return;
        };
        let mut defaults = RawTunnel::new(At { value: "defaults".into(), span });
        let others = ("interfaces; defaults are for tunnels", &interface_keys()[..]);
        defaults.keys = read.keys(&mut defaults, table, &TUNNEL, "[defaults]", others);
        match &self.defaults {
            Some(first) => read.report.error(
                Diagnostic::at(span, "[defaults] is in two files", "put all defaults into one of them")
                    .also(first.name.span, "first here"),
            ),
            None => self.defaults = Some(defaults),
        }
    }
}

impl Reader<'_> {
    /// The tables of `[interface.NAME]` or `[tunnel.NAME]`.
    fn named(
        &mut self,
        kind: &str,
        value: Value<'_, '_>,
        mut add: impl FnMut(&mut Self, At<Name>, &DeTable<'_>),
    ) {
        let label = format!("write [{kind}.NAME], and its keys on the lines below");
        let DeValue::Table(tables) = value.get_ref() else {
            let span = Span::new(self.file, value.span());
            self.report.error(Diagnostic::at(span, format!("each {kind} needs a name"), label));
            return;
        };
        for (key, value) in tables {
            let span = Span::new(self.file, key.span());
            match value.get_ref() {
                DeValue::Table(table) => {
                    if self.is_name(kind, span, key) {
                        add(self, At { value: Arc::from(key.get_ref().as_ref()), span }, table);
                    }
                }
                _ => {
                    let title = format!("key `{}` stands outside of any {kind}", short(key.get_ref()));
                    self.report.error(Diagnostic::at(span, title, label.clone()));
                }
            }
        }
    }

    fn is_name(&mut self, kind: &str, span: Span, key: &Spanned<DeString<'_>>) -> bool {
        if kind == "interface" {
            self.is_interface_name(span, key.get_ref())
        } else {
            self.is_own_name(kind, span, key.get_ref())
        }
    }

    /// Reads each key of a table with what reads it; the result is where each stands.
    fn keys<T>(
        &mut self,
        target: &mut T,
        table: &DeTable<'_>,
        known: &[Key<T>],
        owner: &str,
        others: (&str, &[&str]),
    ) -> Vec<(&'static str, Span)> {
        let mut found = Vec::with_capacity(table.len());
        for (key, value) in table {
            let span = Span::new(self.file, key.span());
            match known.iter().find(|(name, _)| name == key.get_ref()) {
                Some((name, read)) => {
                    found.push((*name, span));
                    read(target, self, value);
                }
                None => {
                    let own: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                    // No key has a table but `peer`: [interface.eth0.100] was to be a name with a dot in it.
                    if matches!(value.get_ref(), DeValue::Table(inner) if inner.keys().any(|key| {
                        known.iter().any(|(name, _)| name == key.get_ref())
                    })) && let Some((kind, name)) = owner.split_once(' ')
                    {
                        let title = format!("{owner} has no key `{}`", short(key.get_ref()));
                        let label = format!(
                            "a name with dots is in quotes: [{kind}.\"{name}.{}\"]",
                            short(key.get_ref())
                        );
                        self.report.error(Diagnostic::at(span, title, label));
                        continue;
                    }
                    self.report.error(keys::bad_key(span, key.get_ref(), owner, &own, others));
                }
            }
        }
        found
    }
}

fn unknown_table(span: Span, name: &str, value: &DeValue<'_>) -> Diagnostic {
    if matches!(value, DeValue::Table(_) | DeValue::Array(_)) {
        return keys::unknown(
            span,
            &format!("unknown table `{}`", short(name)),
            name,
            &["interface", "tunnel", "defaults"],
        );
    }
    let title = format!("key `{}` stands outside of any table", short(name));
    Diagnostic::at(span, title, "put it below [interface.NAME], [tunnel.NAME] or [defaults]")
}
