//! The least that it could take: the entries of the maps, read and written in batches by a loop that knows nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use libbpf_rs::libbpf_sys::{bpf_map_batch_opts, bpf_map_create_opts, bpf_map_lookup_batch};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use crate::common::stats::median;
use crate::generate::Shape;
use crate::node::Node;

/// How the bench calls itself.
pub const ARGUMENT: &str = "--floor";
/// The maps that grow with the file.
const MAPS: [&str; 6] = ["names", "tunnels", "active", "endpoints", "routes", "prefixes"];
/// How many entries one call takes.
const BATCH: u32 = 4096;
const REPEATED: usize = 5;

/// Seconds, and how many entries there are, by map.
pub struct Floor {
    pub read: f64,
    pub write: f64,
    entries: BTreeMap<String, usize>,
}

impl Floor {
    /// Of the data plane that is pinned there: measured by a process of its own.
    pub fn of(pin: &Path) -> Self {
        let output = Command::new(std::env::current_exe().expect("/proc is mounted"))
            .arg(ARGUMENT)
            .arg(pin)
            .output()
            .expect("it is running");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("it prints numbers");
        let mut values: BTreeMap<String, f64> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
            .collect();
        let mut take = |name| values.remove(name).expect("it prints this");
        let (read, write) = (take("read"), take("write"));
        Self {
            read,
            write,
            entries: values.into_iter().map(|(name, count)| (name, count as usize)).collect(),
        }
    }

    /// The maps have what the file says.
    pub fn check(&self, shape: &Shape) {
        let count = |name: &str| self.entries[name];
        // The workloads' own addresses are routes, too.
        let routes = count("routes") + count("prefixes");
        assert_eq!(routes, shape.routes + 2, "routes");
        assert_eq!(count("endpoints"), shape.tunnels, "endpoints");
        assert_eq!(count("active"), shape.tunnels, "tunnels");
    }
}

/// The entries of a map, one after the other.
struct Entries {
    map: MapHandle,
    keys: Vec<u8>,
    values: Vec<u8>,
    count: usize,
}

/// PIN: prints the floor.
pub fn main(pin: &Path) {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for _ in 0..REPEATED {
        let begin = Instant::now();
        all = MAPS.map(|name| read(&pin.join("maps").join(name))).into_iter().collect::<Vec<_>>();
        reads.push(begin.elapsed().as_secs_f64());
        all.iter_mut().for_each(Entries::drop_empty);
        let copies: Vec<MapHandle> = all.iter().map(|entries| empty_like(&entries.map)).collect();
        let begin = Instant::now();
        all.iter().zip(&copies).for_each(|(entries, copy)| entries.write(copy));
        writes.push(begin.elapsed().as_secs_f64());
    }
    println!("read {}\nwrite {}", median(&reads), median(&writes));
    for (name, entries) in MAPS.iter().zip(&all) {
        println!("{name} {}", entries.count);
    }
}

impl Entries {
    /// Of an array, what is all zeros is no entry.
    fn drop_empty(&mut self) {
        if self.map.map_type() != MapType::Array {
            return;
        }
        let (key, value) = (self.map.key_size() as usize, self.map.value_size() as usize);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (k, v) in self.keys.chunks_exact(key).zip(self.values.chunks_exact(value)) {
            if v.iter().any(|byte| *byte != 0) {
                keys.extend_from_slice(k);
                values.extend_from_slice(v);
            }
        }
        self.count = keys.len() / key;
        (self.keys, self.values) = (keys, values);
    }

    fn write(&self, to: &MapHandle) {
        let batch = BATCH as usize;
        let keys = self.keys.chunks(batch * self.map.key_size() as usize);
        let values = self.values.chunks(batch * self.map.value_size() as usize);
        for (keys, values) in keys.zip(values) {
            let count = (keys.len() / self.map.key_size() as usize) as u32;
            to.update_batch(keys, values, count, MapFlags::ANY, MapFlags::ANY)
                .expect("it is as large as the other");
        }
    }
}

/// The whole map by one call, into memory for as many entries as it may have.
fn read(path: &Path) -> Entries {
    let map = MapHandle::from_pinned_path(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    let room = map.max_entries();
    let mut keys = vec![0; room as usize * key_size];
    let mut values = vec![0; room as usize * value_size];
    let mut next = vec![0_u8; key_size.max(4)];
    let mut count = room;
    let options = bpf_map_batch_opts { sz: size_of::<bpf_map_batch_opts>() as _, ..Default::default() };
    // SAFETY: `keys` and `values` have room for `count` entries, and `next` for a key or a bucket's number.
    let result = unsafe {
        bpf_map_lookup_batch(
            map.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            next.as_mut_ptr().cast(),
            keys.as_mut_ptr().cast(),
            values.as_mut_ptr().cast(),
            &raw mut count,
            &raw const options,
        )
    };
    assert!(result == 0 || result == -libc::ENOENT, "{}: error {result}", path.display());
    let count = count as usize;
    keys.truncate(count * key_size);
    values.truncate(count * value_size);
    Entries { map, keys, values, count }
}

/// A new map that could take the place of another.
fn empty_like(map: &MapHandle) -> MapHandle {
    let info = map.info().expect("it is open");
    let options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as _,
        map_flags: info.info.map_flags,
        ..Default::default()
    };
    MapHandle::create(
        map.map_type(),
        Some("floor"),
        map.key_size(),
        map.value_size(),
        map.max_entries(),
        &options,
    )
    .expect("there is memory for it")
}

/// The same entries by bpftool: how many lines, and the median of the seconds that it took. None: there is no bpftool.
pub fn bpftool(node: &Node, shape: &Shape, repeats: usize) -> Option<(usize, f64)> {
    Command::new("bpftool").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    let file = node.path("bpftool.toml");
    shape.write(&file, &node.head()).expect("there is room for a file");
    let applied = node.mptm(&file, &["apply"]).output().expect("cargo has built mptm");
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let mut lines = String::new();
    for name in MAPS {
        let path = node.pin.join("maps").join(name);
        let mut entries = read(&path);
        entries.drop_empty();
        let (key, value) = (entries.map.key_size() as usize, entries.map.value_size() as usize);
        for (k, v) in entries.keys.chunks_exact(key).zip(entries.values.chunks_exact(value)) {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
            writeln!(lines, "map update pinned {} key hex{} value hex{}", path.display(), hex(k), hex(v))
                .expect("a string takes all");
        }
    }
    let batch = node.path("bpftool.batch");
    std::fs::write(&batch, &lines).expect("there is room for a file");
    let times: Vec<f64> = (0..repeats)
        .map(|_| {
            let begin = Instant::now();
            let output =
                Command::new("bpftool").args(["batch", "file"]).arg(&batch).output().expect("it is there");
            assert!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
            begin.elapsed().as_secs_f64()
        })
        .collect();
    node.down();
    Some((lines.lines().count(), median(&times)))
}
