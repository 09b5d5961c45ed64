//! `[defaults]`.

use super::keys;
use super::raw::RawTunnel;

/// Puts a default for each key that a tunnel leaves out. The protocol first: the others depend on it.
pub(super) fn apply(tunnel: &mut RawTunnel, defaults: &RawTunnel) {
    tunnel.protocol.or(&defaults.protocol);
    let protocol = tunnel.protocol.value().copied();
    let has = |key| protocol.is_none_or(|protocol| keys::has_key(protocol, key));
    let RawTunnel {
        name: _,
        keys: _,
        protocol: _,
        id,
        segment,
        underlay,
        remote,
        local,
        local_mac,
        remote_mac,
        inner,
        from,
        src_port,
        dst_port,
        inner_mac,
        mtu,
        redirect,
        debug,
    } = tunnel;
    id.or(&defaults.id);
    segment.or(&defaults.segment);
    underlay.or(&defaults.underlay);
    if has("remote") {
        remote.or(&defaults.remote);
    }
    if has("local") {
        local.or(&defaults.local);
    }
    local_mac.or(&defaults.local_mac);
    remote_mac.or(&defaults.remote_mac);
    inner.or(&defaults.inner);
    from.or(&defaults.from);
    if has("src_port") {
        src_port.or(&defaults.src_port);
    }
    if has("dst_port") {
        dst_port.or(&defaults.dst_port);
    }
    inner_mac.or(&defaults.inner_mac);
    mtu.or(&defaults.mtu);
    if has("redirect") {
        redirect.or(&defaults.redirect);
    }
    debug.or(&defaults.debug);
}
