//! `[defaults]`.

use super::fit::misfit;
use super::raw::{Field, RawTunnel};

/// Takes the default for each key in this order, and does not compile if one is forgotten.
macro_rules! take {
    ($tunnel:ident, $defaults:ident: $($key:ident)+) => {
        let RawTunnel { name: _, keys: _, $($key),+ } = $defaults;
        $(take($tunnel, stringify!($key), |tunnel| &mut tunnel.$key, $key);)+
    };
}

/// Puts a default for each key that a tunnel leaves out, and that goes with what it has.
pub(super) fn apply(tunnel: &mut RawTunnel, defaults: &RawTunnel) {
    // First those that others depend on.
    take!(tunnel, defaults:
        protocol remote payload id qfi
        local_id service_id segment underlay local local_mac remote_mac inner from src_port dst_port ttl tos df
        flow_label udp_checksum pcp gbp options checksum sequence variant uplink inner_mac mtu mss_clamp flood
        redirect debug
    );
}

fn take<T: Clone>(
    tunnel: &mut RawTunnel,
    key: &str,
    field: fn(&mut RawTunnel) -> &mut Field<T>,
    default: &Field<T>,
) {
    if field(tunnel).is_missing() && !default.is_missing() {
        field(tunnel).clone_from(default);
        if misfit(tunnel, key).is_some() {
            *field(tunnel) = Field::Missing;
        }
    }
}
