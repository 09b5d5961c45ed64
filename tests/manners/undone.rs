//! The real kernel, with every change in turn refused, before it is made or after it: all is as it was.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::thread;

use ipnet::IpNet;
use mptm::apply::apply;
use mptm::config::model::Mode;
use mptm::kernel::dispatcher::Dispatcher;
use mptm::kernel::linux::{BpfDataPlane, LinuxNetwork};
use mptm::kernel::{
    Build, DataPlane, Each, Feature, KernelError, Link, Map, Netns, Network, PinnedLink, Program, Route,
    Setting, Sizes, Via,
};
use mptm::mac::MacAddr;
use mptm::plan::plan;
use mptm::resolve::{Neighbours, resolve};
use mptm::state::State;
use mptm::store;
use nix::sched::{CloneFlags, setns};

use crate::lab::{self, Lab};
use crate::snapshot::{Machine, poke_meta};

/// Which change is refused.
#[derive(Clone)]
struct Refusal {
    /// Counts down to it.
    left: Rc<Cell<u32>>,
    /// It is made all the same.
    late: bool,
}

impl Refusal {
    fn pass<T>(&self, change: impl FnOnce() -> Result<T, KernelError>) -> Result<T, KernelError> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left != 1 {
            return change();
        }
        if self.late {
            change()?;
        }
        Err(KernelError::plain("refused"))
    }
}

struct Refusing<T> {
    inner: T,
    refusal: Refusal,
}

type Result_<T> = Result<T, KernelError>;

impl DataPlane for Refusing<BpfDataPlane> {
    fn pin_dir(&self) -> &Path {
        self.inner.pin_dir()
    }
    fn build(&self) -> Build {
        self.inner.build()
    }
    fn possible_cpus(&self) -> Result_<u32> {
        self.inner.possible_cpus()
    }
    fn online_cpus(&self) -> Result_<BTreeSet<u32>> {
        self.inner.online_cpus()
    }
    fn meta(&self) -> Result_<Option<Vec<u8>>> {
        self.inner.meta()
    }
    // Making and replacing a data plane is all or nothing by itself: it is never half done.
    fn sizes(&self) -> Result_<Sizes> {
        self.inner.sizes()
    }
    fn create(&mut self, meta: &[u8], sizes: &Sizes) -> Result_<()> {
        Refusal { late: false, ..self.refusal.clone() }.pass(|| self.inner.create(meta, sizes))
    }
    fn settle(&mut self) -> Result_<()> {
        let settled = Refusal { late: false, ..self.refusal.clone() }.pass(|| self.inner.settle());
        // What is not settled is not there.
        settled.inspect_err(|_| drop(self.inner.destroy()))
    }
    fn resize(&mut self, meta: &[u8], sizes: &Sizes) -> Result_<()> {
        Refusal { late: false, ..self.refusal.clone() }.pass(|| self.inner.resize(meta, sizes))
    }
    fn can_restore(&self) -> bool {
        self.inner.can_restore()
    }
    fn replace_programs(&mut self, meta: &[u8]) -> Result_<()> {
        Refusal { late: false, ..self.refusal.clone() }.pass(|| self.inner.replace_programs(meta))
    }
    fn restore_programs(&mut self, meta: &[u8]) -> Result_<()> {
        self.refusal.pass(|| self.inner.restore_programs(meta))
    }
    fn migrate(&mut self, meta: &[u8], sizes: &Sizes) -> Result_<()> {
        Refusal { late: false, ..self.refusal.clone() }.pass(|| self.inner.migrate(meta, sizes))
    }
    fn restore_link(&mut self, name: &str, program: Program) -> Result_<bool> {
        self.refusal.pass(|| self.inner.restore_link(name, program))
    }
    fn update_flood(&mut self, name: &str) -> Result_<()> {
        self.refusal.pass(|| self.inner.update_flood(name))
    }
    fn destroy(&mut self) -> Result_<()> {
        Refusal { late: false, ..self.refusal.clone() }.pass(|| self.inner.destroy())
    }
    fn each_entry(&self, map: Map, each: Each<'_>) -> Result_<()> {
        self.inner.each_entry(map, each)
    }
    fn get(&self, map: Map, key: &[u8]) -> Result_<Option<Vec<u8>>> {
        self.inner.get(map, key)
    }
    fn get_per_cpu(&self, map: Map, key: &[u8]) -> Result_<Vec<Vec<u8>>> {
        self.inner.get_per_cpu(map, key)
    }
    fn put(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result_<()> {
        self.refusal.pass(|| self.inner.put(map, key, value))
    }
    fn put_per_cpu(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result_<()> {
        self.refusal.pass(|| self.inner.put_per_cpu(map, key, value))
    }
    fn delete(&mut self, map: Map, key: &[u8]) -> Result_<()> {
        self.refusal.pass(|| self.inner.delete(map, key))
    }
    fn links(&self) -> Result_<BTreeMap<String, PinnedLink>> {
        self.inner.links()
    }
    fn attach(&mut self, name: &str, program: Program, ifindex: u32, mode: Mode, via: Via) -> Result_<()> {
        self.refusal.pass(|| self.inner.attach(name, program, ifindex, mode, via))
    }
    fn dispatcher(&self, ifindex: u32) -> Result_<Option<Dispatcher>> {
        self.inner.dispatcher(ifindex)
    }
    fn update_link(&mut self, name: &str, program: Program) -> Result_<()> {
        self.refusal.pass(|| self.inner.update_link(name, program))
    }
    fn detach(&mut self, name: &str) -> Result_<()> {
        self.refusal.pass(|| self.inner.detach(name))
    }
    fn flood_links(&self) -> Result_<BTreeMap<String, PinnedLink>> {
        self.inner.flood_links()
    }
    fn attach_flood(&mut self, name: &str, ifindex: u32) -> Result_<()> {
        self.refusal.pass(|| self.inner.attach_flood(name, ifindex))
    }
    fn detach_flood(&mut self, name: &str) -> Result_<()> {
        self.refusal.pass(|| self.inner.detach_flood(name))
    }
    fn program_name(&self, id: u32) -> Result_<String> {
        self.inner.program_name(id)
    }
}

impl Network for Refusing<LinuxNetwork> {
    fn links(&self) -> Result_<Vec<Link>> {
        self.inner.links()
    }
    fn link(&self, netns: &Netns, name: &str) -> Result_<Option<Link>> {
        self.inner.link(netns, name)
    }
    fn link_at(&self, netns: &Netns, ifindex: u32) -> Result_<Option<Link>> {
        self.inner.link_at(netns, ifindex)
    }
    fn addresses(&self, netns: &Netns, ifindex: u32) -> Result_<Vec<IpNet>> {
        self.inner.addresses(netns, ifindex)
    }
    fn find_peer(&self, link: &Link) -> Result_<Option<(Netns, Link)>> {
        self.inner.find_peer(link)
    }
    fn route(&self, to: IpAddr, from: Option<IpAddr>, ifindex: u32) -> Result_<Option<Route>> {
        self.inner.route(to, from, ifindex)
    }
    fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result_<Option<MacAddr>> {
        self.inner.neighbour(ifindex, address)
    }
    fn solicit(&self, neighbours: &[(u32, IpAddr)]) -> Result_<()> {
        self.inner.solicit(neighbours)
    }
    fn features(&self, netns: &Netns, device: &str) -> Result_<BTreeMap<String, Feature>> {
        self.inner.features(netns, device)
    }
    fn setting(&self, netns: &Netns, device: &str, setting: &Setting) -> Result_<u64> {
        self.inner.setting(netns, device, setting)
    }
    fn set(&mut self, netns: &Netns, device: &str, setting: &Setting, value: u64) -> Result_<()> {
        self.refusal.pass(|| self.inner.set(netns, device, setting, value))
    }
    fn netns_cookie(&self, netns: &Netns) -> Result_<u64> {
        self.inner.netns_cookie(netns)
    }
    fn find_netns(&self, cookie: u64) -> Result_<Option<Netns>> {
        self.inner.find_netns(cookie)
    }
}

/// Differs from the plain file in tunnels, routes, pairs, segments, ports, settings, and the way to the host's stack.
fn other_file(lab: &Lab) -> String {
    lab.a.plain_file().replace("id = 42", "id = 43")
        + "mtu = 1400\n[tunnel.more]\nprotocol = \"vxlan\"\nid = 7\nremote = \"10.30.30.2\"\nredirect = false\nflood = true\n\
           inner = [\"10.252.0.0/16\", \"10.253.0.1\"]\n[tunnel.pair]\nprotocol = \"gre\"\nremote = \"10.30.30.2\"\n\
           from = [\"10.250.1.1\"]\ninner = [\"10.252.0.1\"]\n"
}

/// The plain file, and more tunnels than there is room for at first.
fn many_tunnels(lab: &Lab) -> String {
    let tunnel = |id| {
        format!(
            "[tunnel.t{id}]\nprotocol = \"vxlan\"\nid = {id}\nremote = \"10.30.30.2\"\ninner = [\"10.9.{}.{}\"]\n",
            id >> 8,
            id & 255
        )
    };
    lab.a.plain_file() + &(0..300).map(tunnel).collect::<String>()
}

/// Applies a text with the change `number` refused; whether it was, and so nothing was changed.
fn refuse(lab: &Lab, text: &str, number: u32, late: bool) -> bool {
    let refusal = Refusal { left: Rc::new(Cell::new(number)), late };
    let mut bpf = Refusing { inner: BpfDataPlane::new(&lab.a.pin), refusal: refusal.clone() };
    let mut net = Refusing { inner: LinuxNetwork::new().unwrap(), refusal };
    let mut live = store::read(&bpf, &net).unwrap();
    let before = live.state.clone();
    let source = mptm::config::Source::new("test.toml", text);
    let config = mptm::config::parse(&[source]).unwrap_or_else(|errors| panic!("{errors}"));
    let want =
        resolve(&config, &bpf, &net, &live, Neighbours::Look).unwrap_or_else(|errors| panic!("{errors:?}"));
    let result = apply(&plan(&want.state, &before), &mut bpf, &mut net, &mut live.ids);
    let now = store::read(&BpfDataPlane::new(&lab.a.pin), &LinuxNetwork::new().unwrap()).unwrap().state;
    match result {
        Ok(()) => {
            assert_eq!(now, want.state);
            false
        }
        Err(error) => {
            assert_eq!((error.source.to_string().as_str(), error.stuck.len()), ("refused", 0), "{error}");
            assert_eq!(now, before, "change {number} of {text}: {error}");
            true
        }
    }
}

/// Every `stride`th change that leads to a text is refused; then it is applied. How many were.
fn refuse_all(lab: &Lab, text: &str, stride: usize) -> u32 {
    let before = Machine::look(lab);
    let mut refused = 0;
    for number in (1..).step_by(stride) {
        if !refuse(lab, text, number, false) {
            break;
        }
        assert!(refuse(lab, text, number, true), "change {number} was not refused");
        refused += 2;
        if refused % 16 == 2 {
            Machine::look(lab).must_be(&before);
        }
    }
    refused
}

#[test]
fn every_change_is_refused() {
    lab::run("undone: every change", |lab| {
        let netns = File::open(format!("/run/netns/{}", lab.a.netns)).unwrap();
        let (plain, other) = (lab.a.plain_file(), other_file(lab));
        thread::scope(|scope| {
            let work = || {
                setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
                // Each that loads programs takes its time.
                let mut refused = refuse_all(lab, &plain, 5);
                refused += refuse_all(lab, &other, 1);
                poke_meta(&lab.a.pin, std::mem::offset_of!(mptm::kernel::abi::Meta, build), 0xee);
                refused += refuse_all(lab, &plain, 3);
                // To larger maps, and back to smaller ones, which comes last.
                refused += refuse_all(lab, &many_tunnels(lab), 901);
                refused += refuse_all(lab, &plain, 1201);
                // From maps of an older layout: new ones are made, and the old ones come back.
                poke_meta(&lab.a.pin, 0, 1);
                refused += refuse_all(lab, &other, 7);
                refused += refuse_all(lab, "", 3);
                assert_eq!(
                    store::read(&BpfDataPlane::new(&lab.a.pin), &LinuxNetwork::new().unwrap()).unwrap().state,
                    State::default()
                );
                println!("{refused} changes were refused");
                assert!(refused > 100, "only {refused} changes were refused");
            };
            scope.spawn(work).join().unwrap();
        });
    });
}
