//! mptm on two nodes, as an operator runs it, against itself, the kernel and Open vSwitch. Needs root, `ip`, `nsenter`,
//! `ethtool`, `sysctl` and `ping`; some tests need more, and say so when they are skipped.

#[path = "../common/world.rs"]
mod world;

mod capture;
mod groups;
mod kernel_end;
mod mesh;
mod site;
mod traffic;

mod decode;
mod devices;
mod fields;
mod flood;
mod kernel;
mod matrix;
mod neighbours;
mod outer;
mod ovs;
mod pmtu;
mod protocols;
mod scapy;
mod strict;
mod workloads;
