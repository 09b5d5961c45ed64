//! The programs of benches/bpf/floor.bpf.c: what mptm's are measured against, and what feeds them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::{Link, Map, MapCore, MapFlags, Object, ObjectBuilder, libbpf_sys};
use zerocopy::{Immutable, IntoBytes};

/// uapi linux/bpf.h.
const LIVE_FRAMES: u32 = 1 << 1;

/// `struct frame`: how a frame begins, where in it an IPv4 address varies, and how many there were.
#[derive(Debug, Clone, IntoBytes, Immutable)]
#[repr(C)]
struct Frame {
    head: [u8; 96],
    size: u32,
    at: u32,
    first: u32,
    count: u32,
    shift: u32,
    random: u32,
    written: u64,
}

/// Addresses that frames are for: `count` of them from `first` on, 2 to the power of `shift` apart. They are at `at` in
/// the frame.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub at: u32,
    pub first: u32,
    pub count: u32,
    pub shift: u32,
}

pub struct Floor {
    object: Object,
    links: Vec<Link>,
}

impl Floor {
    /// Compiles and loads them.
    pub fn load() -> Self {
        let directory = tempfile::tempdir().expect("a directory for temporary files");
        let file = directory.path().join("floor.bpf.o");
        let mut arguments: Vec<String> = ["-O2", "-Wall", "-Werror", "-mcpu=v3"].map(String::from).into();
        let include = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        if Path::new(&include).exists() {
            arguments.extend(["-idirafter".into(), include]);
        }
        SkeletonBuilder::new()
            .source(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/bpf/floor.bpf.c"))
            .obj(&file)
            .clang_args(arguments)
            .build()
            .expect("clang compiles the floors");
        let open = ObjectBuilder::default().open_file(&file).expect("an object");
        Self { object: open.load().expect("the kernel takes the floors"), links: Vec::new() }
    }

    fn map(&self, name: &str) -> Map<'_> {
        self.object.maps().find(|map| map.name() == name).expect("a map of floor.bpf.c")
    }

    fn program(&self, name: &str) -> RawFd {
        let program = self.object.progs().find(|program| program.name() == name);
        program.expect("a program of floor.bpf.c").as_fd().as_raw_fd()
    }

    /// Attaches `drop` to a device, for as long as this lives.
    pub fn drop_at(&mut self, ifindex: u32) {
        let program = self.object.progs_mut().find(|program| program.name() == "drop");
        let link = program.expect("a program of floor.bpf.c").attach_xdp(ifindex as i32);
        self.links.push(link.expect("a veth takes XDP programs"));
    }

    /// Where the floors' frames go.
    pub fn send_to(&self, ifindex: u32) {
        self.put("out", &0_u32.to_ne_bytes(), &ifindex.to_ne_bytes());
    }

    /// What `geneve_by_hand` puts before what is for this IPv4 address.
    pub fn put_header(&self, destination: [u8; 4], header: &[u8]) {
        let mut value = [0; 52];
        value[..header.len()].copy_from_slice(header);
        self.put("headers", &destination, &value);
    }

    fn put(&self, map: &str, key: &[u8], value: &[u8]) {
        self.map(map).update(key, value, MapFlags::ANY).expect("the map has room");
    }

    /// One of the floors.
    pub fn of(&self, name: &str) -> RawFd {
        self.program(name)
    }

    /// Nanoseconds per frame of `program`, over `repeat` live frames that come in by device `ifindex`.
    pub fn time(
        &self,
        program: RawFd,
        frame: &[u8],
        addresses: Option<Addresses>,
        ifindex: u32,
        repeat: u32,
    ) -> f64 {
        let mut start = Frame {
            head: [0; 96],
            size: frame.len() as u32,
            at: 0,
            first: 0,
            count: 0,
            shift: 0,
            random: 1,
            written: 0,
        };
        let known = frame.len().min(start.head.len());
        start.head[..known].copy_from_slice(&frame[..known]);
        if let Some(Addresses { at, first, count, shift }) = addresses {
            start = Frame { at, first, count, shift, ..start };
        }
        self.put("frames", &0_u32.to_ne_bytes(), start.as_bytes());
        self.put("measured", &0_u32.to_ne_bytes(), &program.to_ne_bytes());
        run_live(self.program("start"), frame, ifindex, repeat).expect("the kernel runs live frames")
    }
}

/// BPF_PROG_TEST_RUN of live frames: they are sent where the program says. Returns nanoseconds per frame.
fn run_live(program: RawFd, frame: &[u8], ifindex: u32, repeat: u32) -> io::Result<f64> {
    let context =
        libbpf_sys::xdp_md { data_end: frame.len() as u32, ingress_ifindex: ifindex, ..Default::default() };
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ctx_in: (&raw const context).cast(),
        ctx_size_in: size_of_val(&context) as u32,
        repeat: repeat as i32,
        flags: LIVE_FRAMES,
        ..Default::default()
    };
    // SAFETY: the pointers are to live buffers of the sizes that stand beside them; the descriptor is open.
    let code = unsafe { libbpf_sys::bpf_prog_test_run_opts(program, &raw mut options) };
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(f64::from(options.duration)) }
}
