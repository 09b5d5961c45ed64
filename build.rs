//! Compiles the objects in bpf/ and generates their skeletons into OUT_DIR.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;
use sha2::{Digest, Sha256};

/// Where Debian and Ubuntu keep the kernel's `asm/` headers, which `-target bpf` does not look at.
fn multiarch_include() -> Option<PathBuf> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").ok()?;
    let dir = Path::new("/usr/include").join(format!("{arch}-linux-gnu"));
    dir.join("asm/types.h").exists().then_some(dir)
}

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    let mut args: Vec<String> =
        ["-O2", "-Wall", "-Wextra", "-Werror", "-Wpadded", "-Wno-unused-parameter", "-mcpu=v3"]
            .map(String::from)
            .into();
    if let Some(dir) = multiarch_include() {
        args.push("-idirafter".into());
        args.push(dir.display().to_string());
    }

    let object = compile("mptm", &args, &out);
    compile("carry", &args, &out);

    // Which build of the programs this is: `apply` replaces attached programs of another.
    let bytes = std::fs::read(&object).expect("the object that was just built");
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo:rustc-env=MPTM_BUILD={hash}");
}

/// Compiles bpf/NAME.bpf.c; the answer is the object.
fn compile(name: &str, args: &[String], out: &Path) -> PathBuf {
    let source = format!("bpf/{name}.bpf.c");
    let object = out.join(format!("{name}.bpf.o"));
    let mut builder = SkeletonBuilder::new();
    builder.source(&source).obj(&object).clang_args(args);
    if let Some(clang) = env::var_os("CLANG") {
        builder.clang(clang);
    }
    if let Err(error) = builder.build_and_generate(out.join(format!("{name}.skel.rs"))) {
        let mut cause: Option<&dyn std::error::Error> = Some(error.as_ref());
        eprintln!("cannot compile {source}; it needs clang 14 or later, and libelf and zlib headers:");
        while let Some(e) = cause {
            eprintln!("  {e}");
            cause = e.source();
        }
        std::process::exit(1);
    }
    object
}
