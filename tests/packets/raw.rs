//! BPF_PROG_TEST_RUN with what the product has no use for: metadata before the frame, and a short first buffer.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{ProgramHandle, libbpf_sys};
use mptm::kernel::linux::TestRun;
use mptm::kernel::{DataPlane, Program};

use crate::common::netns::skipped;
use crate::node::Node;

/// How a frame lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Bytes of metadata, which take from the headroom.
    pub metadata: usize,
    /// Bytes in the first buffer, of which a frame has at least 14.
    pub linear: usize,
}

impl Node {
    /// Runs a frame that lies in memory like this. None, and a line on standard error: the kernel can't do that.
    pub fn run_as(&self, layout: Layout, program: Program, ifindex: u32, frame: &[u8]) -> Option<TestRun> {
        let pin = self.plane.pin_dir().join("programs").join(program.name());
        let handle = ProgramHandle::from_pinned_path(pin).unwrap();
        match test_run(&handle, layout, ifindex, frame) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                skipped("needs Linux 6.18", &format!("frames that lie in memory as {layout:?}"));
                None
            }
            result => Some(result.unwrap()),
        }
    }
}

fn test_run(program: impl AsFd, layout: Layout, ifindex: u32, frame: &[u8]) -> io::Result<TestRun> {
    let input = [&vec![0; layout.metadata], frame].concat();
    let context = libbpf_sys::xdp_md {
        data: layout.metadata as u32,
        data_end: (layout.metadata + layout.linear.min(frame.len())) as u32,
        ingress_ifindex: ifindex,
        ..Default::default()
    };
    let mut output = vec![0; input.len() + 512];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        data_in: input.as_ptr().cast(),
        data_size_in: input.len() as u32,
        data_out: output.as_mut_ptr().cast(),
        data_size_out: output.len() as u32,
        ctx_in: (&raw const context).cast(),
        ctx_size_in: size_of_val(&context) as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: the pointers are to live buffers of the sizes that stand beside them.
    let code = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut options) };
    if code < 0 {
        return Err(io::Error::from_raw_os_error(-code));
    }
    output.truncate(options.data_size_out as usize);
    output.drain(..layout.metadata.min(output.len()));
    Ok(TestRun { action: options.retval, frame: output })
}
